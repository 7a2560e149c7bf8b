"""A worker that runs out of memory, on a local Ray: run with `pytest tests/tuning/test_memory_sweep.py`."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import dirtune
from dirtune.io.storage import Storage
from dirtune.training.trial import TrialJob, read_progress
from dirtune.tuning.interface import View
from tests.tuning.sweeps import rows

pytestmark = pytest.mark.ray

BASE = {
    "data": {"name": "toy"},
    "model": {"encoder": {"name": "mlp", "hidden": [8192]}},
    "recipe": {"epochs": 2, "batch_size": 64},
}
LARGE = {"recipe": {"epochs": 1, "views": {"count": 100, "augmentation": "none"}}}
ROOM = 450 * 2**20
"""A step of the large arm takes about 1,200 MB."""


class Limiter(View):
    """Limits the memory of the first trial's worker to `ROOM` more bytes after the first of two epochs, by the kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.is_limited = Storage.open(folder), False

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        progress = read_progress(self.folder, job.trial_id)
        if self.is_limited or progress is None:
            return
        self.is_limited = True
        worker = int(str(progress.trial["worker"]).split("/")[1])
        limit = read_data_bytes(worker) + ROOM
        resource.prlimit(worker, resource.RLIMIT_DATA, (limit, limit))


def read_data_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmData:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@pytest.mark.soak
def test_a_trial_whose_batch_does_not_fit_fails_with_the_accumulation_to_try(
    ray_session: None, data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(
        base=BASE,
        arms={"vanilla": {}, "large": LARGE},
        seeds=[0],
        resources={"concurrent": 1, "checkpoint_seconds": 0},
    )
    summary = dirtune.sweep(path, data=data_root, results=tmp_path, view=Limiter(tmp_path / "tiny"))
    assert (dict(summary.run), summary.left) == ({"complete": 1, "failed": 1}, 0)
    (row,) = rows("select * from trials where arm = 'large'", tmp_path).to_dict("records")
    assert (row["status"], row["error_class"], row["error_epoch"]) == ("failed", "out_of_memory", 1)
    assert row["error"].startswith(
        "out of memory at epoch 1, step 1: a batch of 64 rows x 100 views, 64 rows at a time, "
    )
    assert row["error"].endswith("; try recipe.accumulation: 2, which has 32 rows at a time")
    assert summary.crashed == {row["trial_id"]: row["error"]}
    again = dirtune.resume("tiny", data=data_root, results=tmp_path, retry=["out_of_memory"])
    assert (again.reused, dict(again.run)) == (1, {"complete": 1})
