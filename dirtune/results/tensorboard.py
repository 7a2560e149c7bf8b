"""The curves of a sweep as TensorBoard logs, for those who watch their trainings there.

Made from what is on disk, at any time of a sweep: recorded trials from the table `epochs`, running ones from the progress
they leave after every epoch. Every trial has a folder of its own, `<arm>/seed-<seed>-<trial id>`, which is written anew,
so that nothing stands twice.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dirtune.io.storage import Storage
from dirtune.results.analysis.status import PROGRESS
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import open_study

Curves = Mapping[int, Mapping[str, float | None]]
"""Values by epoch and name."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    arm: str
    seed: int
    trial_id: str
    curves: Curves

    @property
    def folder(self) -> str:
        return f"{self.arm.replace('/', '_')}/seed-{self.seed}-{self.trial_id}"


def write_logs(study: str, *, results: str | Path = "results", output: Path) -> int:
    """Write the curves of all trials of a study below `output`; how many trials that is.

    Raises:
        InputError: there is no such study, or a file is damaged.
    """
    from tensorboardX import SummaryWriter

    folder, number = open_study(results, study), 0
    for run in _runs(folder):
        logs = output / run.folder
        shutil.rmtree(logs, ignore_errors=True)
        with SummaryWriter(str(logs)) as writer:
            for epoch, values in sorted(run.curves.items()):
                for name, value in values.items():
                    if value is not None:
                        writer.add_scalar(name, value, epoch)
        number += 1
    return number


def _runs(folder: Storage) -> Iterator[_Run]:
    rows = read_table(folder, "epochs")
    curves: dict[str, dict[int, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows.to_pylist():
        curves[row["trial_id"]][row["epoch"]][row["name"]] = row["value"]
    trials = read_table(folder, "trials", columns=["arm", "seed"]).to_pylist()
    for row in trials:
        yield _Run(**row, curves=curves[row["trial_id"]])
    recorded = {row["trial_id"] for row in trials}
    for trial_id in folder.folders("trials"):
        if trial_id not in recorded and (found := _progress(folder, trial_id)) is not None:
            yield found


def _progress(folder: Storage, trial_id: str) -> _Run | None:
    try:
        progress: dict[str, Any] = json.loads(folder.read(f"trials/{trial_id}/{PROGRESS}"))
    except FileNotFoundError:  # before its first epoch, or recorded this very moment
        return None
    return _Run(
        arm=progress["trial"]["arm"],
        seed=progress["trial"]["seed"],
        trial_id=trial_id,
        curves=dict(enumerate(progress["epochs"], start=1)),
    )
