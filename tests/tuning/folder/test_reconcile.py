"""Run with `pytest tests/tuning/folder/test_reconcile.py`; reuse of records is tested in `test_confirmation` and `test_sweep`."""

from __future__ import annotations

import json
from pathlib import Path

from dirtune.tuning.folder.layout import STUDY_YAML
from tests.tuning.simulated_sweep import SimulatedSweep


def test_the_study_file_is_updated_even_if_only_the_resources_differ(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.make_folder().reconcile(found.optuna_url)
    before = found.folder.read("study.json")
    for cpus in (2, 1):
        found.make_folder(resources={"cpus": cpus}).reconcile(found.optuna_url)
        kept = json.loads(found.folder.read(STUDY_YAML))
        assert kept == {"resources": {"cpus": cpus}}
        assert found.folder.read("study.json") == before
