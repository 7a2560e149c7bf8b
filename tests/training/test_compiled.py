"""Run with `pytest tests/training/test_compiled.py`: compiled steps, in separate processes.

No compiler can trace the shape checks that the tests add. The backend is "aot_eager", which has all stages of torch's
default except the last, code generation in C++ or Triton, which would take a minute on two cores.
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
from tests.training.runs import TERMS, Configure, finish, in_float64, job_of, weights_of, without_shares

pytestmark = pytest.mark.slow

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
    "recipe": {"compile": True, "precision": "bf16", "batch_size": 66, "accumulation": 2, "epochs": 2},
}


def outcome(rank: int, world: int, data: ResidentData, config: TrialConfig) -> dict[str, Any]:
    training = begin_training(config, data, Ranks(rank, world))
    training.model.double()
    list(run_epochs(training))
    return {"weights": weights_of(training), "history": training.history}


def interrupted(config: TrialConfig, data: ResidentData, folder: str) -> list[dict[str, Any]]:
    """Return the final states of a trial: uninterrupted, and resumed after every epoch."""
    job, parts = job_of(config, data), Storage.open(f"{folder}/parts")
    whole = finish(TrialRun(job, data, Storage.open(f"{folder}/whole")))
    for _ in range(config.recipe.epochs - 1):
        TrialRun(job, data, parts, waits_for_checkpoints=True).step()
    again = finish(TrialRun(job, data, parts))
    return [trial.training.get_state() for trial in (whole, again)]


def compiled(rank: int, world: int, data: ResidentData, runs: dict[str, TrialConfig]) -> dict[str, Any]:
    """Return every run, compiled, with the number of its graphs."""
    from torch._dynamo.utils import counters

    # Torch stops compiling a function after a few variants, and reports it in its log alone.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    numerics.COMPILER = "aot_eager"
    found: dict[str, Any] = {}
    for name, config in runs.items():
        counters.clear()
        found[name] = outcome(rank, world, data, config)
        found[name]["programs"] = counters["stats"]["unique_graphs"]
    return found


def on_this_rank(
    rank: int,
    world: int,
    data: ResidentData,
    runs: dict[str, TrialConfig],
    whole: TrialConfig,
    in_float32: ResidentData,
    folder: str,
) -> dict[str, Any]:
    """Return the runs of one process and the interrupted trial, a rank each, then the first run of the whole group."""
    alone = {"runs": compiled(0, 1, data, runs)} if rank == 0 else {"states": interrupted(whole, in_float32, folder)}
    first = dict([next(iter(runs.items()))])
    return {"alone": alone, "group": compiled(rank, world, data, first)}


@pytest.fixture(scope="module")
def plain(configuration: Configure) -> dict[str, TrialConfig]:
    return {name: configuration(**settings) for name, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def runs(plain: dict[str, TrialConfig]) -> dict[str, TrialConfig]:
    return {
        name: config.model_copy(update={"recipe": config.recipe.model_copy(update={"compile": True})})
        for name, config in plain.items()
    }


@pytest.fixture(scope="module")
def found(
    configuration: Configure,
    toy: ResidentData,
    runs: dict[str, TrialConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Runs of the first rank by the number of ranks, and the states of the trials."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    exact, whole = in_float64(toy), configuration(**WHOLE)
    first, second = on_ranks(2, on_this_rank, exact, runs, whole, toy, folder, fresh=True)
    return {"runs": {1: first["alone"]["runs"], 2: first["group"]}, "states": second["alone"]["states"]}


@pytest.fixture(scope="module")
def eager(plain: dict[str, TrialConfig], toy: ResidentData) -> dict[str, dict[str, Any]]:
    return {name: outcome(0, 1, in_float64(toy), config) for name, config in plain.items()}


def assert_equal_to_eager(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(result["weights"]) == list(expected["weights"])
    torch.testing.assert_close(result["weights"], expected["weights"], rtol=1e-9, atol=1e-11)
    for values, of_plain in zip(result["history"], map(without_shares, expected["history"]), strict=True):
        assert values == pytest.approx(of_plain, rel=1e-6, nan_ok=True)
    assert result["programs"] > 0


@pytest.mark.parametrize(("name", "world"), [*((name, 1) for name in SETTINGS), ("terms and projection", 2)])
def test_compiled_steps_train_to_the_weights_of_eager_ones(
    found: dict[str, Any], eager: dict[str, dict[str, Any]], name: str, world: int
) -> None:
    assert_equal_to_eager(found["runs"][world][name], eager[name])


@pytest.mark.soak
def test_compiled_steps_of_a_group_train_to_the_weights_of_eager_ones(
    runs: dict[str, TrialConfig], eager: dict[str, dict[str, Any]], toy: ResidentData
) -> None:
    found, _ = on_ranks(2, compiled, in_float64(toy), runs, fresh=True)
    for name, result in found.items():
        assert_equal_to_eager(result, eager[name])


def test_a_compiled_trial_resumed_after_every_epoch_equals_an_uninterrupted_one(
    found: dict[str, Any],
) -> None:
    whole, again = found["states"]
    for part in ("model", "loss", "best_weights", "optimizer", "history"):
        torch.testing.assert_close(again[part], whole[part], rtol=0, atol=0, equal_nan=True)
