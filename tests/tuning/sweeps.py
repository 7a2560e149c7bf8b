"""What the tests of sweeps share: small studies, sweeps of them without Ray, and queries of what a sweep has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import dirtune
from dirtune.data.blocks import Blocks
from dirtune.data.contract import read_contract
from dirtune.data.memory_budget import MemoryBudget
from dirtune.io.storage import Storage
from dirtune.tuning.execution.worker import ResidentWorker, WorkerSettings
from dirtune.tuning.folder.reconcile import StudyFolder
from dirtune.tuning.folder.records import TrialOutcome
from dirtune.tuning.plan.checks import open_study_folder
from dirtune.tuning.search.queue import TrialQueue

STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "Does the machinery hold?",
    "reference": "vanilla",
    "seeds": [0, 1],
    "base": {
        "data": {"name": "toy"},
        "model": {"encoder": {"name": "mlp", "hidden": [8]}, "label_scale": 1.0, "label_offset": 4.0},
        "recipe": {"epochs": 3, "batch_size": 64, "learning_rate": 0.01},
    },
    "arms": {"vanilla": {}, "conr": {"model": {"projection_dim": 8}, "terms": {"conr": {"beta": 0.1, "omega": 3.0}}}},
    "resources": {"checkpoint_seconds": 0},
}
"""On the toy data: an epoch takes milliseconds."""
ONE_WORKER = {"checkpoint_seconds": 0, "concurrent": 1}
"""Resources with which a sweep starts one worker: a second one takes longer to start than these trials."""
DIGITS: dict[str, Any] = {
    **STUDY,
    "base": {
        "data": {"name": "digits"},
        "model": {"encoder": {"name": "cnn", "channels": 4}, "label_scale": 60},
        "recipe": {"epochs": 3, "batch_size": 512, "views": {"count": 2, "augmentation": "shift"}},
    },
}


def load_search(folder: Path, name: str) -> optuna.Study:
    """Return a search as Optuna reads it from the journal of a study's folder."""
    journal = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
    return optuna.load_study(study_name=f"tiny/{name}", storage=journal)


def with_epochs(epochs: int) -> dict[str, Any]:
    """Return the change of `STUDY` that trains for a number of epochs."""
    return {"base": {**STUDY["base"], "recipe": {**STUDY["base"]["recipe"], "epochs": epochs}}}


def open_folder(study: str, data: Path, results: Path) -> StudyFolder:
    """Return the folder of a study's file."""
    return open_study_folder(Path(study).read_text(), study, data=data, results=results)


def sweep_without_ray(study: str, data: Path, results: Path, *, limit: int | None = None) -> int:
    """Run up to `limit` missing trials of a study's file in this process and return their number."""
    folder = open_folder(study, data, results)
    memory = MemoryBudget(device_bytes=2**28, host_bytes=2**28)
    contract = read_contract(Storage.open(data), folder.manifest)
    kept = folder.study.keep_models
    settings = WorkerSettings(
        study=folder.storage, manifest=folder.manifest, budget=memory, keep_models=kept, contract=contract
    )
    worker = ResidentWorker(settings, Blocks(Storage.open(data), None), torch.device("cpu"))
    count = 0
    with folder.open_journal() as journal:
        queue = TrialQueue(folder, journal, folder.reconcile(journal))
        while count != limit and (job := queue.get_next()) is not None:
            worker.start(job)
            while not (result := worker.step()).has_ended:
                pass
            assert result.status is not None
            queue.tell(job, TrialOutcome(status=result.status, objective=result.best_objective))
            queue.add_new_trials()
            count += 1
    return count


def rows(sql: str, results: Path) -> pd.DataFrame:
    return dirtune.query(sql, results=results)


def metrics(results: Path, study: str = "tiny") -> pd.DataFrame:
    sql = f"""select arm, seed, split, selection, region, metric, value, n
              from metrics join trials using (trial_id) where study = '{study}' order by all"""
    return rows(sql, results)
