"""Run with `pytest tests/training/test_trial_resumed.py`: trials that are interrupted or killed end as if they were not."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dirtune.data.cache import ResidentData
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_statuses
from dirtune.training import trial as trial_module
from dirtune.training.checkpoint import CHECKPOINT, load_checkpoint
from dirtune.training.trial import TrialRun, remove_temporary_files
from dirtune.tuning.execution.failures import get_error_class
from tests.training.runs import TERMS, Configure, files, finish, job_of, lasting, tables

RESUMED: dict[str, dict[str, Any]] = {
    "adam, dropout, cosine": {
        "terms": TERMS,
        "model": {"encoder": {"dropout": 0.3}, "projection_dim": 4},
        "recipe": {"epochs": 4, "schedule": {"name": "cosine"}, "weight_decay": 0.01},
    },
    "sgd, momentum, steps, views": {
        "model": {"encoder": {"name": "cnn", "channels": 2}},
        "recipe": {
            "epochs": 4,
            "optimizer": "sgd",
            "momentum": 0.9,
            "batch_size": 50,
            "schedule": {"name": "steps", "milestones": [2], "factor_per_step": 0.1},
            "views": {"count": 2, "augmentation": "shift"},
            "gradient_clip": 1.0,
        },
    },
    "adamw, worse after the first epoch": {
        "recipe": {"epochs": 4, "optimizer": "adamw", "learning_rate": 0.3},
        "objective": {"metric": "r2", "region": "few"},
        "reweighting": {"scheme": "inverse"},
    },
    "learned noise and temperatures": {
        "recipe": {"epochs": 4},
        "loss": {"name": "gai", "components": 2},
        "terms": {"accon": {"temperature": "individual"}, "supcon": {"temperature": "learnable"}},
    },
    "smoothed features": {
        "recipe": {"epochs": 4},
        "model": {"encoder": {"dropout": 0.3}, "projection_dim": 4},
        "reweighting": {"scheme": "sqrt_inverse", "fds": {"size": 3}},
    },
    "two stages": {
        "terms": TERMS,
        "model": {"encoder": {"dropout": 0.3}, "projection_dim": 4},
        "recipe": {"epochs": 2},
        "scheme": {"name": "two_stage", "epochs": 2},
    },
    "regressor re-training": {
        "recipe": {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.3, "gradient_clip": 1.0},
        "scheme": {"name": "rrt", "epochs": 2, "learning_rate": 0.01},
        "reweighting": {"scheme": "inverse", "fds": {"size": 3, "start_smooth": 0}},
    },
    "a second stage with a recipe of its own": {
        "terms": TERMS,
        "model": {"encoder": {"dropout": 0.3}, "projection_dim": 4},
        "recipe": {"epochs": 2, "views": {"count": 3, "regression": "first", "passes": "apart"}},
        "scheme": {
            "name": "two_stage",
            "epochs": 3,
            "optimizer": "adamw",
            "learning_rate": 0.01,
            "schedule": {"name": "cosine", "floor": 0.1, "position": "end"},
            "batch_size": 30,
            "views": {"count": 2},
            "loss": {"name": "gai", "components": 2},
            "reweighting": {"scheme": "inverse"},
        },
    },
    "bf16, micro-batches, clipping": {
        "terms": TERMS,
        "model": {"encoder": {"dropout": 0.3}, "projection_dim": 4},
        "recipe": {"epochs": 4, "precision": "bf16", "batch_size": 60, "accumulation": 4, "gradient_clip": 1.0},
    },
    "fp16, a loss that is scaled": {
        "terms": TERMS,
        "model": {"projection_dim": 4},
        "recipe": {"epochs": 2, "precision": "fp16", "gradient_clip": 1.0},
        "scheme": {"name": "rrt", "epochs": 2, "learning_rate": 0.01},
    },
    "a head whose loss has a state, and a new one in a second stage": {
        "model": {"encoder": {"dropout": 0.3}},
        "loss": {"name": "evidential", "regularization": "adaptive"},
        "recipe": {"epochs": 2, "precision": "bf16"},
        "scheme": {"name": "rrt", "epochs": 2, "learning_rate": 0.01},
    },
    "images pixel by pixel": {
        "model": {"encoder": {"name": "cnn", "channels": 4}},
        "recipe": {
            "epochs": 4,
            "channels_last": True,
            "gradient_clip": 1.0,
            "views": {"count": 2, "augmentation": "shift"},
        },
    },
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_trial_interrupted_after_any_epochs_or_steps_ends_bitwise_as_an_uninterrupted_one(
    configuration: Configure, toy: ResidentData, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(configuration(**RESUMED[name]), toy)
    whole = finish(TrialRun(job, toy, Storage.open(tmp_path / "whole")))
    expected = lasting(tables(whole.study))
    for number, ends in enumerate([(1,), (2,), (3,), (1, 2, 3)]):
        study, done = Storage.open(tmp_path / f"parts_{number}"), 0
        for end in ends:
            trial = TrialRun(job, toy, study)
            assert trial.training.epoch == done
            while trial.training.epoch < end:
                trial.step()
            trial.wait_for_checkpoint()
            done = end
        # A new process starts from another state
        torch.manual_seed(number)
        check_equal(finish(TrialRun(job, toy, study)), whole)
        assert lasting(tables(study)) == expected
    monkeypatch.setattr(trial_module, "STOP_CHECK_SECONDS", 0.0)
    study, pauses, steps = Storage.open(tmp_path / "steps"), 0, count(1)
    while True:
        trial = TrialRun(job, toy, study, is_stop_requested=lambda: next(steps) % 4 == 0)
        trial.step()
        if trial.status is not None:
            break
        pauses += trial.training.unfinished is not None
        trial.write_checkpoint()
        torch.manual_seed(pauses)
    check_equal(trial, whole)
    assert lasting(tables(study)) == expected
    assert pauses > 1


def check_equal(found: TrialRun, expected: TrialRun) -> None:
    state, wanted = found.training.get_state(), expected.training.get_state()
    # An undefined metric equals itself
    np.testing.assert_equal(state["history"], wanted["history"])
    for part in ("model", "loss", "best_weights", "optimizer", "scaler"):
        torch.testing.assert_close(state[part], wanted[part], rtol=0, atol=0)
    assert state["unfinished"] is None


def test_a_long_epoch_is_left_for_checkpoints(
    configuration: Configure, toy: ResidentData, study: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(trial_module, "CHECKPOINT_COSTS", 0.0)
    trial, written = TrialRun(job_of(configuration(), toy), toy, study, checkpoint_seconds=1e-9), []
    monkeypatch.setattr(
        trial_module.checkpoint.Checkpoints,
        "begin",
        lambda checkpoints, state: written.append(state["training"]["unfinished"]),
    )
    trial.step()
    steps = trial.training.passes.steps_per_epoch
    # The checkpoint at the end of the epoch is the usual one.
    assert [each and each["means"]["steps"] for each in written] == [*range(1, steps), None]


def test_a_trial_resumes_from_a_requested_checkpoint_independently_of_the_last_one(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job = job_of(configuration(), toy)
    trial = TrialRun(job, toy, study, checkpoint_seconds=3600.0)
    trial.step()
    trial.step()
    assert TrialRun(job, toy, study).training.epoch == 0
    trial.write_checkpoint()
    assert TrialRun(job, toy, study).training.epoch == 2


class DyingBeforeTheRecord(Storage):
    """The process dies when all but the committing file of the record is written."""

    def write(self, name: str, content: bytes) -> None:
        if name.startswith("results/trials/"):
            raise OSError("the process died here")
        super().write(name, content)


def test_a_trial_killed_after_its_record_is_recorded(
    configuration: Configure,
    toy: ResidentData,
    study: Storage,
    tmp_path: Path,
    dying_after_the_record: Callable[[Path], Storage],
) -> None:
    job = job_of(configuration(), toy)
    with pytest.raises(OSError, match="died here"):
        finish(TrialRun(job, toy, dying_after_the_record(Path(study.root))))
    assert read_statuses(study) == {job.trial_id: "complete"}
    whole = finish(TrialRun(job, toy, Storage.open(tmp_path / "whole")))
    assert lasting(tables(study)) == lasting(tables(whole.study))


def test_a_trial_killed_within_its_record_is_not_recorded_and_continues_to_the_same_record(
    configuration: Configure, toy: ResidentData, study: Storage, tmp_path: Path
) -> None:
    job = job_of(configuration(), toy)
    with pytest.raises(OSError, match="died here"):
        finish(TrialRun(job, toy, DyingBeforeTheRecord(study.filesystem, study.root)))
    assert study.exists(f"results/predictions/{job.trial_id}.parquet")
    assert read_statuses(study) == {}
    assert all(rows == [] for rows in tables(study).values())

    # The trial has waited for its thread before it was recorded.
    again = TrialRun(job, toy, study)
    assert again.training.epoch == 2
    finish(again)
    whole = finish(TrialRun(job, toy, Storage.open(tmp_path / "whole")))
    assert lasting(tables(study)) == lasting(tables(whole.study))
    assert files(Path(study.path(f"trials/{job.trial_id}"))) == ["config.json"]


class Slow(Storage):
    """Checkpoints take long to write, or fail."""

    def __init__(self, study: Storage, *, error: OSError | None = None) -> None:
        super().__init__(study.filesystem, study.root)
        self.__dict__["error"] = error

    def get_folder(self, name: str) -> Storage:
        return Slow(Storage(self.filesystem, self.path(name)), error=self.__dict__["error"])

    def write(self, name: str, content: bytes) -> None:
        if name == CHECKPOINT:
            time.sleep(0.3)
            if self.__dict__["error"] is not None:
                raise self.__dict__["error"]
        super().write(name, content)


def test_a_trial_trains_while_its_checkpoint_is_written_and_waits_for_it_before_it_is_recorded(
    configuration: Configure, toy: ResidentData, study: Storage, tmp_path: Path
) -> None:
    job = job_of(configuration(), toy)
    trial = TrialRun(job, toy, Slow(study))
    trial.step()
    assert trial.training.epoch == 1
    assert not Path(study.path(f"trials/{job.trial_id}/{CHECKPOINT}")).exists()
    finish(trial)
    assert files(Path(study.path(f"trials/{job.trial_id}"))) == ["config.json"]
    whole = finish(TrialRun(job, toy, Storage.open(tmp_path / "whole")))
    assert lasting(tables(study)) == lasting(tables(whole.study))


def test_no_checkpoint_begins_while_one_is_written_unless_asked_for_after_every_epoch(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    trial = TrialRun(job_of(configuration(recipe={"epochs": 3}), toy), toy, Slow(study), checkpoint_seconds=1e-9)
    trial.step()
    trial.begin_checkpoint()
    assert not trial._is_checkpoint_due()
    trial.wait_for_checkpoint()
    # Ten times what the last one took to write
    assert not trial._is_checkpoint_due()
    assert TrialRun(trial.job, toy, Slow(study))._is_checkpoint_due()


def test_an_error_of_the_thread_that_writes_checkpoints_is_raised_in_the_trial(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    trial = TrialRun(job_of(configuration(), toy), toy, Slow(study, error=full))
    trial.step()
    with pytest.raises(OSError, match="No space left") as raised:
        finish(trial)
    assert get_error_class(raised.value) == "infrastructure"
    assert (trial.status, read_statuses(study)) == (None, {})


def test_a_trial_that_fails_leaves_no_thread_that_writes(
    configuration: Configure, toy: ResidentData, study: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(configuration(), toy)
    trial = TrialRun(job, toy, Slow(study))
    trial.step()

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(trial_module.loop.evaluation, "evaluate", fail)
    with pytest.raises(ZeroDivisionError):
        trial.step()
    # As the driver does
    remove_temporary_files(study, job.trial_id)
    time.sleep(0.5)
    assert files(Path(study.path(f"trials/{job.trial_id}"))) == ["config.json"]


@pytest.mark.soak
def test_a_trial_that_is_killed_again_and_again_keeps_a_checkpoint_and_ends_as_an_undisturbed_one(
    configuration: Configure, toy: ResidentData, study: Storage, tmp_path: Path
) -> None:
    recipe = {"epochs": 60, "schedule": {"name": "cosine"}}
    job, drawn = job_of(configuration(recipe=recipe), toy), random.Random(0)
    folder, last, kills, found = Storage.open(study.path(f"trials/{job.trial_id}")), 0, 0, {0}
    path, written, file = Path(folder.path(CHECKPOINT)), 0, None
    while True:
        child = os.fork()
        if not child:
            code = 1
            try:
                finish(TrialRun(job, toy, study))
                code = 0
            finally:
                os._exit(code)
        # After some more checkpoints, at any moment of the next one
        wanted = written + drawn.randint(1, 4)
        while written < wanted and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.001)
            before, file = file, path.stat().st_ino if path.exists() else None
            written += file != before
        time.sleep(drawn.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] == 0:
            break
        kills += 1
        if read_statuses(study):
            break
        state = load_checkpoint(folder)
        # Once there is one, there always is one, and never an older one.
        epoch = len(state["training"]["history"]) if state is not None else 0
        assert epoch >= last, (epoch, last)
        last = epoch
        found.add(epoch)
    assert kills > 5
    assert len(found) > 3
    whole = finish(TrialRun(job, toy, Storage.open(tmp_path / "whole")))
    assert lasting(tables(study)) == lasting(tables(whole.study))
