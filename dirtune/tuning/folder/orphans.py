"""Orphaned records: records that a study no longer plans are moved out of all tables, and back when planned again."""

from __future__ import annotations

from collections.abc import Iterable

from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.tuning.folder.layout import ORPHANED


def orphan_records(folder: Storage, trial_ids: Iterable[str]) -> None:
    """Move the records of trials out of the tables."""
    for trial_id in trial_ids:
        # The file in `trials/`, the last of `TABLES`, commits a record: it is moved out first, and back last
        for table in reversed(TABLES):
            _move(folder, f"results/{table}/{trial_id}.parquet", f"{ORPHANED}/{table}/{trial_id}.parquet")


def restore_records(folder: Storage, trial_ids: Iterable[str]) -> None:
    """Move the records of trials back into the tables."""
    for trial_id in trial_ids:
        for table in TABLES:
            _move(folder, f"{ORPHANED}/{table}/{trial_id}.parquet", f"results/{table}/{trial_id}.parquet")


def list_orphans(folder: Storage) -> set[str]:
    """Return the ids of trials with an orphaned record."""
    names = folder.list_files(f"{ORPHANED}/trials", suffix=".parquet")
    return {name.removesuffix(".parquet") for name in names}


def _move(folder: Storage, name: str, to: str) -> None:
    if folder.exists(name):
        folder.move(name, to)
