"""Trials that fail, and are run again, on a local Ray: run with `pytest tests/tuning/test_failed_sweep.py`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dirtune
from dirtune.io.storage import Storage
from dirtune.training.checkpoint import save_checkpoint
from dirtune.training.trial import TrialJob, read_progress
from dirtune.tuning.execution.tune_run import WORKER_RESTARTS
from dirtune.tuning.interface import SweepSummary, View
from tests.tuning.sweeps import DIGITS, ONE_WORKER, STUDY, load_search, metrics, open_folder, rows, with_epochs

pytestmark = pytest.mark.ray

BETA = {"terms.conr.beta": {"distribution": "loguniform", "low": 1e-2, "high": 1e2}}


class Killer(View):
    """Kills the worker of one arm's trials after every epoch, a number of times."""

    def __init__(self, folder: Path, arm: str, times: int) -> None:
        self.folder, self.arm, self.times = Storage.open(folder), arm, times

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        progress = read_progress(self.folder, job.trial_id)
        if job.arm != self.arm or progress is None or not self.times:
            return
        self.times -= 1
        os.kill(int(str(progress.trial["worker"]).split("/")[1]), signal.SIGKILL)


class RankKiller(View):
    """Kills one rank of the group that trains the arm `conr`, once, in the third epoch of its trial."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = Storage.open(folder), rank
        self.epochs: list[tuple[str, int]] = []
        self.groups: list[frozenset[int]] = []

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        self.epochs.append((job.arm, epoch))
        progress = read_progress(self.folder, job.trial_id)
        if job.arm == "conr" and progress is not None:
            first = int(str(progress.trial["worker"]).split("/")[1])
            ranks = [first, *list_similar_processes(first)]
            self.groups.append(frozenset(ranks))
            if epoch == 2 and len(set(self.groups)) == 1:
                assert len(ranks) == 2
                threading.Timer(0.1, os.kill, (ranks[self.rank], signal.SIGKILL)).start()


def list_similar_processes(pid: int) -> list[int]:
    """Return the other children of the same raylet to which Ray gives the same title."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    children = Path(f"/proc/{parent}/task").glob("*/children")
    siblings = {int(each) for file in children for each in file.read_text().split()} - {pid}
    title = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [each for each in siblings if Path(f"/proc/{each}/cmdline").read_bytes() == title]


def read_failures(results: Path) -> list[list[Any]]:
    sql = "select arm, seed, error_class, epochs_run from trials where status = 'failed' order by all"
    return rows(sql, results).values.tolist()  # type: ignore[no-any-return]


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_a_trial_that_loses_its_worker_too_often_fails_and_resume_continues_it(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(
        **with_epochs(12),
        seeds=[0],
        space=BETA,
        search={"trials": 1},
        resources=ONE_WORKER,
    )
    killer = Killer(tmp_path / "tiny", "conr", WORKER_RESTARTS + 1)
    summary = dirtune.sweep(path, data=data_root, results=tmp_path, view=killer)
    assert dict(summary.run) == {"complete": 1, "failed": 1}
    assert summary.left == 1
    ((trial_id, why),) = summary.crashed.items()
    assert "died" in why
    ((arm, _, found, epochs),) = read_failures(tmp_path)
    assert (arm, found) == ("conr", "infrastructure")
    assert 1 <= epochs < 12
    assert dirtune.status("tiny", results=tmp_path).failures == {"infrastructure": 1}

    seen: list[int] = []
    view = View()
    view.report_epoch = lambda job, epoch, _: seen.append(epoch)  # type: ignore[method-assign]
    resumed = dirtune.resume("tiny", data=data_root, results=tmp_path, view=view)
    assert (resumed.reused, dict(resumed.run), resumed.left) == (1, {"complete": 1}, 0)
    # The last worker may have been killed while the checkpoint of its last epoch was being written.
    assert seen == list(range(min(seen), 13))
    assert min(seen) <= epochs + 1
    (row,) = rows("select * from trials where arm = 'conr'", tmp_path).to_dict("records")
    assert (row["trial_id"], row["status"], row["epochs_run"]) == (trial_id, "complete", 12)
    assert pd.isna(row["error_class"])
    told = load_search(tmp_path / "tiny", "conr")
    assert [trial.state.name for trial in told.trials] == ["FAIL", "COMPLETE"]
    assert told.trials[0].params == told.trials[1].params


@pytest.mark.soak
@pytest.mark.parametrize("rank", [1, 0])
def test_a_group_that_loses_a_rank_resumes_from_the_checkpoint_and_nothing_else_changes(
    digits: Path, tmp_path: Path, study_file: Callable[..., str], rank: int
) -> None:
    base = {**DIGITS["base"], "recipe": {**DIGITS["base"]["recipe"], "epochs": 5}}
    resources = {"workers": 2, "checkpoint_seconds": 0}
    path = study_file(base=base, seeds=[0], resources=resources)
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    view = RankKiller(killed / "tiny", rank)
    summary = dirtune.sweep(path, data=digits, results=killed, view=view)
    assert (dict(summary.run), dict(summary.crashed), summary.left) == ({"complete": 2}, {}, 0)
    # The second group has other processes
    before, after = dict.fromkeys(view.groups)
    assert not before & after
    assert [epoch for arm, epoch in view.epochs if arm == "vanilla"] == [1, 2, 3, 4, 5]
    goes_on = [epoch for arm, epoch in view.epochs if arm == "conr"]
    # The checkpoint of the second epoch, or of the third, of which nobody has told, was written before the rank died or not.
    assert goes_on in ([1, 2, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 4, 5])
    dirtune.sweep(path, data=digits, results=undisturbed)
    pd.testing.assert_frame_equal(metrics(killed), metrics(undisturbed), check_exact=True)
    sql = "select arm, epoch, name, value from epochs join trials using (trial_id) order by all"
    pd.testing.assert_frame_equal(rows(sql, killed), rows(sql, undisturbed), check_exact=True)


@pytest.mark.usefixtures("ray_session")
def test_failures_are_recorded_with_their_class_and_retried_only_on_request(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    arms = {**STUDY["arms"], "wild": {"recipe": {"learning_rate": 1e30}}}
    path = study_file(arms=arms, seeds=[0], resources=ONE_WORKER)
    # No trial can go on from this checkpoint.
    state = break_checkpoint(path, "conr", data_root, tmp_path)
    summary = dirtune.sweep(path, data=data_root, results=tmp_path)
    assert (dict(summary.run), summary.left) == ({"complete": 1, "failed": 2}, 0)
    assert read_failures(tmp_path) == [["conr", 0, "code", 0], ["wild", 0, "nan", 0]]
    assert_broken_checkpoint_is_reported(summary, state)
    row = rows("select * from trials where arm = 'wild'", tmp_path).iloc[0]
    assert (row["error_term"], row["error_epoch"]) == ("regression", 1)
    assert "'regression' is not finite at epoch 1, step" in row["error"]

    def resume(*retry: str) -> tuple[int, dict[str, int]]:
        done = dirtune.resume("tiny", data=data_root, results=tmp_path, retry=retry)
        assert done.left == 0
        return done.reused, dict(done.run)

    assert resume() == (3, {})
    assert resume("out_of_memory") == (3, {})
    assert resume("nan", "code") == (1, {"complete": 1, "failed": 1})
    assert read_failures(tmp_path) == [["wild", 0, "nan", 0]]
    again = rows("select finished_at from trials where arm = 'wild'", tmp_path).iloc[0, 0]
    assert again > row["finished_at"]


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_an_exception_in_a_group_is_an_error_of_the_code(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(seeds=[0], resources={"workers": 2, "checkpoint_seconds": 0})
    state = break_checkpoint(path, "conr", data_root, tmp_path)
    summary = dirtune.sweep(path, data=data_root, results=tmp_path)
    assert (dict(summary.run), summary.left) == ({"complete": 1, "failed": 1}, 0)
    assert read_failures(tmp_path) == [["conr", 0, "code", 0]]
    assert_broken_checkpoint_is_reported(summary, state)
    again = dirtune.resume("tiny", data=data_root, results=tmp_path, retry=["code"])
    assert (again.reused, dict(again.run)) == (1, {"complete": 1})


def break_checkpoint(path: str, arm: str, data: Path, results: Path) -> Path:
    """Write a checkpoint that no trial can go on from for an arm's trial of seed 0, and return its file."""
    folder = open_folder(path, data, results)
    broken = next(each for each in folder.study.arms if each.name == arm)
    trial_id = broken.with_seed(0).compute_trial_id(folder.manifest.fingerprint)
    state = results / "tiny/trials" / trial_id / "checkpoint/state.pt"
    save_checkpoint(Storage.open(state.parents[1]), {"of": "another program"})
    return state


def assert_broken_checkpoint_is_reported(summary: SweepSummary, state: Path) -> None:
    """Assert that the summary has the error of `break_checkpoint`, tried once, and its traceback."""
    # One try: another worker would run the same code.
    (text,) = [text for each in summary.tracebacks if "KeyError" in (text := Path(each).read_text())]
    assert "started_at" in text
    trial_id = state.parts[-3]
    assert summary.crashed[trial_id].startswith("KeyError")
    assert not state.exists()
