"""Run with `pytest tests/tuning/folder/test_orphans.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table, write_record
from dirtune.tuning.folder.orphans import orphans, put_back, set_aside
from tests.results.record_factory import record


def folder_with(root: Path, *trials: str) -> Storage:
    folder = Storage.open(root)
    for trial_id in trials:
        write_record(folder, record("a", 0, trial_id=trial_id))
    return folder


def trials_of(folder: Storage, table: str = "trials") -> set[str]:
    return set(read_table(folder, table)["trial_id"].to_pylist())


def test_what_is_set_aside_is_in_no_table_and_comes_back_whole(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "x", "y")
    before = {table: read_table(folder, table) for table in TABLES}
    set_aside(folder, ["x"])
    assert orphans(folder) == {"x"}
    assert all(trials_of(folder, table) <= {"y"} for table in TABLES)
    put_back(folder, ["x"])
    assert orphans(folder) == set()
    assert all(read_table(folder, table) == rows for table, rows in before.items())


@pytest.mark.parametrize("step", [set_aside, put_back])
def test_a_record_is_never_half_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[Storage, list[str]], None]
) -> None:
    folder = folder_with(tmp_path, "x")
    if step is put_back:
        set_aside(folder, ["x"])
    moved: list[str] = []
    move = Storage.move

    def dies_at_the_second(self: Storage, name: str, to: str) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(name)
        move(self, name, to)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "move", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            step(folder, ["x"])
    assert (trials_of(folder), trials_of(folder, "metrics")) == (set(), set())
    put_back(folder, ["x"])
    assert (trials_of(folder), trials_of(folder, "metrics")) == ({"x"}, {"x"})


def test_a_trial_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "x")
    set_aside(folder, ["gone"])
    put_back(folder, ["gone"])
    assert (trials_of(folder), orphans(folder)) == ({"x"}, set())
