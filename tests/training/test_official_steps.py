"""Run with `pytest tests/training/test_official_steps.py`: the steps of official training loops, trained by the presets.

Rounding: in float64 the losses agree to 1e-15 where they were recorded; the tolerance leaves room for the order of sums on
other machines, which steps amplify. Sample weights and the noise scale of Balanced MSE are float32 on both sides: 2e-7.
"""

from __future__ import annotations

import importlib
import inspect
import json

import pytest
import torch

from tests.golden.vectors import FOLDER, list_vectors
from tests.training.official_steps import OfficialRun, Steps, make_config, read_official, run_steps

NAMES = list_vectors("training")
EXACT, ROUNDED = 1e-9, 5e-7
GRADIENT_CLIP = 5.0
# Substring of a vector's name, and the module that describes the departure
DEPARTURES = {
    "accon_with_relu": "dirtune.models.regressor",
    "learned_sigma": "dirtune.losses.balanced_mse",
}


def choose_variant(run: OfficialRun) -> str:
    """Return the variant whose presets, with the settings over them, are those of the script."""
    return "intended" if run.meta["expect"] == "equal" else "published"


def find_departure(name: str) -> str | None:
    return next((module for part, module in DEPARTURES.items() if part in name), None)


def measure_difference(found: Steps, run: OfficialRun) -> float:
    """Return the largest relative difference in losses, gradient norms, learning rates and final weights."""
    pairs = [(found.losses, run.arrays["loss"])]
    norms = run.arrays["grad_norm"]
    # torch divides by the norm plus 1e-6, which a clipped norm inherits.
    if run.settings["data"] == "sts_b":
        norms = norms * (GRADIENT_CLIP / (norms + 1e-6)).clamp(max=1.0)
    pairs.append((found.grad_norms, norms))
    if "lr" in run.arrays:
        pairs.append((found.rates, run.arrays["lr"]))
    by_step = [((one - other).abs() / other.abs()).max() for one, other in pairs]
    weights = [(found.weights[name] - values[-1]).norm() / values[-1].norm() for name, values in run.weights.items()]
    return float(torch.stack([*by_step, *weights]).max())


def test_every_vector_is_read() -> None:
    assert len(NAMES) >= 47
    index = json.loads((FOLDER / "training" / "index.json").read_text(encoding="utf-8"))
    for name, entry in index.items():
        assert (entry["equal_in"] is None) == (find_departure(name) is not None)
        assert entry["equal_in"] in {None, choose_variant(read_official(name))}
        assert read_official(name).meta["source"] == entry["source"]


def test_presets_train_the_official_steps(name: str) -> None:
    """As their settings name them, or in the published variant where an earlier version was not equal."""
    run = read_official(name)
    difference = measure_difference(run_steps(run, make_config(run, presets=choose_variant(run))), run)
    assert difference < (ROUNDED if run.has_float32_weights else EXACT)


def test_a_departure_is_one_and_is_documented(name: str) -> None:
    run = read_official(name)
    difference = measure_difference(run_steps(run, make_config(run, presets="published")), run)
    assert difference > 1e-4
    assert "Departure" in inspect.getsource(importlib.import_module(find_departure(name) or ""))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        is_departure = "departure" in metafunc.function.__name__
        metafunc.parametrize("name", [name for name in NAMES if (find_departure(name) is not None) == is_departure])
