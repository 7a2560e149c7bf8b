from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.compaction import compact
from dirtune.results.store import read_table, recorded, write_record
from tests.results.records import metric_rows, record, write_study


def rows(storage: object, table: str) -> list[dict[str, object]]:
    found = read_table(storage, table).to_pylist()  # type: ignore[arg-type]
    return sorted(found, key=str)


def test_compacted_results_are_the_same_results(tmp_path: Path) -> None:
    records = [
        record("a", 0, config={"x": 1}),
        record("a", 1, config={"x": 0.5}),
        record("b", 0, status="failed", config={"y": "text"}),
    ]
    storage = write_study(tmp_path, records)
    before = {table: rows(storage, table) for table in ("trials", "metrics", "epochs")}

    compact(storage)

    assert {table: rows(storage, table) for table in before} == before


def test_compacted_trials_are_not_opened_again(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact(storage)
    (tmp_path / "study/results/metrics/a-0.parquet").write_bytes(b"not looked at")

    assert read_table(storage, "metrics").num_rows == len(metric_rows(0.0))


def test_what_was_recorded_later_is_read_from_its_own_files(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, 1.0)])
    compact(storage)
    write_record(storage, record("a", 1, 2.0))

    assert recorded(storage) == {"a-0": "complete", "a-1": "complete"}
    compact(storage)
    assert read_table(storage, "metrics").num_rows == 2 * len(metric_rows(0.0))


def test_a_trial_that_was_recorded_anew_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, status="failed"), record("a", 1)])
    compact(storage)
    write_record(storage, record("a", 0, 4.0))

    assert recorded(storage) == {"a-0": "complete", "a-1": "complete"}
    assert read_table(storage, "metrics").num_rows == 2 * len(metric_rows(0.0))


def test_a_trial_that_was_removed_is_gone_from_the_cache_too(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0), record("a", 1)])
    compact(storage)
    (tmp_path / "study/results/trials/a-1.parquet").unlink()

    assert recorded(storage) == {"a-0": "complete"}
    assert set(read_table(storage, "metrics")["trial_id"].to_pylist()) == {"a-0"}


def test_the_cache_can_be_deleted_at_any_time(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact(storage)
    before = rows(storage, "metrics")
    storage.remove("results/compacted")

    assert rows(storage, "metrics") == before


def test_chosen_columns_come_from_cache_and_files_alike(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, config={"x": 1})])
    compact(storage)
    write_record(storage, record("a", 1, config={"x": 2.5}))

    found = read_table(storage, "trials", columns=["config.x"])

    assert found.to_pydict() == {"trial_id": ["a-0", "a-1"], "config.x": [1.0, 2.5]}


def test_an_empty_study_can_be_compacted(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [], name="study", reference="a")
    compact(storage)

    assert recorded(storage) == {}


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact(storage)
    storage.write("results/compacted/trials.parquet", b"damaged")

    with pytest.raises(InputError, match=r"compacted/trials.parquet: damaged Parquet file"):
        recorded(storage)
