"""Records that a study no longer plans: moved out of every table, never thrown away, and moved back when planned again."""

from __future__ import annotations

from collections.abc import Iterable

from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES

ORPHANED = "orphaned"


def set_aside(folder: Storage, trials: Iterable[str]) -> None:
    """Move the records of trials out of the tables."""
    # The file in `trials/`, the last of `TABLES`, commits a record: it is the first to go, and the last to come back.
    for trial_id in trials:
        for table in reversed(TABLES):
            _move(folder, f"results/{table}/{trial_id}", f"{ORPHANED}/{table}/{trial_id}")


def put_back(folder: Storage, trials: Iterable[str]) -> None:
    """Move the records of trials back into the tables."""
    for trial_id in trials:
        for table in TABLES:
            _move(folder, f"{ORPHANED}/{table}/{trial_id}", f"results/{table}/{trial_id}")


def orphans(folder: Storage) -> set[str]:
    """The trials whose records have been set aside."""
    names = folder.list_files(f"{ORPHANED}/trials", suffix=".parquet")
    return {name.removesuffix(".parquet") for name in names}


def _move(folder: Storage, name: str, to: str) -> None:
    if folder.exists(f"{name}.parquet"):
        folder.move(f"{name}.parquet", f"{to}.parquet")
