"""Workers of a local Ray as forks, in a sweep of the command line: run with `pytest tests/tuning/test_forked_workers.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.kills import list_processes
from tests.tuning.sweeps import metrics, sweep_without_ray, with_epochs

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone"),
]


def test_the_workers_of_a_sweep_are_forks_and_compute_the_same(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(**with_epochs(3))
    results, undisturbed = tmp_path / "results", tmp_path / "undisturbed"
    options = ["--data", str(data_root), "--results", str(results)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    found: dict[int, str] = {}
    parents: dict[int, int] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "dirtune.cli", "sweep", path, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as driver:
        while driver.poll() is None:
            for process, role in list_processes(driver.pid):
                # It may have ended since.
                with suppress(OSError):
                    parents[process] = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
                    found[process] = role
            time.sleep(0.05)
        assert driver.returncode == 0, driver.stderr.read() if driver.stderr is not None else ""
    (server,) = [process for process, role in found.items() if role == "server"]
    workers = [process for process, role in found.items() if role == "worker"]
    assert len(workers) >= 2
    assert {parents[worker] for worker in workers} == {server}
    assert not [process for process in workers if Path(f"/proc/{process}").exists()]
    sweep_without_ray(path, data_root, undisturbed)
    pd.testing.assert_frame_equal(metrics(results), metrics(undisturbed), check_exact=True)
