"""A worker that runs out of memory, on a local Ray: run with `pytest tests/tuning/test_memory_sweep.py`."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import dirtune
from dirtune.io.storage import Storage
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.footer import footer
from dirtune.training.trial import TrialJob, read_progress
from dirtune.tuning.execution.driver import Silent
from tests.tuning.sweeps import rows

pytestmark = pytest.mark.ray

BASE = {
    "data": {"name": "toy"},
    "model": {"encoder": {"name": "mlp", "hidden": [8192]}},
    "recipe": {"epochs": 2, "batch_size": 64},
}
LARGE = {"recipe": {"epochs": 1, "views": {"count": 100, "augmentation": "none"}}}
ROOM = 450 * 2**20
"""Of a step of the large arm a quarter of the batch takes about 300 MB, half of it 600, the whole 1,200."""


class Limiter(Silent):
    """After the first of two epochs of the first trial its worker gets no more than `ROOM` of further memory, from the kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told = Storage.at(folder), list[str]()
        self.is_limited = False

    def epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        progress = read_progress(self.folder, job.trial_id)
        if self.is_limited or progress is None:
            return
        self.is_limited = True
        worker = int(str(progress.trial["worker"]).split("/")[1])
        limit = data_bytes(worker) + ROOM
        resource.prlimit(worker, resource.RLIMIT_DATA, (limit, limit))

    def halved(self, job: TrialJob, reason: str) -> None:
        self.told.append(reason)


def data_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmData:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def test_a_trial_whose_batch_does_not_fit_ends_at_half_batch_under_its_own_name(
    ray_session: None, data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(
        base=BASE,
        arms={"vanilla": {}, "large": LARGE},
        seeds=[0],
        resources={"concurrent": 1, "checkpoint_seconds": 0, "memory_retries": 3},
    )
    planned = dirtune.plan(path, data=data_root, results=tmp_path).study.arms[1].config
    view = Limiter(tmp_path / "tiny")
    summary = dirtune.sweep(path, data=data_root, results=tmp_path, view=view)
    assert dict(summary.run) == {"complete": 2}, summary.crashed
    assert (summary.left, summary.halved) == (0, 1)
    assert view.told[0].startswith(
        "out of memory at epoch 1, step 1: a batch of 64 rows x 100 views, 64 rows at a time, "
    )
    (row,) = rows("select * from trials where arm = 'large'", tmp_path).to_dict("records")
    assert row["accumulation_used"] == 2 ** len(view.told)
    assert row["config.recipe.accumulation"] == planned.recipe.accumulation == 1
    assert row["trial_id"] == planned.trial_id(row["data_fingerprint"])
    notes = footer(compare(tmp_path, TableRequest(studies=("tiny",))))
    assert [note for note in notes if note.startswith("1 trial ran at half batch or less")]
    resumed = dirtune.resume("tiny", data=data_root, results=tmp_path)
    assert (resumed.reused, dict(resumed.run)) == (2, {})
