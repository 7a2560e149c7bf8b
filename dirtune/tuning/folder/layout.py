"""File names of a study folder, each defined once.

    study.yaml                        the study as written by the user
    study.json                        every arm as a full configuration; commits the folder to the study
    manifest.json, provenance.json    copies: the data set's manifest; versions of code and libraries, and the machine
    groups.parquet                    groups of the evaluated samples, if the data set has groups
    selected.json                     selections of the searches
    results/TABLE/TRIAL.parquet       records (`dirtune.results.records.store`)
    orphaned/TABLE/TRIAL.parquet      records that the study no longer plans
    plugins/FILE.py                   plug-ins that the study's arms use (`dirtune.plugins`)
    trials/TRIAL/                     files of one trial (`dirtune.training.trial`)
    models/TRIAL/                     kept model of one trial (`dirtune.training.kept_model`)
    orphaned/models/TRIAL/            models of trials that the study no longer plans
    optuna.log                        journal of the searches (`dirtune.tuning.folder.journal`)
    driver.json, stop.json            lock of the running driver; request to stop it

Names that readers of results need are defined in `dirtune.results.records.names`.
"""

from dirtune.manifest import MANIFEST
from dirtune.results.records.names import GROUPS, PLUGINS, PROVENANCE, RESOLVED_STUDY, SELECTED

__all__ = [
    "GROUPS",
    "LOCK",
    "MANIFEST",
    "OPTUNA_JOURNAL",
    "ORPHANED",
    "PLUGINS",
    "PROVENANCE",
    "RESOLVED_STUDY",
    "SELECTED",
    "STOP_REQUEST",
    "STUDY_YAML",
]

STUDY_YAML = "study.yaml"
OPTUNA_JOURNAL = "optuna.log"
ORPHANED = "orphaned"
LOCK = "driver.json"
STOP_REQUEST = "stop.json"
