"""Run with `pytest tests/training/test_compiled.py`: compiled steps, in processes of their own.

No compiler can see through the checks of shapes that the tests add. The one here is "aot_eager", which goes all the way of
torch's default but the last: programs in C++ or Triton, whose making takes a minute on this project's test machine.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.io.storage import Storage
from dirtune.training import numerics
from dirtune.training.distributed import Ranks
from dirtune.training.loop import run_epochs
from dirtune.training.state import begin_training
from dirtune.training.trial import TrialRun
from tests.training.gloo import on_ranks
from tests.training.runs import TERMS, Configure, finish, in_float64, job_of, weights_of

SETTINGS: dict[str, dict[str, Any]] = {
    "terms and projection": {"terms": TERMS, "model": {"projection_dim": 4}},
    "smoothed features, micro-batches": {
        "reweighting": {"fds": {"size": 3}},
        "model": {"projection_dim": 4},
        "recipe": {"batch_size": 66, "accumulation": 2, "epochs": 10},
    },
    "regressor re-training": {
        "terms": TERMS,
        "recipe": {"batch_size": 66, "epochs": 2},
        "scheme": {"name": "rrt", "epochs": 2, "learning_rate": 0.01},
    },
}
WHOLE: dict[str, Any] = {
    "terms": TERMS,
    "model": {"encoder": {"dropout": 0.3}, "projection_dim": 4},
    "recipe": {"compile": True, "precision": "bf16", "batch_size": 66, "accumulation": 2, "epochs": 4},
}


def outcome(rank: int, world: int, data: ResidentData, config: TrialConfig) -> dict[str, Any]:
    training = begin_training(config, data, Ranks(rank, world))
    training.model.double()
    list(run_epochs(training))
    return {"weights": weights_of(training), "history": training.history}


def interrupted(config: TrialConfig, data: ResidentData, folder: str) -> list[dict[str, Any]]:
    """The states of a trial at its end: uninterrupted, and begun anew after every epoch."""
    job, parts = job_of(config, data), Storage.open(f"{folder}/parts")
    whole = finish(TrialRun(job, data, Storage.open(f"{folder}/whole")))
    for _ in range(3):
        TrialRun(job, data, parts).step()
    again = finish(TrialRun(job, data, parts))
    return [trial.training.get_state() for trial in (whole, again)]


def compiled(rank: int, world: int, data: ResidentData, runs: dict[str, TrialConfig]) -> dict[str, Any]:
    """Every run compiled, with the number of its programs."""
    from torch._dynamo.utils import counters

    # Torch stops compiling a piece of code after a few variants, and says so in its log alone.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    numerics.COMPILER = "aot_eager"
    found: dict[str, Any] = {}
    for name, config in runs.items():
        counters.clear()
        found[name] = outcome(rank, world, data, config)
        found[name]["programs"] = counters["stats"]["unique_graphs"]
    return found


def compiled_alone(
    rank: int,
    world: int,
    data: ResidentData,
    runs: dict[str, TrialConfig],
    whole: TrialConfig,
    in_float32: ResidentData,
    folder: str,
) -> dict[str, Any]:
    found = compiled(rank, world, data, runs)
    return found | {"states": interrupted(whole, in_float32, folder)}


@pytest.fixture(scope="module")
def plain(configuration: Configure) -> dict[str, TrialConfig]:
    return {name: configuration(**settings) for name, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def found(
    configuration: Configure, toy: ResidentData, plain: dict[str, TrialConfig], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, Any]]:
    """What the first rank has seen, by the number of ranks."""
    runs = {
        name: config.model_copy(update={"recipe": config.recipe.model_copy(update={"compile": True})})
        for name, config in plain.items()
    }
    folder = str(tmp_path_factory.mktemp("compiled"))
    exact, whole = in_float64(toy), configuration(**WHOLE)
    return {
        1: on_ranks(1, compiled_alone, exact, runs, whole, toy, folder, fresh=True)[0],
        2: on_ranks(2, compiled, exact, runs, fresh=True)[0],
    }


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_compiled_steps_train_to_the_weights_of_the_others(
    found: dict[int, dict[str, Any]], plain: dict[str, TrialConfig], toy: ResidentData, name: str, world: int
) -> None:
    expected, result = outcome(0, 1, in_float64(toy), plain[name]), found[world][name]
    assert list(result["weights"]) == list(expected["weights"])
    torch.testing.assert_close(result["weights"], expected["weights"], rtol=1e-9, atol=1e-11)
    for values, of_plain in zip(result["history"], expected["history"], strict=True):
        assert values == pytest.approx(of_plain, rel=1e-6, nan_ok=True)
    assert result["programs"] > 0


def test_a_compiled_trial_interrupted_after_every_epoch_ends_bitwise_as_an_uninterrupted_one(
    found: dict[int, dict[str, Any]],
) -> None:
    whole, again = found[1]["states"]
    for part in ("model", "loss", "best_weights", "optimizer", "history"):
        torch.testing.assert_close(again[part], whole[part], rtol=0, atol=0, equal_nan=True)
