"""TensorBoard: event files of every trial in a folder of its own, `FOLDER/STUDY/ARM/seed-SEED-TRIAL`.

A folder is written from the start each time, so that no point appears twice, and running trials are written as well.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from dirtune.io.files import format_file_name
from dirtune.trackers.tracker import Tracker
from dirtune.trackers.trial_log import TrialLog

FOLDER = "logs"
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
        folder = self.folder / format_file_name(trial.arm) / format_file_name(f"seed-{trial.seed}-{trial.trial_id}")
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
