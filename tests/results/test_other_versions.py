"""Results folders that another version of dirtune has written: the right value, or one sentence.

Run with `pytest tests/results/test_other_versions.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records import parquetfile, schema
from tests.results.record_factory import record, write_study

ARMS = ("vanilla", "conr")
CALLS: dict[str, Callable[[], object]] = {
    "table": lambda: str(dirtune.table("study")),
    "check": lambda: dirtune.check("study"),
    "report": lambda: dirtune.report("study"),
    "compact": lambda: dirtune.compact("study"),
    "status": lambda: dirtune.status("study").done,
    "trials": lambda: dirtune.query("select arm, seed, status from trials order by all"),
    "metrics": lambda: dirtune.query("select avg(value) from metrics"),
    "arms": lambda: dirtune.query("select * from arms order by all"),
    "epochs": lambda: dirtune.query("select * from epochs"),
    "predictions": lambda: dirtune.query("select sum(prediction), count(deviation) from predictions"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder in the results of the working directory, with rows in every table."""
    monkeypatch.chdir(tmp_path)
    epochs = [{"train/loss": 1.0, "val/all/mae": 3.0}, {"train/loss": 0.5, "val/all/mae": 2.0}]
    samples = {
        split: schema.SplitPredictions(sample_ids=["a", "b"], labels=[1.0, 2.0], predictions=[1.5, 2.5])
        for split in ("val", "test")
    }
    records = [
        schema.TrialRecord(**{**vars(record(arm, seed)), "epochs": epochs, "predictions": samples})
        for arm in ARMS
        for seed in (0, 1)
    ]
    write_study(tmp_path / "results", records, arms=ARMS, reference="vanilla")
    return tmp_path / "results/study"


def rewrite(folder: Path, table: str, change: Callable[[pa.Table], pa.Table], *, version: int | None = None) -> None:
    """Write the files of a table once more, as another version would."""
    with pytest.MonkeyPatch.context() as patch:
        for file in (folder / "results" / table).glob("*.parquet"):
            (rows,) = parquetfile.read_files(Storage.open(folder), [f"results/{table}/{file.name}"])
            patch.setattr(parquetfile, "SCHEMA_VERSION", version or schema.SCHEMA_VERSION)
            file.write_bytes(parquetfile.encode_table(change(rows)))


def run_all(names: Iterable[str] = CALLS) -> dict[str, str]:
    """Return the sentence of each call that fails; another error than an InputError is one of the test."""
    sentences = {}
    for name in names:
        try:
            CALLS[name]()
        except InputError as error:
            sentences[name] = str(error)
    return sentences


@pytest.mark.parametrize("table", ["trials", "metrics", "epochs", "predictions"])
def test_columns_that_are_missing_are_null_or_a_sentence(folder: Path, table: str) -> None:
    assert run_all() == {}
    compared = ("trials", "metrics", "arms", "epochs", "status")
    expected = {name: str(CALLS[name]()) for name in compared}
    required = [[column] for column in schema.REQUIRED_COLUMNS[table]]
    optional = [column for column in schema.SCHEMAS[table].names if [column] not in required]
    for columns in [*required, *(optional[first : first + 6] for first in range(0, len(optional), 6))]:
        before = {file: file.read_bytes() for file in (folder / "results" / table).iterdir()}
        rewrite(folder, table, lambda rows, columns=columns: rows.drop_columns(columns))
        (folder / "results/compacted/trials.parquet").unlink(missing_ok=True)
        (folder / "results/compacted/metrics.parquet").unlink(missing_ok=True)
        # The figures of a report take longest, and have no columns of their own.
        sentences = run_all(name for name in CALLS if columns == required[0] or name != "report")
        if columns in required:
            assert sentences, columns
            rule = f"lacks columns of the table {table!r}: {columns[0]}; so do 3 other files"
            assert {sentence.partition(": ")[2] for sentence in sentences.values()} == {rule}
        else:
            assert sentences == {}, columns
            assert {name: str(CALLS[name]()) for name in compared} == expected, columns
        for file, content in before.items():
            file.write_bytes(content)


@pytest.mark.parametrize("table", ["trials", "metrics", "epochs", "predictions"])
@pytest.mark.parametrize(("version", "advice"), [(4, ""), (6, "; it was written by a newer dirtune")])
def test_another_schema_version_is_one_sentence(folder: Path, table: str, version: int, advice: str) -> None:
    rewrite(folder, table, lambda rows: rows, version=version)
    sentences = run_all()
    assert table in sentences
    rule = f"has schema version {version}, but this dirtune reads 5{advice}; so do 3 other files"
    assert {sentence.partition(": ")[2] for sentence in sentences.values()} == {rule}


def test_a_further_column_of_trials_is_one_of_the_query(folder: Path) -> None:
    rewrite(folder, "trials", lambda rows: rows.append_column("of_tomorrow", pa.array(["x"])))
    assert run_all() == {}
    assert dirtune.query("select distinct of_tomorrow from trials").values.tolist() == [["x"]]


def test_a_further_column_of_another_table_is_one_sentence(folder: Path) -> None:
    for table in ("metrics", "epochs", "predictions"):
        rewrite(folder, table, lambda rows: rows.append_column("of_tomorrow", pa.nulls(rows.num_rows, pa.string())))
    sentences = run_all()
    assert {"table", "metrics", "epochs", "predictions", "arms", "report"} <= sentences.keys()
    for sentence in sentences.values():
        assert "has not the columns of the table" in sentence
        assert sentence.endswith("got ['of_tomorrow']; so do 3 other files")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("seed", None, "record of trial conr-0: seed: is missing"),
        ("status", None, "record of trial conr-0: status: is missing"),
        ("arm", None, "record of trial conr-0: arm: is missing"),
        ("cell", "no JSON", "records of arm 'vanilla': cell: must be a JSON object, got 'no JSON'"),
        ("cell", "[1]", "records of arm 'vanilla': cell: must be a JSON object, got '[1]'"),
    ],
)
def test_a_record_without_what_no_trial_lacks_is_a_sentence(
    folder: Path, column: str, value: Any, message: str
) -> None:
    place, kind = schema.SCHEMAS["trials"].names.index(column), schema.SCHEMAS["trials"].field(column).type
    rewrite(folder, "trials", lambda rows: rows.set_column(place, column, pa.array([value], kind)))
    sentences = run_all()
    assert sentences.keys() >= {"table", "check", "report"}
    assert {sentence.splitlines()[0] for sentence in sentences.values()} == {message}


@pytest.mark.parametrize("status", ["paused", "failed"])
def test_a_status_of_another_version_is_an_incomplete_trial(folder: Path, status: str) -> None:
    place = schema.SCHEMAS["trials"].names.index("status")
    rewrite(folder, "trials", lambda rows: rows.set_column(place, "status", pa.array([status])))
    assert run_all() == {} or all("no trial" in sentence for sentence in run_all().values())
    assert len(dirtune.query("select * from trials where status = 'complete'")) == 0


def test_newer_provenance_and_keys_of_a_study_are_left_alone(folder: Path) -> None:
    expected = str(dirtune.table("study"))
    plain = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**plain, "of_tomorrow": {"a": [1]}}))
    (folder / "provenance.json").write_text(json.dumps({"code_version": "99.0", "libraries": {"new": None}, "x": 1}))
    assert run_all() == {}
    assert str(dirtune.table("study")) == expected
