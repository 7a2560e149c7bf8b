"""Run with `pytest tests/training/test_on_ranks.py`: the loop and trials on two gloo ranks, in one start of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_statuses
from dirtune.training.distributed import Ranks
from dirtune.training.evaluation import predict
from dirtune.training.loop import run_epochs
from dirtune.training.state import begin_training
from dirtune.training.trial import TrialJob, TrialRun
from tests.training.fitted import with_state
from tests.training.gloo import on_ranks
from tests.training.runs import (
    EXPLODING,
    TERMS,
    Configure,
    finish,
    in_float64,
    job_of,
    lasting,
    same,
    tables,
    weights_of,
    without_shares,
)

pytestmark = pytest.mark.slow

Runs = dict[str, tuple[ResidentData, TrialConfig]]
Jobs = dict[str, TrialJob]

# 202 rows: with batches of 67 the last one has one row, so that the first of two ranks gets none.
EXACT: dict[str, dict[str, Any]] = {
    "terms and projection": {"terms": TERMS, "model": {"projection_dim": 4}, "recipe": {"batch_size": 67}},
    "momentum and clipping": {
        "terms": {"accon": {}},
        "reweighting": {"scheme": "sqrt_inverse"},
        "recipe": {"batch_size": 33, "epochs": 2, "optimizer": "sgd", "gradient_clip": 0.5},
    },
    "a projection that no loss reads": {
        "model": {"projection_dim": 4, "predictor_input": "embedding"},
        "recipe": {"optimizer": "adam", "weight_decay": 0.1, "batch_size": 33, "epochs": 2},
    },
    "smoothed features": {
        "reweighting": {"fds": {"size": 3}},
        "model": {"projection_dim": 4},
        "recipe": {"batch_size": 67, "views": {"count": 2, "regression": "first"}},
        "terms": TERMS,
    },
    "two stages": {
        "terms": TERMS,
        "model": {"projection_dim": 4},
        "recipe": {"batch_size": 67, "epochs": 2},
        "scheme": {"name": "two_stage", "epochs": 2},
    },
    "regressor re-training": {
        "terms": TERMS,
        "model": {"projection_dim": 4},
        "reweighting": {"scheme": "inverse"},
        "recipe": {"batch_size": 67, "epochs": 2, "optimizer": "sgd", "gradient_clip": 0.5},
        "scheme": {"name": "rrt", "epochs": 2, "learning_rate": 0.01},
    },
    "passes apart, and a second stage with a recipe of its own": {
        "terms": TERMS,
        "model": {"projection_dim": 4},
        "recipe": {
            "batch_size": 66,
            "accumulation": 3,
            "epochs": 2,
            "views": {"count": 3, "regression": "first", "passes": "apart"},
            "last_batch": "drop",
        },
        "scheme": {
            "name": "rrt",
            "epochs": 2,
            "learning_rate": 0.01,
            "optimizer": "sgd",
            "batch_size": 33,
            "loss": {"name": "mse"},
            "views": {"count": 2},
        },
    },
    "micro-batches of three rows, the last of one": {
        "terms": TERMS,
        "model": {"projection_dim": 4},
        "reweighting": {"fds": {"size": 3}},
        "recipe": {
            "batch_size": 33,
            "accumulation": 11,
            "epochs": 2,
            "optimizer": "sgd",
            "gradient_clip": 0.5,
            "views": {"count": 2, "regression": "first"},
        },
    },
    "correlated predictions": {"loss": {"name": "ccc"}, "recipe": {"batch_size": 67}},
    "a head with two rates, and a second stage of the same head": {
        "terms": TERMS,
        "loss": {"name": "beta_nll", "scale_rate": 0.1},
        "reweighting": {"scheme": "sqrt_inverse"},
        "recipe": {"batch_size": 67, "epochs": 2, "views": {"count": 2, "regression": "first", "passes": "apart"}},
        "scheme": {"name": "rrt", "epochs": 2, "learning_rate": 0.01, "loss": {"name": "gaussian_nll"}},
    },
    "voting heads in micro-batches, and a term of label groups": {
        "loss": {"name": "uvote", "heads": 3},
        "terms": {"group_rnc": {"groups": 4}},
        "recipe": {"batch_size": 66, "accumulation": 2, "epochs": 2},
    },
    "copies of the label in micro-batches": {
        "model": {"target_copies": 3},
        "recipe": {"batch_size": 66, "accumulation": 2},
    },
    "micro-batches in two stages": {
        "terms": TERMS,
        "model": {"projection_dim": 4},
        "recipe": {"batch_size": 66, "accumulation": 2, "epochs": 2},
        "scheme": {"name": "two_stage", "epochs": 2},
    },
}
LEARNED = "a loss and a term with parameters"
WITH_STATE = {LEARNED, "voting heads in micro-batches, and a term of label groups"}
IN_FLOAT32: dict[str, dict[str, Any]] = {
    "augmented images": {
        "terms": TERMS,
        "model": {"encoder": {"name": "cnn", "channels": 2}, "projection_dim": 4},
        "recipe": {
            "batch_size": 67,
            "optimizer": "sgd",
            "learning_rate": 0.001,
            "epochs": 2,
            "views": {"count": 3, "augmentation": "shift", "regression": "first"},
        },
    },
    "micro-batches of augmented images, pixel by pixel": {
        "terms": TERMS,
        "model": {"encoder": {"name": "cnn", "channels": 2}, "projection_dim": 4},
        "recipe": {
            "batch_size": 66,
            "accumulation": 3,
            "optimizer": "sgd",
            "learning_rate": 0.001,
            "epochs": 2,
            "channels_last": True,
            "views": {"count": 2, "augmentation": "shift"},
        },
    },
}


def outcome(rank: int, world: int, data: ResidentData, config: TrialConfig) -> dict[str, Any]:
    training = begin_training(config, data, Ranks(rank, world))
    if data.splits["train"].inputs["vector"].dtype == torch.float64:
        training.model.double()
    list(run_epochs(training))
    predictions = {split: torch.from_numpy(predict(training, split)) for split in data.splits}
    return {
        "weights": weights_of(training),
        "predictions": predictions,
        "history": training.history,
        "digest": training.order_digest,
        "learned": dict(training.loss.state_dict()),
    }


def trials(ranks: Ranks, data: ResidentData, jobs: Jobs, folder: str) -> dict[str, Any]:
    """One trial with a folder for each rank, one interrupted twice, and one that explodes."""
    whole = finish(TrialRun(jobs["whole"], data, Storage.open(f"{folder}/of_rank_{ranks.rank}"), ranks=ranks))
    shared = Storage.open(f"{folder}/shared")
    # Into the first stage, and on into the second
    for steps in (1, 2):
        interrupted = TrialRun(jobs["whole"], data, shared, ranks=ranks, waits_for_checkpoints=True)
        for _ in range(steps):
            interrupted.step()
        # A killed group starts again when its first rank has written
        dist.barrier()
    again = finish(TrialRun(jobs["whole"], data, shared, ranks=ranks))
    failed = finish(TrialRun(jobs["exploding"], data, shared, ranks=ranks))
    return {
        "statuses": [str(trial.status) for trial in (whole, again, failed)],
        "weights": [trial.training.model.state_dict() for trial in (whole, again)],
    }


def normalized_trials(ranks: Ranks, data: ResidentData, job: TrialJob, folder: str) -> dict[str, Any]:
    """A trial with batch normalization, whole and interrupted after its first epoch."""
    found = {}
    for name, steps in (("whole", 0), ("interrupted", 1)):
        study = Storage.open(f"{folder}/normalized_{name}")
        if steps:
            TrialRun(job, data, study, ranks=ranks, waits_for_checkpoints=True).step()
            dist.barrier()
        trial = TrialRun(job, data, study, ranks=ranks)
        assert trial.training.epoch == steps
        while len(trial.training.history) < job.config.epochs_planned - 1:
            trial.step()
        buffers = {key: buffer.clone() for key, buffer in trial.training.model.named_buffers()}
        finish(trial)
        predictions = torch.from_numpy(predict(trial.training, "test"))
        found[name] = {"buffers": buffers, "weights": weights_of(trial.training) | {"predictions": predictions}}
    return found


def disturbed_losses(ranks: Ranks, data: ResidentData, config: TrialConfig) -> list[dict[str, Any]]:
    """The state of a loss and a term after each epoch, before which that of the second rank is changed."""
    training, found = begin_training(config, data, ranks), []
    training.model.double()
    epochs = run_epochs(training)
    for _ in range(2):
        with torch.no_grad():
            for parameter in training.loss.parameters():
                for value in (parameter, *training.optimizer.state.get(parameter, {}).values()):
                    value += 0.01 * ranks.rank
        next(epochs)
        moments = [training.optimizer.state[parameter] for parameter in training.loss.parameters()]
        found.append(copy.deepcopy({"learned": dict(training.loss.state_dict()), "moments": moments}))
    return found


def on_this_rank(rank: int, world: int, data: ResidentData, runs: Runs, jobs: Jobs, folder: str) -> dict[str, Any]:
    return {
        "disturbed": disturbed_losses(Ranks(rank, world), *runs[LEARNED]),
        "runs": {name: outcome(rank, world, *run) for name, run in runs.items()},
        "trials": trials(Ranks(rank, world), data, jobs, folder),
        "normalized": normalized_trials(Ranks(rank, world), data, jobs["normalized"], folder),
    }


@pytest.fixture(scope="module")
def runs(configuration: Configure, toy: ResidentData) -> Runs:
    exact = {name: (in_float64(toy), configuration(**settings)) for name, settings in EXACT.items()}
    stateful = configuration(recipe={"batch_size": 67}, reweighting={"scheme": "sqrt_inverse"})
    exact[LEARNED] = (in_float64(toy), with_state(stateful))
    return exact | {name: (toy, configuration(**settings)) for name, settings in IN_FLOAT32.items()}


@pytest.fixture(scope="module")
def jobs(configuration: Configure, toy: ResidentData) -> Jobs:
    model = {"encoder": {"dropout": 0.3}, "projection_dim": 4}
    scheme = {"name": "rrt", "epochs": 2}
    whole = configuration(terms=TERMS, model=model, recipe={"batch_size": 67, "epochs": 2}, scheme=scheme)
    normalized = configuration(
        data={"fraction": 0.2},
        model={"encoder": {"name": "resnet18"}},
        recipe={"batch_size": 20, "epochs": 3, "last_batch": "drop"},
    )
    return {
        "whole": job_of(whole, toy),
        "normalized": job_of(normalized, toy),
        "exploding": job_of(configuration(recipe=EXPLODING), toy),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def results(toy: ResidentData, runs: Runs, jobs: Jobs, folder: Path) -> list[dict[str, Any]]:
    """What each rank has seen."""
    return on_ranks(2, on_this_rank, toy, runs, jobs, str(folder))


@pytest.mark.parametrize("name", [*EXACT, LEARNED, *IN_FLOAT32])
def test_two_ranks_train_to_the_weights_of_one_process_on_the_same_global_batches(
    results: list[dict[str, Any]], runs: Runs, name: str
) -> None:
    one = outcome(0, 1, *runs[name])
    rtol, atol = (1e-3, 1e-4) if name in IN_FLOAT32 else (1e-9, 1e-11)
    found = [result["runs"][name] for result in results]
    for part in ("weights", "predictions", "learned"):
        for each in found:
            torch.testing.assert_close(each[part], one[part], rtol=rtol, atol=atol)
    assert all(same(found[0][part], found[1][part]) for part in ("weights", "learned"))
    assert bool(one["learned"]) is (name in WITH_STATE)
    for each in found:
        assert each["digest"] == one["digest"]
        for values, expected in zip(each["history"], map(without_shares, one["history"]), strict=True):
            assert values == pytest.approx(expected, rel=max(rtol, 1e-6), abs=1e-6)


def test_fitted_losses_and_terms_have_the_state_of_the_first_rank_after_every_epoch(
    results: list[dict[str, Any]], runs: Runs
) -> None:
    for first, second in zip(*(result["disturbed"] for result in results), strict=True):
        assert first["moments"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
        torch.testing.assert_close(second, first, rtol=0, atol=0)
    # Also before the first step
    undisturbed = disturbed_losses(Ranks(), *runs[LEARNED])[0]
    torch.testing.assert_close(results[0]["disturbed"][0], undisturbed, rtol=1e-9, atol=1e-11)


def test_the_first_rank_alone_writes(results: list[dict[str, Any]], folder: Path) -> None:
    assert [result["trials"]["statuses"][0] for result in results] == ["complete"] * 2
    assert not (folder / "of_rank_1").exists()
    (row,) = tables(Storage.open(folder / "of_rank_0"))["trials"]
    assert row["workers"] == 2


def test_an_interrupted_group_ends_bitwise_as_an_uninterrupted_one(
    results: list[dict[str, Any]], folder: Path, jobs: Jobs
) -> None:
    for result in results:
        for weights in result["trials"]["weights"]:
            assert same(weights, results[0]["trials"]["weights"][0])
    alone = lasting(tables(Storage.open(folder / "of_rank_0")))
    resumed = {
        name: [row for row in rows if row["trial_id"] == jobs["whole"].trial_id]
        for name, rows in lasting(tables(Storage.open(folder / "shared"))).items()
    }
    # The other trial's configuration columns stand there, too.
    assert alone.pop("trials")[0].items() <= resumed.pop("trials")[0].items()
    assert resumed == alone


def test_ranks_evaluate_one_model_after_every_epoch_and_resume_exactly_with_batch_normalization(
    results: list[dict[str, Any]], folder: Path
) -> None:
    expected = results[0]["normalized"]["whole"]
    assert any(name.endswith("running_mean") for name in expected["buffers"])
    for result in results:
        for found in result["normalized"].values():
            assert same(found["buffers"], expected["buffers"])
            assert same(found["weights"], expected["weights"])
    whole, interrupted = (
        lasting(tables(Storage.open(folder / f"normalized_{each}"))) for each in ("whole", "interrupted")
    )
    assert interrupted == whole


def test_a_loss_that_is_not_finite_ends_the_trial_on_all_ranks(
    results: list[dict[str, Any]], folder: Path, jobs: Jobs
) -> None:
    assert [result["trials"]["statuses"] for result in results] == [["complete", "complete", "failed"]] * 2
    statuses = read_statuses(Storage.open(folder / "shared"))
    assert statuses == {jobs["whole"].trial_id: "complete", jobs["exploding"].trial_id: "failed"}
