"""Sweeps whose worker or driver is killed, on a local Ray: run with `pytest tests/tuning/test_killed_sweep.py`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dirtune
from benchmarks.kills import Campaign
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.training.trial import TrialJob, read_progress
from dirtune.tuning.interface import View
from tests.tuning.sweeps import DIGITS, metrics, rows, sweep_without_ray, with_epochs

pytestmark = pytest.mark.ray

EPOCHS = 60
"""Long enough for the first trial to be recorded a while before the last one."""


class Killer(View):
    """Kills the worker of the first trial that has ended `epoch` epochs, `times` times."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times, self.killed = Storage.open(folder), times, []
        self.said: list[tuple[str, str]] = []

    def report_worker_loss(self, job: TrialJob, reason: str) -> None:
        self.said.append((job.trial_id, reason))

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        progress = read_progress(self.folder, job.trial_id)
        if epoch < 2 or len(self.killed) == self.times or progress is None:
            return
        if {trial for trial, _ in self.killed} <= {job.trial_id}:
            pid = int(str(progress.trial["worker"]).split("/")[1])
            self.killed.append((job.trial_id, pid))
            os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("ray_session")
def test_a_killed_worker_is_replaced_and_its_trial_resumes(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(**with_epochs(20), seeds=[0])
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    killer = Killer(killed / "tiny", times=1)
    summary = dirtune.sweep(path, data=data_root, results=killed, view=killer)
    ((lost, _),) = killer.killed
    assert killer.said == [(lost, "The actor is dead because its worker process has died")]
    assert (summary.run, dict(summary.crashed), summary.left) == ({"complete": 2}, {}, 0)
    sweep_without_ray(path, data_root, undisturbed)
    pd.testing.assert_frame_equal(metrics(killed), metrics(undisturbed), check_exact=True)


def kill_when(command: list[str], is_time: Callable[[], bool]) -> None:
    """Run a command and kill -9 it as soon as `is_time()`."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not is_time():
        assert child.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline, "the sweep did not get far enough to be killed"
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


@pytest.mark.usefixtures("ray_session")
def test_a_killed_driver_loses_no_record_and_resume_ends_with_equal_tables_bit_for_bit(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(**with_epochs(EPOCHS))
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    command = [sys.executable, "-m", "dirtune.cli", "sweep", path, "--data", str(data_root), "--results", str(killed)]

    def is_half_done() -> bool:
        recorded = list((killed / "tiny/results/trials").glob("*.parquet"))
        started = list((killed / "tiny/trials").glob("*/checkpoint/state.pt"))
        if not (recorded and started):
            return False
        with pytest.raises(InputError, match="is being swept by process"):
            dirtune.resume("tiny", data=data_root, results=killed)
        return True

    kill_when(command, is_half_done)
    before = dirtune.status("tiny", results=killed)
    assert 1 <= before.done < 4
    assert all(0 < trial.epochs_run < EPOCHS for trial in before.started)
    resumed = dirtune.resume("tiny", data=data_root, results=killed)
    assert resumed.reused >= before.done
    assert (dict(resumed.crashed), resumed.left) == ({}, 0)
    assert resumed.reused + resumed.run["complete"] == 4
    sweep_without_ray(path, data_root, undisturbed)
    pd.testing.assert_frame_equal(metrics(killed), metrics(undisturbed), check_exact=True)
    order = "select arm, seed, sample_order_digest, best_epoch, objective from trials order by all"
    pd.testing.assert_frame_equal(rows(order, killed), rows(order, undisturbed), check_exact=True)


@pytest.mark.soak
def test_a_sweep_under_fire_ends_with_the_tables_of_an_undisturbed_one(
    digits: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    base = {**DIGITS["base"], "recipe": {**DIGITS["base"]["recipe"], "epochs": 20}}
    path = Path(study_file(base=base, seeds=[0, 1, 2]))
    campaign = Campaign(path, digits, tmp_path, random.Random(7))
    campaign.run(6)
    assert campaign.differences == []
    assert len(campaign.kills) == 6
    assert {kill.victim for kill in campaign.kills} == {"driver", "worker", "raylet", "server"}
