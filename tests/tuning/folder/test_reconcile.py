"""A study takes its folder: `pytest tests/tuning/folder/test_reconcile.py`; what it reuses there: `test_confirmation`, `test_sweep`."""

from __future__ import annotations

import json
from pathlib import Path

from dirtune.tuning.folder.reconcile import STUDY_FILE
from tests.tuning.pretended import Pretended


def test_what_was_swept_last_is_what_resume_finds_also_where_only_the_resources_differ(tmp_path: Path) -> None:
    found = Pretended(tmp_path)
    found.claim().take()
    before = found.folder.read("study.json")
    for cpus in (2, 1):
        found.claim(resources={"cpus": cpus}).take()
        kept = json.loads(found.folder.read(STUDY_FILE))
        assert kept == {"resources": {"cpus": cpus}}
        assert found.folder.read("study.json") == before
