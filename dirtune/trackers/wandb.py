"""Weights & Biases: a project, in which arms are groups and trials are runs; online, or offline with `WANDB_MODE=offline`."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import wandb

from dirtune.trackers.tracker import MARK, Tracker
from dirtune.trackers.trial_log import TrialLog

PROJECT = "dirtune"
_LONGEST_ID = 64
_RECORDED = "recorded.txt"
"""In the folder of an offline run that was written completely: its study, trial and version."""


class WeightsAndBiases(Tracker):
    """Runs of a study in Weights & Biases; `place` is PROJECT or ENTITY/PROJECT."""

    def __init__(self, study: str, place: str) -> None:
        self._study = study
        self._entity, _, self._project = (place or PROJECT).rpartition("/")
        self._is_offline = os.environ.get("WANDB_MODE", "online") == "offline"
        self._folder = Path(os.environ.get("WANDB_DIR", "."))

    def list_logged(self) -> Mapping[str, str]:
        if self._is_offline:
            marks = [
                file.read_text(encoding="utf-8").split("\n")
                for file in self._folder.glob(f"wandb/offline-run-*/{_RECORDED}")
            ]
            return {trial_id: version for study, trial_id, version in marks if study == self._study}
        path = f"{self._entity}/{self._project}" if self._entity else self._project
        try:
            runs = wandb.Api().runs(path, filters={"jobType": self._study})
            versions = {run.config.get("trial_id"): run.summary.get(MARK) for run in runs}
        # The project is created by its first run.
        except ValueError as error:
            if "Could not find project" not in str(error):
                raise
            return {}
        return {trial_id: version for trial_id, version in versions.items() if trial_id and version is not None}

    def write(self, trial: TrialLog) -> None:
        # An id is written anew without `resume`: nothing of an interrupted run remains.
        identifier = f"{self._study}-{trial.trial_id}"[-_LONGEST_ID:]
        for folder in self._folder.glob(f"wandb/offline-run-*-{identifier}"):
            shutil.rmtree(folder)
        run = wandb.init(
            project=self._project,
            entity=self._entity or None,
            id=identifier,
            name=trial.name,
            group=trial.arm,
            job_type=self._study,
            tags=[self._study, trial.arm[:60], f"seed {trial.seed}", trial.status],
            config={**trial.tags, "settings": dict(trial.settings)},
            dir=str(self._folder),
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )
        for epoch, values in trial.curves.items():
            run.log(dict(values), step=epoch)
        run.summary.update({f"final/{name}": value for name, value in trial.final.items()} | {MARK: trial.version})
        run.finish(exit_code=1 if trial.status == "failed" else 0)
        if self._is_offline:
            # Behind the last entry: a run that was interrupted has no such file.
            Path(run.settings.sync_dir, _RECORDED).write_text(
                "\n".join([self._study, trial.trial_id, trial.version]), encoding="utf-8"
            )

    def write_report(self, file: Path) -> bool:
        run = wandb.init(
            project=self._project,
            entity=self._entity or None,
            id=f"{self._study}-report"[-_LONGEST_ID:],
            name=f"{self._study}: report",
            job_type="report",
            dir=str(self._folder),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        artifact = wandb.Artifact(f"{self._study}-report", type="report")
        artifact.add_file(str(file))
        run.log_artifact(artifact)
        run.finish()
        return True
