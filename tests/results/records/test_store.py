"""Run with `pytest tests/results/records/test_store.py`."""

from __future__ import annotations

import errno
import math
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import dirtune.results
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.records.compaction import Records, compact, compact_if_outdated
from dirtune.results.records.parquetfile import encode_table
from dirtune.results.records.schema import SCHEMAS, SplitPredictions, TrialRecord
from dirtune.results.records.store import (
    read_once,
    read_statuses,
    read_table,
    read_tables,
    scan_predictions,
    stack_components,
    write_record,
)
from tests.results.record_factory import metric_rows, record, write_study

CONFIG = {
    "model": {"projection_dim": 128, "encoder": {"name": "cnn", "bias": True}},
    "recipe": {"learning_rate": 1e-3, "milestones": (2, 4), "gradient_clip": None},
    "terms": {},
}


def full_record() -> TrialRecord:
    return TrialRecord(
        trial={
            "study": "study",
            "arm": "conr",
            "trial_id": "t0",
            "role": "evaluation",
            "seed": 3,
            "status": "complete",
            "started_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        },
        config=CONFIG,
        metrics=[{"split": "test", "selection": "last", "region": "few", "metric": "r2", "value": math.nan, "n": 1}],
        epochs=[{"loss": 2.0, "val/all/mae": 5.0}, {"loss": 1.0}],
        predictions={
            "test": SplitPredictions(
                sample_ids=["a", "b"], labels=np.array([1.0, 2.0]), predictions=np.array([1.5, 2.5], np.float32)
            )
        },
    )


def test_a_written_record_is_read_back(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [full_record()])

    (trial,) = read_table(storage, "trials").to_pylist()
    assert (trial["arm"], trial["seed"], trial["best_epoch"]) == ("conr", 3, None)
    assert trial["started_at"] == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert read_table(storage, "epochs").to_pylist() == [
        {"trial_id": "t0", "epoch": 1, "name": "loss", "value": 2.0},
        {"trial_id": "t0", "epoch": 1, "name": "val/all/mae", "value": 5.0},
        {"trial_id": "t0", "epoch": 2, "name": "loss", "value": 1.0},
    ]
    assert read_table(storage, "predictions").to_pylist() == [
        {
            "trial_id": "t0",
            "split": "test",
            "sample_id": sample,
            "component": None,
            "label": label,
            "prediction": label + 0.5,
            "deviation": None,
        }
        for sample, label in (("a", 1.0), ("b", 2.0))
    ]


def test_an_undefined_metric_is_null(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [full_record()])

    assert read_table(storage, "metrics")["value"].to_pylist() == [None]


def test_configuration_leaves_are_typed_columns(tmp_path: Path) -> None:
    schema = read_table(write_study(tmp_path, [full_record()]), "trials").schema

    types = {field.name: field.type for field in schema if field.name.startswith("config.")}
    assert types == {
        "config.model.projection_dim": pa.int64(),
        "config.model.encoder.name": pa.string(),
        "config.model.encoder.bias": pa.bool_(),
        "config.recipe.learning_rate": pa.float64(),
        "config.recipe.milestones": pa.string(),
        "config.recipe.gradient_clip": pa.null(),
    }


def test_lists_in_a_configuration_are_json(tmp_path: Path) -> None:
    rows = read_table(write_study(tmp_path, [full_record()]), "trials")

    assert rows["config.recipe.milestones"].to_pylist() == ["[2, 4]"]


def test_every_table_has_its_schema_even_without_a_trial(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "study")

    assert {name: read_table(storage, name).schema for name in SCHEMAS} == SCHEMAS


def test_settings_with_integers_and_floats_are_doubles(tmp_path: Path) -> None:
    records = [
        record("a", 0, config={"x": 1}),
        record("a", 1, config={"x": 0.5}),
        record("a", 2, config={"y": "only here"}),
    ]
    rows = read_table(write_study(tmp_path, records), "trials")

    assert rows.schema.field("config.x").type == pa.float64()
    assert dict(zip(rows["trial_id"].to_pylist(), rows["config.x"].to_pylist(), strict=True)) == {
        "a-0": 1.0,
        "a-1": 0.5,
        "a-2": None,
    }


def test_a_trial_without_the_file_that_commits_is_not_recorded(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0), record("a", 1)])
    (tmp_path / "study/results/trials/a-1.parquet").unlink()

    assert set(read_table(storage, "metrics")["trial_id"].to_pylist()) == {"a-0"}
    assert read_statuses(storage) == {"a-0": "complete"}


def test_the_file_that_commits_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(Storage, "write", lambda self, name, content: written.append(name))

    write_record(Storage.open(tmp_path), full_record())

    assert [name.split("/")[1] for name in written] == ["metrics", "epochs", "predictions", "trials"]


def test_a_new_record_replaces_all_files_of_a_failed_one(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, status="failed", metrics=metric_rows(1.0))])
    assert read_statuses(storage) == {"a-0": "failed"}

    write_record(storage, record("a", 0, metrics=[]))

    assert read_statuses(storage) == {"a-0": "complete"}
    assert read_table(storage, "metrics").num_rows == 0


def test_files_with_other_columns_are_read(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    facts = {"study": "study", "trial_id": "old", "arm": "a", "role": "evaluation", "status": "failed", "gone": "x"}
    columns: dict[str, Any] = {name: [value] for name, value in facts.items()}
    old = pa.table({**columns, "seed": pa.array([7], pa.int32())})
    (tmp_path / "study/results/trials/old.parquet").write_bytes(encode_table(old))

    rows = read_table(storage, "trials").to_pylist()

    assert [(row["trial_id"], row["seed"], row["objective"], row["gone"]) for row in rows] == [
        ("a-0", 0, 5.0, None),
        ("old", 7, None, "x"),
    ]


@pytest.mark.parametrize(
    ("metadata", "version"),
    [({"dirtune.schema_version": "99"}, "99"), ({"dirtune.schema_version": "4"}, "4"), (None, "unknown")],
)
def test_files_of_another_version_are_refused(tmp_path: Path, metadata: dict[str, str] | None, version: str) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    path = tmp_path / "study/results/trials/a-0.parquet"
    pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata(metadata), path)

    with pytest.raises(InputError, match=rf"a-0.parquet: has schema version {version}, but this dirtune reads 5"):
        read_table(storage, "trials")


def test_all_damaged_files_are_named(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", seed) for seed in range(3)])
    folder = tmp_path / "study/results/metrics"
    (folder / "a-0.parquet").write_bytes(b"PAR1 no more")
    whole = (folder / "a-2.parquet").read_bytes()
    (folder / "a-2.parquet").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(InputError, match="damaged Parquet file") as caught:
        read_table(storage, "metrics")

    assert [Path(fault.where).name for fault in caught.value.faults] == ["a-0.parquet", "a-2.parquet"]


@pytest.mark.parametrize("table", ["trials", "metrics"])
def test_a_storage_error_is_no_damage_and_is_never_skipped(
    tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = write_study(tmp_path, [record("a", seed) for seed in range(3)])
    read = Storage.read

    def fail(self: Storage, name: str) -> bytes:
        if name == f"results/{table}/a-1.parquet":
            raise OSError(errno.EIO, "Input/output error", name)
        return read(self, name)

    monkeypatch.setattr(Storage, "read", fail)
    skipped: list[Fault] = []
    with pytest.raises(OSError, match="Input/output error: 'results/"):
        read_table(storage, table, on_damaged=skipped.append)
    assert not skipped
    # The cache can wait for the next sweep
    compact_if_outdated(storage)
    assert storage.list_files("results/compacted", suffix=f"{table}.parquet") == []


def test_a_storage_error_while_predictions_are_selected_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path, [record("a", 0)]).write("results/predictions/a-0.parquet", b"")

    def fail(storage: Storage, name: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error", name)

    monkeypatch.setattr(Storage, "read", fail)
    skipped: list[Fault] = []
    with pytest.raises(OSError, match="Input/output error"):
        scan_predictions(tmp_path, on_damaged=skipped.append)
    assert not skipped


@pytest.mark.parametrize("target", [None, "nowhere", "link.parquet"])
def test_a_record_that_is_no_file_is_refused(target: str | None, tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)], name="study")
    link = tmp_path / "study/results/trials/link.parquet"
    if target is None:
        link.mkdir()
    else:
        link.symlink_to(target)

    with pytest.raises(
        InputError, match=r"trials/link.parquet: must be a file, but is a folder or a link that leads to"
    ):
        read_table(tmp_path, "trials")


def test_temporary_files_of_a_crash_are_not_read(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    (tmp_path / "study/results/trials/.a-1.parquet.1234").write_bytes(b"half")

    assert read_statuses(storage) == {"a-0": "complete"}


def test_columns_can_be_selected_and_unknown_ones_are_skipped(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, config={"x": 1})])

    rows = read_table(storage, "trials", columns=["config.x", "arm", "nowhere"])

    assert rows.to_pylist() == [{"arm": "a", "trial_id": "a-0", "config.x": 1}]


def test_a_root_has_the_rows_of_all_its_studies(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_study(tmp_path, [record(name, 0)], name=name)

    assert read_table(tmp_path, "trials")["arm"].to_pylist() == ["one", "two"]
    assert read_table(tmp_path, "trials", studies=["two"])["arm"].to_pylist() == ["two"]


def test_metrics_of_a_run_in_two_studies_are_read_once(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0, trial_id="shared"), record("a", 1)], name="one")
    write_study(tmp_path, [record("b", 0, trial_id="shared"), record("b", 1)], name="two")

    assert sorted(read_table(tmp_path, "trials")["trial_id"].to_pylist()) == ["a-1", "b-1", "shared", "shared"]
    assert read_table(tmp_path, "metrics").num_rows == 3 * len(metric_rows(0.0))


def test_predictions_can_be_scanned_without_being_read(tmp_path: Path) -> None:
    write_study(tmp_path, [full_record()])
    (tmp_path / "study/results/predictions/uncommitted.parquet").write_bytes(b"never opened")

    dataset = scan_predictions(tmp_path)

    assert dataset.to_table(columns=["prediction"]).to_pydict() == {"prediction": [1.5, 2.5]}


def test_unknown_names_are_refused_and_known_ones_listed(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0)])

    with pytest.raises(InputError, match="unknown table, got 'trial'; known: epochs, metrics"):
        read_table(storage, "trial")
    with pytest.raises(InputError, match="unknown study, got 'studdy'; known: study"):
        read_table(tmp_path, "trials", studies=["studdy"])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"trial": {"trial_id": "t", "status": "complete", "color": "red"}}, "unknown columns"),
        ({"trial": {"trial_id": "t", "status": "running"}}, "status must be one of"),
        ({"config": {"a": {"b": object()}}}, "config.a.b must be plain data"),
        ({"metrics": [{"split": "test"}]}, "a row of metrics must have"),
    ],
)
def test_a_record_that_does_not_fit_the_schema_is_refused(
    tmp_path: Path, broken: dict[str, object], message: str
) -> None:
    parts = {"trial": {"trial_id": "t", "status": "complete"}, "config": {}, **broken}

    with pytest.raises(ValueError, match=message):
        write_record(Storage.open(tmp_path), TrialRecord(**parts))

    assert read_statuses(Storage.open(tmp_path)) == {}


def test_a_running_sweep_can_be_read(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "study")
    writer = threading.Thread(target=lambda: [write_record(storage, record("a", seed)) for seed in range(30)])
    writer.start()
    while writer.is_alive():
        metrics = read_table(storage, "metrics")
        assert metrics.num_rows % len(metric_rows(0.0)) == 0
    writer.join()
    assert len(read_statuses(storage)) == 30


def test_several_tables_have_the_same_trials_during_a_running_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = write_study(tmp_path, [record("a", seed) for seed in range(3)])

    read = Records.read

    def while_a_trial_ends(records: Records, table: str, *rest: Any) -> list[pa.Table]:
        rows = read(records, table, *rest)
        write_record(storage, record("late", len(rows), trial_id=f"late in {table}"))
        return rows

    monkeypatch.setattr(Records, "read", while_a_trial_ends)
    found = read_tables(storage, {"trials": ["arm"], "metrics": ["value"]})

    assert set(found["trials"].column_names) == {"trial_id", "arm"}
    for table in found.values():
        assert set(table["trial_id"].to_pylist()) == {"a-0", "a-1", "a-2"}
    assert len(read_statuses(storage)) == 5


def test_what_is_made_in_one_block_shows_the_same_trials_and_reads_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    compact(storage)
    write_record(storage, record("a", 1))
    reads: list[str] = []
    read = Storage.read
    monkeypatch.setattr(Storage, "read", lambda folder, name: reads.append(name) or read(folder, name))

    with read_once():
        first = read_table(storage, "trials", columns=["arm"])
        write_record(storage, record("a", 2))
        assert read_table(storage, "trials", columns=["seed"])["seed"].to_pylist() == [0, 1]
        assert read_table(tmp_path, "trials")["arm"].to_pylist() == first["arm"].to_pylist() == ["a", "a"]
        assert set(read_table(storage, "metrics")["trial_id"].to_pylist()) == {"a-0", "a-1"}

    folders = [name.split("/")[-2] for name in reads]
    assert sorted(folders) == ["compacted", "compacted", "metrics", "trials"]
    assert len(read_statuses(storage)) == 3


def test_results_open_as_pandas_frames(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [full_record()])

    results = dirtune.results.open(tmp_path)
    assert list(results.trials["arm"]) == ["conr"]
    assert list(results.predictions["prediction"]) == [1.5, 2.5]
    assert results.epochs["value"].sum() == 8.0
    assert results.metrics["value"].isna().all()

    write_record(storage, record("later", 0))
    assert sorted(results.trials["arm"]) == ["conr", "later"]


def test_opening_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no study"):
        dirtune.results.open(tmp_path)


def two_dimensional() -> SplitPredictions:
    labels = np.arange(6.0).reshape(3, 2)
    return SplitPredictions(sample_ids=["a", "b", "c"], labels=labels, predictions=labels * 10)


def test_predictions_of_two_dimensions_have_one_row_per_dimension(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [replace(full_record(), predictions={"val": two_dimensional()})])

    rows = read_table(storage, "predictions")

    assert rows.schema == SCHEMAS["predictions"]
    assert rows.drop_columns(["trial_id", "split"]).to_pydict() == {
        "sample_id": ["a", "a", "b", "b", "c", "c"],
        "component": [0, 1, 0, 1, 0, 1],
        "label": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "prediction": [0.0, 10.0, 20.0, 30.0, 40.0, 50.0],
        "deviation": [None] * 6,
    }


@pytest.mark.parametrize("split", ["val", "test"])
def test_stacked_predictions_have_the_shape_of_the_labels(tmp_path: Path, split: str) -> None:
    recorded_ = {"val": two_dimensional(), **full_record().predictions}
    storage = write_study(tmp_path, [replace(full_record(), predictions=recorded_)])

    rows = read_table(storage, "predictions")
    labels, predictions = stack_components(rows.filter(pc.equal(rows["split"], split)))

    np.testing.assert_array_equal(labels, recorded_[split].labels)
    np.testing.assert_array_equal(predictions, recorded_[split].predictions)


def test_predictions_without_the_column_component_have_one_dimension(tmp_path: Path) -> None:
    storage = write_study(
        tmp_path, [full_record(), replace(full_record(), trial={**full_record().trial, "trial_id": "t1"})]
    )
    path = tmp_path / "study/results/predictions/t0.parquet"
    path.write_bytes(encode_table(pq.ParquetFile(path).read().drop_columns(["component"])))

    old, new = (
        read_table(storage, "predictions").filter(pc.field("trial_id") == trial).drop_columns("trial_id")
        for trial in ("t0", "t1")
    )
    assert old.equals(new)
    assert stack_components(old)[1].tolist() == [1.5, 2.5]
    scanned = scan_predictions(tmp_path).to_table()
    assert (scanned["component"].null_count, scanned.num_rows) == (4, 4)
    assert read_statuses(storage) == {"t0": "complete", "t1": "complete"}


def test_labels_and_predictions_of_different_shapes_are_refused(tmp_path: Path) -> None:
    broken = replace(two_dimensional(), predictions=np.zeros(3))
    with pytest.raises(ValueError, match=r"of val must have one shape, got \(\(3, 2\), \(3,\)\)"):
        write_record(Storage.open(tmp_path), replace(full_record(), predictions={"val": broken}))


def test_results_open_as_arrow_tables_and_answer_sql(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0, 4.0), record("a", 1, 5.0)])
    results = dirtune.results.open(tmp_path)

    assert results.arrow("metrics").equals(read_table(storage, "metrics"))
    found = results.query("select mean from arms where region = 'all' and split = 'test' and selection = 'last'")
    assert found["mean"].tolist() == [4.5]
    with pytest.raises(InputError, match="unknown table, got 'metric'"):
        results.arrow("metric")


def test_the_view_of_arms_counts_evaluation_trials_only(tmp_path: Path) -> None:
    trials = [record("a", 0, 4.0, trial_id="tried", role="search"), record("a", 0, 5.0), record("a", 1, 6.0)]
    write_study(tmp_path, trials)
    results = dirtune.results.open(tmp_path)

    arms = "select n, mean from arms where region = 'all' and split = 'test' and selection = 'last'"
    assert results.query(arms).to_dict("records") == [{"n": 2, "mean": 5.5}]
    trials = results.query("select role, replicate, seed from trials order by trial_id").values.tolist()
    assert trials[:2] == [["evaluation", 0, 0], ["evaluation", 1, 1]]
    assert results.query("select trial_id from trials where role = 'search' and replicate is null").size == 1
