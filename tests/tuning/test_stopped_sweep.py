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
from ray.util import placement_group_table

import dirtune
from dirtune.errors import InputError
from dirtune.training.trial import TrialJob
from dirtune.tuning.interface import View
from tests.tuning.sweeps import DIGITS, metrics, rows, sweep_without_ray, with_epochs

pytestmark = pytest.mark.ray

TIME_LIMIT_SECONDS = 420.0
"""On two idle cores, no sweep below takes a quarter of it; one that takes all of it hangs."""
EPOCHS = 300
"""More than a worker runs without a report."""
SLOW: dict[str, Any] = {
    **with_epochs(EPOCHS),
    "seeds": [0],
    # Only a stop request makes a checkpoint.
    "resources": {"checkpoint_seconds": 3600},
}


class ActAtSecondEpoch(View):
    """Calls a function once, at the second epoch that is reported; keeps the epochs and the reasons of stops."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.reasons = act, list[str]()
        self.epochs: list[tuple[str, int]] = []

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        self.epochs.append((job.trial_id, epoch))
        if len(self.epochs) == 2:
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


def check_checkpoints(results: Path) -> dict[str, int]:
    """Assert that every started trial has a checkpoint, and return their epochs by trial."""
    trials = dirtune.status("tiny", results=results).started
    assert trials
    for trial in trials:
        assert 1 <= trial.epochs_run < EPOCHS
        assert (results / "tiny/trials" / trial.trial_id / "checkpoint/state.pt").exists()
    assert not (results / "tiny/stop.json").exists()
    assert not (results / "tiny/driver.json").exists()
    return {trial.trial_id: trial.epochs_run for trial in trials}


def assert_continued(view: ActAtSecondEpoch, epochs: dict[str, int]) -> None:
    """Assert that the first epoch of every trial that continued was the one after its checkpoint."""
    first = dict(reversed(view.epochs))
    for trial_id in epochs.keys() & first.keys():
        assert first[trial_id] == epochs[trial_id] + 1


@pytest.mark.usefixtures("ray_session")
def test_a_sweep_stopped_by_command_by_a_signal_and_at_once_is_resumed_without_loss(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path, results = study_file(**SLOW), tmp_path / "results"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    owners: list[str] = []
    view = ActAtSecondEpoch(lambda: owners.append(dirtune.stop("tiny", results=results)))
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.sweep(path, data=data_root, results=results, view=view)
    assert owners[0].startswith(f"process {os.getpid()} on ")
    assert (summary.stopped, view.reasons) == ("`dirtune stop`", ["`dirtune stop`"])
    assert (dict(summary.run), dict(summary.crashed), summary.left) == ({}, {}, 2)
    epochs = check_checkpoints(results)
    with pytest.raises(InputError, match=r"is not being swept, so there is nothing to stop"):
        dirtune.stop("tiny", results=results)

    view = ActAtSecondEpoch(lambda: os.kill(os.getpid(), signal.SIGTERM))
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.resume("tiny", data=data_root, results=results, view=view)
    assert (summary.stopped, view.reasons) == ("SIGTERM", ["SIGTERM"])
    assert (dict(summary.run), dict(summary.crashed), summary.left) == ({}, {}, 2)
    assert_continued(view, epochs)
    epochs = check_checkpoints(results)

    view = ActAtSecondEpoch(lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with time_limit(TIME_LIMIT_SECONDS), pytest.raises(KeyboardInterrupt):
        dirtune.resume("tiny", data=data_root, results=results, view=view)
    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
    assert not (results / "tiny/driver.json").exists()
    assert_continued(view, epochs)

    view = ActAtSecondEpoch(lambda: None)
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.resume("tiny", data=data_root, results=results, view=view)
    assert (summary.stopped, summary.left) == (None, 0)
    assert (dict(summary.run), dict(summary.crashed)) == ({"complete": 2}, {})
    # Nobody asked for a checkpoint before the second interrupt.
    assert_continued(view, epochs)
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    sweep_without_ray(path, data_root, tmp_path / "undisturbed")
    pd.testing.assert_frame_equal(metrics(results), metrics(tmp_path / "undisturbed"), check_exact=True)


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_an_interrupt_stops_the_sweep_after_the_epoch(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    view = ActAtSecondEpoch(lambda: os.kill(os.getpid(), signal.SIGINT))
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.sweep(study_file(**SLOW), data=data_root, results=tmp_path, view=view)
    assert (summary.stopped, view.reasons, summary.left) == ("SIGINT", ["SIGINT"], 2)
    check_checkpoints(tmp_path)


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_a_group_that_is_interrupted_stops_and_resumes(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    resources = {"workers": 2, "checkpoint_seconds": 3600}
    path = study_file(**{**SLOW, "resources": resources})
    view = ActAtSecondEpoch(lambda: os.kill(os.getpid(), signal.SIGINT))
    with time_limit(TIME_LIMIT_SECONDS):
        summary = dirtune.sweep(path, data=data_root, results=tmp_path, view=view)
    assert (summary.stopped, dict(summary.crashed), summary.left) == ("SIGINT", {}, 2)
    assert_one_checkpoint(tmp_path)
    with time_limit(TIME_LIMIT_SECONDS):
        resumed = dirtune.resume("tiny", data=data_root, results=tmp_path)
    assert (dict(resumed.run), resumed.left) == ({"complete": 2}, 0)


def assert_one_checkpoint(results: Path) -> None:
    (folder,) = [path for path in results.iterdir() if path.is_dir()]
    (trial,) = dirtune.status("tiny", results=results).started
    assert (folder / "trials" / trial.trial_id / "checkpoint/state.pt").exists()


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_a_second_interrupt_ends_a_group_at_once_and_resume_completes_the_sweep(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(**{**SLOW, "resources": {"workers": 2, "checkpoint_seconds": 0}})
    view = ActAtSecondEpoch(lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with time_limit(TIME_LIMIT_SECONDS), pytest.raises(KeyboardInterrupt):
        dirtune.sweep(path, data=data_root, results=tmp_path, view=view)
    assert not (tmp_path / "tiny/driver.json").exists()
    with time_limit(TIME_LIMIT_SECONDS):
        resumed = dirtune.resume("tiny", data=data_root, results=tmp_path)
    assert (dict(resumed.run), dict(resumed.crashed), resumed.left) == ({"complete": 2}, {}, 0)
    assert rows("select status, epochs_run from trials", tmp_path).values.tolist() == [["complete", EPOCHS]] * 2


@pytest.mark.soak
@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGINT), (2, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_signal_to_the_process_group_stops_without_loss(
    digits: Path, tmp_path: Path, study_file: Callable[..., str], workers: int, number: signal.Signals
) -> None:
    resources = {"workers": workers, "checkpoint_seconds": 3600}
    path = study_file(
        **{
            **SLOW,
            "base": {**DIGITS["base"], "recipe": {**DIGITS["base"]["recipe"], "epochs": 8}},
            "resources": resources,
        }
    )
    command = [sys.executable, "-m", "dirtune.cli", "sweep", path, "--data", str(digits), "--results", str(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    killer = threading.Timer(TIME_LIMIT_SECONDS, lambda: os.killpg(driver.pid, signal.SIGKILL))
    killer.start()
    while driver.poll() is None and not list((tmp_path / "tiny/trials").glob("*/progress.json")):
        time.sleep(0.1)
    # As a terminal (SIGINT) and `timeout` (SIGTERM) do
    os.killpg(driver.pid, number)
    output, _ = driver.communicate()
    killer.cancel()
    assert driver.returncode == 128 + number, "killed because it hangs" if driver.returncode < 0 else output
    assert f"Stopped by {number.name} when every running trial had finished its epoch." in output
    assert "left, `dirtune resume " in output
    started = dirtune.status("tiny", results=tmp_path).started
    assert started
    for trial in started:
        assert (tmp_path / "tiny/trials" / trial.trial_id / "checkpoint/state.pt").exists()
