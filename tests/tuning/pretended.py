"""A sweep whose trainings are a formula: the real claim, agenda, Optuna, records and selection, without Ray and data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dirtune.config import TrialConfig
from dirtune.io.storage import Storage
from dirtune.metrics import REGIONS
from dirtune.nested import get_leaf
from dirtune.results.analysis.sequential import rule_of
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.store import write_record
from dirtune.study.resolve import resolve
from dirtune.training.trial import CONFIG, TrialJob, trial_folder
from dirtune.tuning.folder.confirmation import confirm, recorded_rows
from dirtune.tuning.folder.optuna_storage import recall_searches
from dirtune.tuning.folder.reconcile import Claim, Extension
from dirtune.tuning.search.queue import Agenda, Ending
from dirtune.tuning.search.secondary import secondary_objectives
from dirtune.tuning.search.sequential_seeds import SeedSequence
from dirtune.tuning.search.warm_start import first_configurations
from tests.tuning.plan.test_checks import MANIFEST

STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "?",
    "reference": "conr",
    "seeds": [3, 4],
    "base": {"data": {"name": "toy"}, "model": {"encoder": {"name": "cnn"}}, "recipe": {"epochs": 3}},
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
    """Best where omega is 4; seeds move it a little."""
    return abs(omega(config) - 4.0) + 0.01 * config.seed


class Killed(Exception):
    """The driver died."""


class Pretended:
    """The sweeps of one folder, one driver after another.

    Args:
        ending: how the training of a configuration ends; by default complete, with `error_of`.
        few: the error of a configuration on the rare labels; by default that on all.
    """

    def __init__(
        self,
        root: Path,
        ending: Callable[[TrialConfig], Ending] | None = None,
        few: Callable[[TrialConfig], float] = error_of,
        name: str = "tiny",
    ) -> None:
        self.few, self.name, self.results = few, name, Storage.open(root)
        self.folder = self.results.get_folder(name)
        self.ending = ending or (lambda config: Ending(status="complete", objective=error_of(config)))
        Path(self.folder.path()).mkdir(parents=True, exist_ok=True)
        self.storage = f"sqlite:///{self.folder.path('optuna.db')}"

    def claim(self, **changes: Any) -> Claim:
        study = resolve({**STUDY, "name": self.name, **changes}, where="test")
        return Claim(self.folder, study, MANIFEST, json.dumps(changes))

    def extension(self, **changes: Any) -> Extension:
        return self.claim(**changes).extension()

    def agenda(self, **changes: Any) -> Agenda:
        """Take the folder for a study and see what is to be run."""
        claim = self.claim(**changes)
        claim.forget_changed_searches(self.storage)
        claim.take()
        endings = {
            row["trial_id"]: Ending(status=row["status"], objective=row["objective"])
            for row in recorded_rows(self.folder)
        }
        recall_searches(self.folder, claim.study, self.storage)
        return Agenda(
            claim.study,
            storage=self.storage,
            fingerprint=MANIFEST.fingerprint,
            code_version="v",
            recorded=endings,
            queued=first_configurations(claim.study, self.results),
            measured=lambda trial: secondary_objectives(self.folder, claim.study, trial),
            on_selected=lambda *selected: confirm(self.folder, *selected),
            sequence=None if (rule := rule_of(claim.info)) is None else SeedSequence(self.folder, rule),
        )

    def sweep(self, *, concurrent: int = 2, die_after: int | None = None, **changes: Any) -> list[TrialJob]:
        """Run what is left and return it in the order of its end; die when so many trials have ended."""
        agenda, running, ended = self.agenda(**changes), [], []
        while not agenda.is_empty or running:
            while len(running) < concurrent and (job := agenda.next()) is not None:
                config = json.dumps(job.config.to_plain()).encode()
                trial_folder(self.folder, job.trial_id).write(CONFIG, config)
                running.append(job)
            if not running:
                break
            job = running.pop(0)
            self.record(job)
            ended.append(job)
            if len(ended) == die_after:
                raise Killed
            agenda.tell(job, self.ending(job.config))
            agenda.further()
        return ended

    def record(self, job: TrialJob) -> None:
        ending = self.ending(job.config)
        trial = {
            "study": self.name,
            "arm": job.arm,
            "cell": job.cell,
            "trial_id": job.trial_id,
            "role": job.role,
            "replicate": job.replicate,
            "seed": job.config.seed,
            "status": ending.status,
            "objective": ending.objective,
            "data_fingerprint": MANIFEST.fingerprint,
        }
        metrics = [
            {
                "split": split,
                "selection": epoch,
                "region": region,
                "metric": "mae",
                "value": self.few(job.config) if region == "few" else ending.objective,
                "n": 1,
            }
            for split in ("val", "test")
            for epoch in ("best_val", "last")
            for region in REGIONS
        ]
        complete = ending.status == "complete"
        write_record(
            self.folder,
            TrialRecord(
                trial=trial,
                config=job.config.to_plain(),
                metrics=metrics if complete else [],
                epochs=[{"val/all/mae": ending.objective}] * job.config.epochs_planned if complete else [],
            ),
        )

    def recorded(self, arm: str | None = None) -> list[Mapping[str, Any]]:
        return [row for row in recorded_rows(self.folder) if arm in (None, row["arm"])]


def of_arm(jobs: Sequence[TrialJob], arm: str) -> list[TrialJob]:
    return [job for job in jobs if job.arm == arm]
