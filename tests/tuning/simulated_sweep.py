"""Simulated sweep: folder, queue, Optuna, records and selections are real, and a formula replaces training.

Needs neither Ray nor data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dirtune.config import TrialConfig
from dirtune.io.storage import Storage
from dirtune.metrics import REGIONS
from dirtune.nested import get_leaf
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.store import write_record
from dirtune.study.resolve import resolve
from dirtune.training.trial import CONFIG, TrialJob, get_trial_folder
from dirtune.tuning.folder.reconcile import Reuse, StudyFolder
from dirtune.tuning.folder.records import RecordedTrial, TrialOutcome, read_recorded_trials
from dirtune.tuning.search.queue import TrialQueue
from dirtune.tuning.search.warm_start import find_first_settings
from tests.tuning.plan.test_checks import MANIFEST

STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "?",
    "reference": "conr",
    "seeds": [3, 4],
    "base": {
        "data": {"name": "toy"},
        "model": {"encoder": {"name": "cnn"}, "label_scale": 1, "label_offset": 0},
        "recipe": {"epochs": 3},
    },
    "arms": {
        "vanilla": {},
        "conr": {"terms": {"conr": {}}},
        "wide": {"terms": {"conr": {}}, "model": {"projection_dim": 8}},
    },
    "search": {"trials": 4, "sampler": "random", "confirm": True, "tuning_seed": 100},
    "space": {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}},
}


def omega(config: TrialConfig) -> float:
    return float(get_leaf(config.to_plain(), "terms.conr.omega") or 0.0)


def error_of(config: TrialConfig) -> float:
    """Return an error that is smallest at omega 4, and differs a little between seeds."""
    return abs(omega(config) - 4.0) + 0.01 * config.seed


class Killed(Exception):
    """Death of the driver."""


class SimulatedSweep:
    """The sweeps of one folder, one driver after another.

    Args:
        outcome: outcome of a trial by its configuration; by default complete, with `error_of`.
        few: error of a configuration on the rare labels; by default that on all.
    """

    def __init__(
        self,
        root: Path,
        outcome: Callable[[TrialConfig], TrialOutcome] | None = None,
        few: Callable[[TrialConfig], float] = error_of,
        name: str = "tiny",
    ) -> None:
        self.few, self.name, self.results = few, name, Storage.open(root)
        self.folder = self.results.get_folder(name)
        self.outcome = outcome or (lambda config: TrialOutcome(status="complete", objective=error_of(config)))
        Path(self.folder.path()).mkdir(parents=True, exist_ok=True)

    def make_folder(self, **changes: Any) -> StudyFolder:
        study = resolve({**STUDY, "name": self.name, **changes}, where="test")
        return StudyFolder(self.folder, study, MANIFEST, json.dumps(changes))

    def find_reuse(self, **changes: Any) -> Reuse:
        return self.make_folder(**changes).find_reuse()

    def reconcile(self, **changes: Any) -> None:
        """Make the folder the study's."""
        folder = self.make_folder(**changes)
        with folder.open_journal() as journal:
            folder.reconcile(journal)

    def make_queue(self, **changes: Any) -> TrialQueue:
        """Reconcile the folder with a study and return the trials to run."""
        folder = self.make_folder(**changes)
        with folder.open_journal() as journal:
            recorded = folder.reconcile(journal)
        # On a local disk, it stays open
        first_settings = find_first_settings(folder.study, self.results)
        return TrialQueue(folder, journal, recorded, first_settings=first_settings, code_version="v")

    def sweep(self, *, concurrent: int = 2, die_after: int | None = None, **changes: Any) -> list[TrialJob]:
        """Run the missing trials and return them in the order of their end; die after a number of ended trials."""
        queue, running, ended = self.make_queue(**changes), [], []
        while not queue.is_empty or running:
            while len(running) < concurrent and (job := queue.get_next()) is not None:
                config = json.dumps(job.config.to_plain()).encode()
                get_trial_folder(self.folder, job.trial_id).write(CONFIG, config)
                running.append(job)
            if not running:
                break
            job = running.pop(0)
            self.record(job)
            ended.append(job)
            if len(ended) == die_after:
                raise Killed
            queue.tell(job, self.outcome(job.config))
            queue.add_new_trials()
        return ended

    def record(self, job: TrialJob) -> None:
        outcome = self.outcome(job.config)
        trial = {
            "study": self.name,
            "arm": job.arm,
            "cell": job.cell,
            "trial_id": job.trial_id,
            "role": job.role,
            "replicate": job.replicate,
            "seed": job.config.seed,
            "status": outcome.status,
            "objective": outcome.objective,
            "data_fingerprint": MANIFEST.fingerprint,
        }
        metrics = [
            {
                "split": split,
                "selection": epoch,
                "region": region,
                "metric": "mae",
                "value": self.few(job.config) if region == "few" else outcome.objective,
                "n": 1,
            }
            for split in ("val", "test")
            for epoch in ("best_val", "last")
            for region in REGIONS
        ]
        complete = outcome.status == "complete"
        write_record(
            self.folder,
            TrialRecord(
                trial=trial,
                config=job.config.to_plain(),
                metrics=metrics if complete else [],
                epochs=[{"val/all/mae": outcome.objective}] * job.config.epochs_planned if complete else [],
            ),
        )

    def read_trials(self, arm: str | None = None) -> list[RecordedTrial]:
        return [trial for trial in read_recorded_trials(self.folder) if arm in (None, trial.arm)]


def of_arm(jobs: Sequence[TrialJob], arm: str) -> list[TrialJob]:
    return [job for job in jobs if job.arm == arm]
