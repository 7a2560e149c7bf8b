"""Run with `pytest tests/training/test_exact_hooks.py`: what changes batch or step is equal on ranks, resumed and streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dirtune.data.cache import ResidentData
from dirtune.io.storage import Storage
from dirtune.nested import merge
from dirtune.training.trial import TrialRun
from tests.training.gloo import on_ranks
from tests.training.runs import (
    TERMS,
    Configure,
    finish,
    in_float64,
    job_of,
    lasting,
    same,
    tables,
    trained,
    weights_of,
    without_images,
)
from tests.training.test_on_ranks import outcome
from tests.training.toy_inputs import make_case_config, make_data

HOOKS: dict[str, dict[str, Any]] = {
    "synthesis": {"synthesis": {"name": "smogn"}},
    "sampling": {"sampling": {"name": "inverse"}},
    "mixing": {"mixing": {"name": "c_mixup", "share_per": "row"}},
    "mixing of embeddings": {"mixing": {"name": "mixup", "place": "embedding"}},
    "sharpness": {"sharpness": {"name": "sam", "rho": 0.1, "weights": "ascent"}},
    "draws, epochs and proxies of terms": {
        "loss": {"name": "dist"},
        "terms": {
            "rotreg": {"rows": 12},
            "phreg": {"rows": 9},
            "srl": {"points": 20},
            "supremix": {},
            "prime": {"proxies": 4},
        },
    },
}
WITHOUT_ROWS = [name for name in HOOKS if name != "synthesis"]
"""Hooks that fit all inputs and labels."""
# The last batch of the 202 rows has 1 row, so that most ranks get none of it.
RECIPE = {"epochs": 2, "batch_size": 67, "optimizer": "sgd", "momentum": 0.9, "gradient_clip": 0.5}
SETTINGS = {"terms": TERMS, "model": {"projection_dim": 4}, "reweighting": {"scheme": "inverse"}}


def outcomes(rank: int, world: int, runs: list[Any]) -> list[dict[str, Any]]:
    return [outcome(rank, world, *run) for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_ranks_train_to_the_weights_of_one_process(configuration: Configure, toy: ResidentData, world: int) -> None:
    data = in_float64(without_images(toy))
    split_up = {"batch_size": 66, "accumulation": 3}
    runs = [
        (data, configuration(**merge(SETTINGS, hook), recipe=RECIPE | changed))
        for hook in HOOKS.values()
        for changed in ({}, split_up)
    ]
    expected = outcomes(0, 1, runs)
    for found in on_ranks(world, outcomes, runs):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one["weights"], other["weights"], rtol=1e-12, atol=1e-12)
            assert one["digest"] == other["digest"]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_killed_trial_resumes_to_the_last_bit(
    configuration: Configure, toy: ResidentData, hook: str, tmp_path: Path
) -> None:
    recipe = {"epochs": 3, "steps_per_epoch": 3}
    toy = without_images(toy)
    job = job_of(configuration(**merge(SETTINGS, HOOKS[hook]), recipe=recipe), toy)
    whole, interrupted = (Storage.open(tmp_path / name) for name in ("whole", "interrupted"))
    expected = finish(TrialRun(job, toy, whole))
    TrialRun(job, toy, interrupted, waits_for_checkpoints=True).step()
    resumed = finish(TrialRun(job, toy, interrupted))
    assert same(weights_of(resumed.training), weights_of(expected.training))
    assert lasting(tables(interrupted)) == lasting(tables(whole))


@pytest.mark.parametrize("hook", WITHOUT_ROWS)
def test_a_streamed_set_trains_as_one_in_memory(hook: str) -> None:
    config = make_case_config("image", {**HOOKS[hook], "recipe": {"epochs": 2, "views": {"augmentation": "light"}}})
    weights = [
        weights_of(trained(config, make_data(inputs, torch.device("cpu")))) for inputs in ("image", "image streamed")
    ]
    assert same(*weights)


@pytest.mark.parametrize("hook", HOOKS)
def test_it_changes_the_training(configuration: Configure, toy: ResidentData, hook: str) -> None:
    data = without_images(toy)
    weights = [weights_of(trained(configuration(**merge(SETTINGS, each)), data)) for each in ({}, HOOKS[hook])]
    assert not same(*weights)
