"""Storage that cannot be written any more: run with `pytest tests/tuning/execution/test_storage_failure.py`; on a local Ray."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dirtune
from dirtune.cli import main
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.study.resolve import load_study
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution import driver
from dirtune.tuning.execution.storage_failure import capture_storage_errors, raise_storage_failure
from dirtune.tuning.interface import View
from tests.tuning.sweeps import DIGITS, ONE_WORKER, metrics, with_epochs


class Recorder:
    """Calls functions and captures storage errors."""

    storage_failure: Exception | None = None

    @capture_storage_errors
    def call(self, function: Callable[[], int]) -> int:
        return function()


def test_the_first_storage_error_is_captured_and_no_other_error_is() -> None:
    recorder, first = Recorder(), OSError(28, "No space left on device")

    def fail(error: Exception) -> int:
        raise error

    assert (recorder.call(lambda: 3), recorder.storage_failure) == (3, None)
    for error in (first, OSError(5, "Input/output error")):
        assert recorder.call(lambda error=error: fail(error)) is None
        assert recorder.storage_failure is first
    with pytest.raises(KeyError):
        recorder.call(lambda: fail(KeyError()))


def test_the_error_names_the_folder_and_the_reason_of_the_system(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    raise_storage_failure(folder, None)
    with pytest.raises(InputError) as caught:
        raise_storage_failure(folder, OSError(28, "No space left on device", "file"))
    assert str(caught.value) == (
        f"{tmp_path}: cannot be written or read (No space left on device), so the sweep has ended; "
        "all records are complete, and `dirtune resume` runs the rest"
    )
    assert caught.value.__cause__ is None


def fill(disk: Path) -> None:
    """Leave no byte of a file system."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


def fill_after_a_record(disk: Path) -> None:
    """Fill a disk as soon as a trial is recorded there."""
    deadline = time.monotonic() + 120
    while not list(disk.glob("tiny/results/trials/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    fill(disk)


@pytest.mark.soak
@pytest.mark.ray
def test_a_full_disk_ends_the_sweep_in_one_sentence_and_resume_completes_it(
    digits: Path,
    small_disk: Path,
    tmp_path: Path,
    study_file: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = study_file(base=DIGITS["base"])
    monkeypatch.setattr(driver, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(sys, "argv", ["dirtune", "sweep", path, "--data", str(digits), "--results", str(small_disk)])
    filling = threading.Thread(target=fill_after_a_record, args=(small_disk,))
    filling.start()
    with pytest.raises(SystemExit) as ended:
        main()
    filling.join()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"dirtune: {small_disk}/tiny: cannot be written or read (No space left on device), so the "
        "sweep has ended; all records are complete, and `dirtune resume` runs the rest\n"
    )
    recorded = dirtune.status("tiny", results=small_disk).done
    assert 1 <= recorded < 4
    (small_disk / "filler").unlink()
    resumed = dirtune.resume("tiny", data=digits, results=small_disk)
    assert (resumed.reused, dict(resumed.run)) == (recorded, {"complete": 4 - recorded})
    assert (dict(resumed.crashed), resumed.left) == ({}, 0)
    for arm in load_study(path).arms:
        for seed in (0, 1):
            dirtune.train(arm.with_seed(seed), data=digits, results=tmp_path, arm=arm.name)
    swept, single = metrics(small_disk), metrics(tmp_path, "train")
    pd.testing.assert_frame_equal(swept, single, check_exact=True)


class FullWhereOnlyTheDriverWrites(View):
    """Storage error in the driver alone, at the second epoch that is reported."""

    def __init__(self) -> None:
        self.epochs = 0

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        self.epochs += 1
        if self.epochs == 2:
            raise OSError(errno.ENOSPC, "No space left on device")


class OutOfReach(View):
    """Moves the results away for a while after the first epoch, like a share that is not mounted; counts epochs."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.away = folder, folder.with_name("away")
        self.epochs: list[tuple[str, int]] = []
        self.timer = threading.Timer(seconds, self._bring_back)

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        if not self.epochs:
            self.folder.rename(self.away)
            self.folder.write_bytes(b"no folder")
            self.timer.start()
        self.epochs.append((job.arm, epoch))

    def _bring_back(self) -> None:
        self.folder.unlink()
        self.away.rename(self.folder)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_storage_failure_of_the_driver_leaves_running_trials_to_be_resumed_and_a_short_outage_costs_nothing(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path, results = study_file(**with_epochs(30), seeds=[0], resources=ONE_WORKER), tmp_path / "results"
    with pytest.raises(InputError, match=r"No space left on device\), so the sweep has ended"):
        dirtune.sweep(path, data=data_root, results=results, view=FullWhereOnlyTheDriverWrites())
    left = dirtune.status("tiny", results=results)
    (started,) = left.started
    # None is taken for pruned
    assert {status for _, status in left.recorded} <= {"complete"}
    view = OutOfReach(results / "tiny", seconds=3.0)
    resumed = dirtune.resume("tiny", data=data_root, results=results, view=view)
    view.timer.join()
    assert (resumed.reused, resumed.left, dict(resumed.crashed)) == (left.done, 0, {})
    assert dict(resumed.run) == {"complete": 2 - left.done}
    # No epoch was trained twice.
    first = [(started.arm, epoch) for epoch in range(started.epochs_run + 1, 31)]
    assert view.epochs == [*first, *[("conr", epoch) for epoch in range(1, 31)]]
