"""TensorBoard logs of the curves of a sweep.

Made from the files on disk, at any time of a sweep: recorded trials from the table `epochs`, running ones from the progress
that they write after every epoch. Every trial has a folder of its own, `<arm>/seed-<seed>-<trial id>`, which is written
from the start each time, so that no point appears twice.
"""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.results.analysis.status import PROGRESS
from dirtune.results.records import store, studies

# Bytes; file systems have 255, and a study's folder may be encrypted, which takes more.
_LONGEST_FOLDER = 140
_UNSAFE = '/\\%:*?"<>|'
Curves = Mapping[int, Mapping[str, float | None]]
"""Values by epoch and name."""


@dataclass(frozen=True, kw_only=True)
class _TrialCurves:
    arm: str
    seed: int
    trial_id: str
    curves: Curves


def write_logs(study: str, *, results: str | Path = "results", output: Path) -> int:
    """Write the curves of all trials of a study below `output` and return the number of trials.

    Raises:
        InputError: there is no such study, or a file is damaged.
    """
    from tensorboardX import SummaryWriter

    number = 0
    for trial in _read_curves(studies.open_study(results, study)):
        logs = output / format_folder(trial.arm) / format_folder(f"seed-{trial.seed}-{trial.trial_id}")
        shutil.rmtree(logs, ignore_errors=True)
        with SummaryWriter(str(logs)) as writer:
            for epoch, values in sorted(trial.curves.items()):
                for name, value in values.items():
                    if value is not None:
                        writer.add_scalar(name, value, epoch)
        number += 1
    return number


def format_folder(name: str) -> str:
    """Return the name of the folder of an arm or trial: one level, another for each name, not too long for a file system."""
    # As in URLs; names of dots alone would lead out of the folder.
    safe = "".join(
        character if character.isprintable() and character not in _UNSAFE else quote(character, safe="")
        for character in name
    )
    safe = safe.replace(".", "%2E") if not safe.strip(".") else safe
    if len(safe.encode()) <= _LONGEST_FOLDER:
        return safe or "%"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{safe.encode()[: _LONGEST_FOLDER - 20].decode(errors='ignore')}...{digest}"


def _read_curves(folder: Storage) -> Iterator[_TrialCurves]:
    """Yield the curves of recorded trials, then those of running ones."""
    rows = store.read_table(folder, "epochs")
    curves: dict[str, dict[int, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows.to_pylist():
        curves[row["trial_id"]][row["epoch"]][row["name"]] = row["value"]
    trials = store.read_table(folder, "trials", columns=["arm", "seed"]).to_pylist()
    for row in trials:
        yield _TrialCurves(**row, curves=curves[row["trial_id"]])
    recorded = {row["trial_id"] for row in trials}
    for trial_id in folder.list_folders("trials"):
        if trial_id in recorded:
            continue
        try:
            progress = read_json_object(folder, f"trials/{trial_id}/{PROGRESS}")
        except FileNotFoundError:
            # Before its first epoch, or recorded since the tables were read.
            continue
        yield _TrialCurves(
            arm=progress["trial"]["arm"],
            seed=progress["trial"]["seed"],
            trial_id=trial_id,
            curves=dict(enumerate(progress["epochs"], start=1)),
        )
