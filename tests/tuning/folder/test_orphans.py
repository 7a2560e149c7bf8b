"""Run with `pytest tests/tuning/folder/test_orphans.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table, write_record
from dirtune.tuning.folder.orphans import list_orphans, orphan_records, restore_records
from tests.results.record_factory import record


def make_folder(root: Path, *trials: str) -> Storage:
    folder = Storage.open(root)
    for trial_id in trials:
        write_record(folder, record("a", 0, trial_id=trial_id))
    return folder


def list_trials(folder: Storage, table: str = "trials") -> set[str]:
    return set(read_table(folder, table)["trial_id"].to_pylist())


def test_orphaned_records_are_in_no_table_and_are_restored_completely(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "x", "y")
    before = {table: read_table(folder, table) for table in TABLES}
    orphan_records(folder, ["x"])
    assert list_orphans(folder) == {"x"}
    assert all(list_trials(folder, table) <= {"y"} for table in TABLES)
    restore_records(folder, ["x"])
    assert list_orphans(folder) == set()
    assert all(read_table(folder, table) == rows for table, rows in before.items())


@pytest.mark.parametrize("step", [orphan_records, restore_records])
def test_a_record_is_never_partly_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[Storage, list[str]], None]
) -> None:
    folder = make_folder(tmp_path, "x")
    if step is restore_records:
        orphan_records(folder, ["x"])
    moved: list[str] = []
    move = Storage.move

    def die_at_the_second(self: Storage, name: str, to: str) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(name)
        move(self, name, to)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "move", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            step(folder, ["x"])
    assert (list_trials(folder), list_trials(folder, "metrics")) == (set(), set())
    restore_records(folder, ["x"])
    assert (list_trials(folder), list_trials(folder, "metrics")) == ({"x"}, {"x"})


def test_missing_trials_are_skipped(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "x")
    orphan_records(folder, ["gone"])
    restore_records(folder, ["gone"])
    assert (list_trials(folder), list_orphans(folder)) == ({"x"}, set())
