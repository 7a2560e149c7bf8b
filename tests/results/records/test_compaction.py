"""Run with `pytest tests/results/records/test_compaction.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.records.compaction import Records, compact, compact_if_outdated, compact_study, keep_compacted
from dirtune.results.records.store import read_statuses, read_table, write_record
from dirtune.results.records.unify import unify
from tests.results.record_factory import metric_rows, record, write_study

ROOT = Path(__file__).resolve().parents[3]


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
    (tmp_path / "study/results/metrics/a-0.parquet").write_bytes(b"must not be read")

    assert read_table(storage, "metrics").num_rows == len(metric_rows(0.0))


def test_a_cache_with_the_seal_of_the_folder_is_read_without_a_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = write_study(tmp_path, [record("a", seed) for seed in range(3)])
    compact(storage)
    listed: list[str] = []
    monkeypatch.setattr("dirtune.results.records.compaction.list_stamps", lambda folder: listed.append("") or {})

    assert read_table(storage, "trials").num_rows == 3
    assert read_table(storage, "metrics").num_rows == 3 * len(metric_rows(0.0))
    assert not listed
    write_record(storage, record("a", 3))
    read_table(storage, "trials")
    assert listed


def test_between_the_two_files_of_a_compaction_both_tables_have_the_same_trials(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact(storage)
    earlier = (tmp_path / "study/results/compacted/metrics.parquet").read_bytes()
    write_record(storage, record("a", 1))
    compact(storage)
    storage.write("results/compacted/metrics.parquet", earlier)

    records = Records(storage)
    trials = unify(records.read("trials", ["trial_id"]))
    write_record(storage, record("a", 2))
    metrics = unify(records.read("metrics", ["trial_id"]))

    assert set(trials["trial_id"].to_pylist()) == set(metrics["trial_id"].to_pylist()) == {"a-0", "a-1"}


def test_a_copy_of_a_study_is_not_taken_for_the_sealed_folder(tmp_path: Path) -> None:
    storage = write_study(tmp_path / "one", [record("a", 0), record("a", 1)])
    compact(storage)
    # As of a copy that kept the times and lost a file
    shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("a-1.parquet"))
    folders = [tmp_path / name / "study/results/trials" for name in ("one", "two")]
    times = folders[0].stat()
    os.utime(folders[1], ns=(times.st_atime_ns, times.st_mtime_ns))

    assert read_statuses(Storage.open(tmp_path / "two/study")) == {"a-0": "complete"}


def test_a_study_is_compacted_while_its_trials_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dirtune.results.records.compaction.SECONDS_BETWEEN_CHECKS", 0.01)
    monkeypatch.setattr("dirtune.results.records.compaction.LEAST_NEW", 2)
    storage = write_study(tmp_path, [record("a", 0)])
    cache = tmp_path / "study/results/compacted/metrics.parquet"
    with keep_compacted(storage):
        for seed in range(1, 500):
            write_record(storage, record("a", seed))
            if cache.exists():
                break

    assert cache.exists()
    assert len(read_statuses(storage)) == seed + 1


def test_batches_of_files_are_read_in_order_and_all_damaged_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [1, 0.5, "auto", None, 3]
    records = [record("a", seed, config={"x": x}) for seed, x in enumerate(settings)]
    storage = write_study(tmp_path, records)
    at_once = read_table(storage, "trials").to_pylist()

    monkeypatch.setattr("dirtune.results.records.compaction.BATCH", 2)

    assert read_table(storage, "trials").to_pylist() == at_once
    assert [row["config.x"] for row in at_once] == ["1", "0.5", "auto", None, "3"]
    for seed in (0, 3):
        (tmp_path / f"study/results/trials/a-{seed}.parquet").write_bytes(b"damaged")
    with pytest.raises(InputError) as caught:
        read_table(storage, "trials")
    assert [fault.where[-11:] for fault in caught.value.faults] == ["a-0.parquet", "a-3.parquet"]
    skipped: list[Fault] = []
    assert read_table(storage, "trials", on_damaged=skipped.append).num_rows == 3
    assert len(skipped) == 2


def test_trials_recorded_later_are_read_from_their_own_files(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, 1.0)])
    compact(storage)
    write_record(storage, record("a", 1, 2.0))

    assert read_statuses(storage) == {"a-0": "complete", "a-1": "complete"}
    compact(storage)
    assert read_table(storage, "metrics").num_rows == 2 * len(metric_rows(0.0))


def test_a_trial_that_was_recorded_again_is_not_read_from_the_cache(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, status="failed"), record("a", 1)])
    compact(storage)
    write_record(storage, record("a", 0, 4.0))

    assert read_statuses(storage) == {"a-0": "complete", "a-1": "complete"}
    assert read_table(storage, "metrics").num_rows == 2 * len(metric_rows(0.0))


def test_a_removed_trial_is_not_read_from_the_cache(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0), record("a", 1)])
    compact(storage)
    (tmp_path / "study/results/trials/a-1.parquet").unlink()

    assert read_statuses(storage) == {"a-0": "complete"}
    assert set(read_table(storage, "metrics")["trial_id"].to_pylist()) == {"a-0"}


def test_the_cache_can_be_deleted_at_any_time(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact(storage)
    before = rows(storage, "metrics")
    storage.remove("results/compacted")

    assert rows(storage, "metrics") == before


def test_selected_columns_are_read_from_cache_and_files(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, config={"x": 1})])
    compact(storage)
    write_record(storage, record("a", 1, config={"x": 2.5}))

    found = read_table(storage, "trials", columns=["config.x"])

    assert found.to_pydict() == {"trial_id": ["a-0", "a-1"], "config.x": [1.0, 2.5]}


def test_an_empty_study_can_be_compacted(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [], name="study", reference="a")
    compact(storage)

    assert read_statuses(storage) == {}


def test_a_damaged_cache_costs_no_rows_and_is_made_again(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact(storage)
    cache = tmp_path / "study/results/compacted/trials.parquet"
    whole = pq.read_table(cache)
    cache.write_bytes(b"damaged")

    assert read_statuses(storage) == {"a-0": "complete"}
    compact_if_outdated(storage)
    assert pq.read_table(cache) == whole


def test_only_an_outdated_cache_is_made_again(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact_if_outdated(storage)
    cache = tmp_path / "study/results/compacted/trials.parquet"
    made = cache.stat().st_ino
    compact_if_outdated(storage)
    assert cache.stat().st_ino == made
    write_record(storage, record("a", 1))
    compact_if_outdated(storage)
    assert cache.stat().st_ino != made


def test_a_study_is_compacted_by_name(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0), record("b", 0)])

    assert compact_study("study", results=tmp_path) == {"trials": 2, "metrics": 2 * len(metric_rows(0.0))}
    assert storage.list_files("results/compacted") == ["metrics.parquet", "trials.parquet"]
    with pytest.raises(InputError, match="unknown study, got 'sudy'; known: study"):
        compact_study("sudy", results=tmp_path)


WRITER = """
import sys
from pathlib import Path
from tests.results.record_factory import record, write_study

for seed in range(60):
    # Every second trial fails first and is recorded again, so that the cache may be stale
    if seed % 2:
        write_study(Path(sys.argv[1]), [record("a", seed, status="failed", error="lost its worker")])
    write_study(Path(sys.argv[1]), [record("a", seed, float(seed))])
"""


@pytest.mark.slow
def test_compaction_loses_and_doubles_nothing_while_another_process_records(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 1000)])
    rows_each, rounds = len(metric_rows(0.0)), 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT) as writer:
        while writer.poll() is None:
            compact(storage)
            seen = read_table(storage, "trials", columns=["status"])
            metrics = Counter(read_table(storage, "metrics")["trial_id"].to_pylist())
            trials = seen["trial_id"].to_pylist()
            assert len(trials) == len(set(trials))
            complete = [row["trial_id"] for row in seen.to_pylist() if row["status"] == "complete"]
            assert {metrics[trial] for trial in complete} == {rows_each}
            assert set(metrics.values()) == {rows_each}
            rounds += 1
    assert writer.returncode == 0
    assert rounds > 3
    compact(storage)
    expected = {"a-1000", *(f"a-{seed}" for seed in range(60))}
    assert read_statuses(storage) == dict.fromkeys(expected, "complete")
    assert Counter(read_table(storage, "metrics")["trial_id"].to_pylist()) == dict.fromkeys(expected, rows_each)


def test_two_concurrent_compactions_leave_a_complete_cache(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", seed) for seed in range(5)])
    script = (
        "import sys\nfrom dirtune.results.records.compaction import compact_study\n"
        "for _ in range(10): compact_study('study', results=sys.argv[1])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]

    assert [process.wait() for process in both] == [0, 0]
    assert read_table(storage, "metrics").num_rows == 5 * len(metric_rows(0.0))
    assert storage.list_files("results/compacted") == ["metrics.parquet", "trials.parquet"]
