"""A worker that runs out of memory, on a local Ray: run with `pytest tests/tuning/test_memory_sweep.py`."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dirtune
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.footer import footer
from dirtune.storage import Storage
from dirtune.training.trial import TrialJob, read_progress
from dirtune.tuning.driver import Silent
from tests.tuning.sweeps import STUDY, rows

pytestmark = pytest.mark.ray

SMALL = {"epochs": 1, "batch_size": 512, "views": {"count": 1, "augmentation": "shift"}}
LARGE = {"batch_size": 1024, "views": {"count": 32, "augmentation": "shift"}}
ROOM = 450 * 2**20
"""More bytes for data than half a batch of the large arm takes (about 300 MB), less than a whole one (about 600 MB)."""


class Limiter(Silent):
    """After the first epoch of the sweep its worker gets no more than `ROOM` of further memory, from the kernel."""

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
    digits: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    # The small arm's second epoch lets its view see the first one before the large arm starts.
    base = {**STUDY["base"], "recipe": {**SMALL, "epochs": 2}, "data": {"name": "digits", "fraction": 0.25}}  # fmt: skip
    large: dict[str, Any] = {"recipe": {**LARGE, "epochs": 1}}
    path = study_file(
        base=base, arms={"vanilla": {}, "large": large}, seeds=[0],
        resources={"concurrent": 1, "checkpoint_seconds": 0, "memory_retries": 3},
    )  # fmt: skip
    planned = dirtune.plan(path, data=digits, results=tmp_path).study.arms[1].config
    view = Limiter(tmp_path / "tiny")
    summary = dirtune.sweep(path, data=digits, results=tmp_path, view=view)
    assert (dict(summary.run), summary.left, summary.halved) == ({"complete": 2}, 0, 1), (summary, view.told, [Path(t).read_text() for t in summary.tracebacks])
    assert view.told[0].startswith(
        "out of memory at epoch 1, step 1: a batch of 1024 rows x 32 views, 1024 rows at a time, "
    )
    (row,) = rows("select * from trials where arm = 'large'", tmp_path).to_dict("records")
    assert row["accumulation_used"] == 2 ** len(view.told)
    assert row["config.recipe.accumulation"] == planned.recipe.accumulation == 1
    assert row["trial_id"] == planned.trial_id(row["data_fingerprint"])
    notes = footer(compare(tmp_path, TableRequest(studies=("tiny",))))
    assert [note for note in notes if note.startswith("1 trial ran at half batch or less")]
    resumed = dirtune.resume("tiny", data=digits, results=tmp_path)
    assert (resumed.reused, dict(resumed.run)) == (2, {})
