"""TensorBoard: event files of every trial in a folder of its own, `FOLDER/STUDY/ARM/seed-SEED-TRIAL`.

A folder is written from the start each time, so that no point appears twice, and running trials are written as well.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tensorboardX import SummaryWriter

from dirtune.trackers.tracker import Tracker
from dirtune.trackers.trial_log import TrialLog

FOLDER = "logs"
# Bytes; file systems have 255, and a study's folder may be encrypted, which takes more.
_LONGEST_FOLDER = 140
_UNSAFE = '/\\%:*?"<>|'
_RECORDED = "recorded.txt"
"""In the folder of a recorded trial that was written completely: its id and version."""


class TensorBoard(Tracker):
    """Event files of a study; `place` is a folder, by default `logs`."""

    follows_running = True

    def __init__(self, study: str, place: str) -> None:
        self.folder = Path(place or FOLDER) / study

    def list_logged(self) -> Mapping[str, str]:
        marks = [file.read_text().partition("\n") for file in self.folder.glob(f"*/*/{_RECORDED}")]
        return {trial_id: version for trial_id, _, version in marks}

    def write(self, trial: TrialLog) -> None:
        folder = self.folder / format_folder(trial.arm) / format_folder(f"seed-{trial.seed}-{trial.trial_id}")
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as writer:
            for epoch, values in trial.curves.items():
                for name, value in values.items():
                    writer.add_scalar(name, value, epoch)
            for name, value in trial.final.items():
                writer.add_scalar(f"final/{name}", value, max(trial.curves, default=0))
            if trial.tags:
                lines = [f"    {name}: {value}" for name, value in {**trial.tags, **trial.settings}.items()]
                writer.add_text("trial", "\n".join(lines))
        if trial.version:
            (folder / _RECORDED).write_text(f"{trial.trial_id}\n{trial.version}")


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
