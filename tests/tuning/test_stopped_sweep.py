"""Sweeps that are stopped, on a local Ray: run with `pytest tests/tuning/test_stopped_sweep.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.training.trial import TrialJob
from dirtune.tuning.interface import View
from tests.tuning.sweeps import STUDY, metrics, rows

pytestmark = pytest.mark.ray

TIME_LIMIT_SECONDS = 420.0
"""On two idle cores, no sweep below takes a quarter of it; one that takes all of it hangs."""
SLOW: dict[str, Any] = {
    "base": {**STUDY["base"], "recipe": {**STUDY["base"]["recipe"], "epochs": 8}},
    "seeds": [0],
    # Only a stop request makes a checkpoint.
    "resources": {"checkpoint_seconds": 3600},
}


class ActAtSecondEpoch(View):
    """Calls a function once, when a trial has ended its second epoch; keeps the reason of the stop."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.acted, self.reasons = act, False, list[str]()

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        if epoch == 2 and not self.acted:
            self.acted = True
            self.act()

    def report_stop(self, reason: str) -> None:
        self.reasons.append(reason)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` if the block takes longer, wherever it waits."""

    def raise_timeout(*_: object) -> None:
        raise TimeoutError(f"hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def sweep_undisturbed(digits: Path, tmp_path: Path, study_file: Callable[..., str]) -> Callable[..., pd.DataFrame]:
    """Sweeps a study named `tiny` without interruption and returns its metrics."""

    def run(**changes: Any) -> pd.DataFrame:
        dirtune.sweep(study_file(**changes), data=digits, results=tmp_path / "undisturbed")
        return metrics(tmp_path / "undisturbed")

    return run


def assert_checkpoints(results: Path, started: int) -> None:
    """Assert that every started trial has a checkpoint of its last epoch."""
    (folder,) = [path for path in results.iterdir() if path.is_dir()]
    trials = dirtune.status(folder.name, results=results).started
    assert len(trials) == started
    for trial in trials:
        assert 1 <= trial.epochs_run < 8
        assert (folder / "trials" / trial.trial_id / "checkpoint/state.pt").exists()
    assert not (folder / "stop.json").exists()
    assert not (folder / "driver.json").exists()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_a_signal_stops_the_sweep_after_the_epoch_and_resume_continues_without_loss(
    digits: Path,
    tmp_path: Path,
    study_file: Callable[..., str],
    sweep_undisturbed: Callable[..., pd.DataFrame],
    number: signal.Signals,
) -> None:
    path, results, handler = study_file(**SLOW), tmp_path / "results", signal.getsignal(number)
    view = ActAtSecondEpoch(lambda: os.kill(os.getpid(), number))
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.sweep(path, data=digits, results=results, view=view)
    assert signal.getsignal(number) is handler
    assert (summary.stopped, view.reasons) == (number.name, [number.name])
    assert (dict(summary.run), dict(summary.crashed), summary.left) == ({}, {}, 2)
    started = len(dirtune.status("tiny", results=results).started)
    assert started >= 1
    assert_checkpoints(results, started)
    epochs = {trial.trial_id: trial.epochs_run for trial in dirtune.status("tiny", results=results).started}

    seen: list[tuple[str, int]] = []
    again = ActAtSecondEpoch(lambda: None)
    again.report_epoch = lambda job, epoch, _: seen.append((job.trial_id, epoch))  # type: ignore[method-assign]
    resumed = dirtune.resume("tiny", data=digits, results=results, view=again)
    assert (resumed.stopped, resumed.left, dict(resumed.run)) == (None, 0, {"complete": 2})
    # The first epoch after resuming is the next one
    for trial_id, done in epochs.items():
        assert min(epoch for each, epoch in seen if each == trial_id) == done + 1
    pd.testing.assert_frame_equal(metrics(results), sweep_undisturbed(**SLOW), check_exact=True)


def test_a_stop_from_another_process_stops_the_sweep_and_not_the_next_one(
    digits: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    owners: list[str] = []
    view = ActAtSecondEpoch(lambda: owners.append(dirtune.stop("tiny", results=tmp_path / "results")))
    path, results = study_file(**SLOW), tmp_path / "results"
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.sweep(path, data=digits, results=results, view=view)
    assert owners[0].startswith(f"process {os.getpid()} on ")
    assert (summary.stopped, view.reasons) == ("`dirtune stop`", ["`dirtune stop`"])
    assert (dict(summary.run), summary.left) == ({}, 2)
    assert_checkpoints(results, len(dirtune.status("tiny", results=results).started))
    with pytest.raises(InputError, match=r"is not being swept, so there is nothing to stop"):
        dirtune.stop("tiny", results=results)
    assert dirtune.resume("tiny", data=digits, results=results).run == {"complete": 2}


@pytest.mark.soak
def test_a_group_that_is_interrupted_stops_and_resumes(
    digits: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    resources = {"workers": 2, "checkpoint_seconds": 3600}
    path = study_file(**{**SLOW, "resources": resources})
    view = ActAtSecondEpoch(lambda: os.kill(os.getpid(), signal.SIGINT))
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.sweep(path, data=digits, results=tmp_path, view=view)
    assert (summary.stopped, dict(summary.crashed), summary.left) == ("SIGINT", {}, 2)
    assert_one_checkpoint(tmp_path)
    with time_limit(TIME_LIMIT_SECONDS):
        resumed = dirtune.resume("tiny", data=digits, results=tmp_path)
    assert (dict(resumed.run), resumed.left) == ({"complete": 2}, 0)


def assert_one_checkpoint(results: Path) -> None:
    (folder,) = [path for path in results.iterdir() if path.is_dir()]
    (trial,) = dirtune.status("tiny", results=results).started
    assert (folder / "trials" / trial.trial_id / "checkpoint/state.pt").exists()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_second_interrupt_ends_at_once_and_resume_completes_the_sweep(
    digits: Path, tmp_path: Path, study_file: Callable[..., str], workers: int
) -> None:
    def press_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    resources = {"workers": workers, "checkpoint_seconds": 0}
    path, handler = study_file(**{**SLOW, "resources": resources}), signal.getsignal(signal.SIGINT)
    with time_limit(TIME_LIMIT_SECONDS), pytest.raises(KeyboardInterrupt):
        dirtune.sweep(path, data=digits, results=tmp_path, view=ActAtSecondEpoch(press_twice))
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "tiny/driver.json").exists()
    with time_limit(TIME_LIMIT_SECONDS):
        resumed = dirtune.resume("tiny", data=digits, results=tmp_path)
    assert (dict(resumed.run), dict(resumed.crashed), resumed.left) == ({"complete": 2}, {}, 0)
    assert rows("select status, epochs_run from trials", tmp_path).values.tolist() == [["complete", 8]] * 2


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_a_terminal_reaches_all_processes_and_still_stops_without_loss(
    digits: Path, tmp_path: Path, study_file: Callable[..., str], workers: int
) -> None:
    resources = {"workers": workers, "checkpoint_seconds": 3600}
    path = study_file(**{**SLOW, "resources": resources})
    command = [sys.executable, "-m", "dirtune.cli", "sweep", path, "--data", str(digits), "--results", str(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    killer = threading.Timer(TIME_LIMIT_SECONDS, lambda: os.killpg(driver.pid, signal.SIGKILL))
    killer.start()
    while driver.poll() is None and not list((tmp_path / "tiny/trials").glob("*/progress.json")):
        time.sleep(0.1)
    # As a terminal does, to the group
    os.killpg(driver.pid, signal.SIGINT)
    output, _ = driver.communicate()
    killer.cancel()
    assert driver.returncode == 130, "killed because it hangs" if driver.returncode < 0 else output
    assert "Stopped by SIGINT when every running trial had finished its epoch." in output
    assert "trials are left, `dirtune resume` continues them" in output
    started = dirtune.status("tiny", results=tmp_path).started
    assert started
    for trial in started:
        assert (tmp_path / "tiny/trials" / trial.trial_id / "checkpoint/state.pt").exists()
