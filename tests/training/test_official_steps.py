"""Run with `pytest tests/training/test_official_steps.py`: the steps of official training loops, trained by the presets.

Rounding: in float64 the losses agree to 1e-15 where they were recorded; the tolerance leaves room for the order of sums on
other machines, which steps amplify. Sample weights and the noise scale of Balanced MSE are float32 on both sides: 2e-7.
"""

from __future__ import annotations

import json

import pytest
import torch

from tests.golden.vectors import FOLDER, list_vectors
from tests.training.official_steps import OfficialRun, Steps, make_config, read_official, run_steps

NAMES = list_vectors("training")
EXACT, ROUNDED = 1e-9, 5e-7
GRADIENT_CLIP = 5.0


def choose_variant(run: OfficialRun) -> str:
    """Return the variant whose presets, with the settings over them, are those of the script."""
    return "intended" if run.meta["expect"] == "equal" else "published"


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
        assert entry["equal_in"] == choose_variant(read_official(name))
        assert read_official(name).meta["source"] == entry["source"]


@pytest.mark.parametrize("name", NAMES)
def test_presets_train_the_official_steps(name: str) -> None:
    """As their settings name them, or in the published variant where an earlier version was not equal."""
    run = read_official(name)
    difference = measure_difference(run_steps(run, make_config(run, presets=choose_variant(run))), run)
    assert difference < (ROUNDED if run.has_float32_weights else EXACT)


@pytest.mark.parametrize("name", ["accon_agedb_accon_with_relu_agedb", "bmse_imdb_wiki_bni_learned_sigma_agedb"])
def test_the_intended_variant_departs_from_a_script(name: str) -> None:
    run = read_official(name)
    assert measure_difference(run_steps(run, make_config(run, presets="intended")), run) > 1e-4
