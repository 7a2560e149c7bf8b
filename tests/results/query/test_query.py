from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import dirtune.results.query.query as module
from dirtune.errors import InputError
from dirtune.results.query.query import query
from dirtune.results.records.schema import SplitPredictions, TrialRecord
from dirtune.results.records.store import read_tables
from tests.results.record_factory import OFFSETS, record, write_study

# A Python variable that no statement may reach
SECRET = pa.table({"a": [1]})

FORBIDDEN = [
    "COPY trials TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
    "EXPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/out.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SELECT * FROM read_csv('{folder}/secret.csv')",
    "SELECT * FROM read_text('{folder}/secret.csv')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_csv('https://example.org/x.csv')",
    "SELECT * FROM SECRET",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "CREATE SECRET (TYPE s3)",
    "IMPORT DATABASE '{folder}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{folder}/secret.csv')",
    "SELECT * FROM read_blob('{folder}/secret.csv')",
    "SELECT * FROM read_json('{folder}/secret.csv')",
    "SELECT * FROM sniff_csv('{folder}/secret.csv')",
    "SELECT * FROM parquet_metadata('{folder}/secret.csv')",
    "SELECT * FROM query_table('{folder}/secret.csv')",
    "SELECT * FROM query('SELECT * FROM read_text(''{folder}/secret.csv'')')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''{folder}/secret.csv'')'))",
    "SELECT * FROM enable_logging(storage='file', storage_path='{folder}/log')",
    "PRAGMA profiling_output = '{folder}/profile'",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two arms and three seeds, of which the second arm has one pruned; errors 5.0, 5.1, 5.2 and 4.0, 4.1."""
    records = [record("vanilla", seed, 5.0 + seed / 10) for seed in range(3)]
    records += [record("conr", seed, 4.0 + seed / 10, config={"omega": 1}) for seed in range(2)]
    records += [record("conr", 2, status="pruned", config={"omega": 0.5})]
    write_study(tmp_path / "results", records)
    return tmp_path / "results"


def test_the_example_of_the_documentation(root: Path) -> None:
    found = query(
        "select arm, avg(value) as few from metrics join trials using (trial_id) "
        "where split='test' and region='few' and selection='best_val' group by arm order by arm",
        root,
    )

    assert found.to_pydict() == {
        "arm": ["conr", "vanilla"],
        "few": pytest.approx([4.05 + OFFSETS["few"], 5.1 + OFFSETS["few"]]),
    }


def test_the_wide_view_has_one_row_per_trial_and_one_column_per_number(root: Path) -> None:
    found = query('select trial_id, "config.omega", "test.few.mae", "val.all.mae" from results', root)

    rows = {row.pop("trial_id"): row for row in found.to_pylist()}
    assert len(rows) == 6
    assert rows["conr-1"] == {"config.omega": 1.0, "test.few.mae": 6.1, "val.all.mae": 4.1}
    assert rows["conr-2"] == {"config.omega": 0.5, "test.few.mae": None, "val.all.mae": None}


def test_the_wide_view_shows_the_best_validation_epoch(tmp_path: Path) -> None:
    rows = [
        {"split": "test", "selection": selection, "region": "all", "metric": "mae", "value": value, "n": 1}
        for selection, value in (("last", 9.0), ("best_val", 3.0))
    ]
    write_study(tmp_path, [record("a", 0, metrics=rows)])

    assert query('select "test.all.mae" as v from results', tmp_path)["v"].to_pylist() == [3.0]


@pytest.mark.parametrize(
    "sql",
    [
        "from trials",
        "describe trials",
        "summarize metrics",
        "explain select * from trials",
        "pivot metrics on region using avg(value) group by metric",
        "select * from query('select * from trials')",
        'with t as (select * from "TRIALS") select * from t -- and a comment; with a semicolon',
    ],
)
def test_every_form_of_a_question_is_answered(root: Path, sql: str) -> None:
    assert query(sql, root).num_rows > 0


def test_predictions_are_asked_for_where_they_lie(tmp_path: Path) -> None:
    predictions = SplitPredictions(sample_ids=["a", "b"], labels=np.array([1.0, 2.0]), predictions=np.array([1.5, 4.0]))
    one = record("a", 0)
    write_study(tmp_path, [TrialRecord(trial=one.trial, config={}, predictions={"test": predictions}), record("a", 1)])

    found = query("select avg(abs(prediction - label)) as mae from predictions", tmp_path)

    assert found["mae"].to_pylist() == [1.25]


def test_only_the_tables_that_are_named_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def spy(source: Path, tables: dict[str, None], **options: Any) -> dict[str, pa.Table]:
        asked.extend(tables)
        return read_tables(source, tables, **options)

    monkeypatch.setattr(module, "read_tables", spy)
    query("select count(*) from Trials", root)

    assert asked == ["trials"]


def test_one_run_in_two_studies_is_not_counted_twice(root: Path) -> None:
    write_study(root, [record("vanilla", 0, 5.0)], name="other")
    sql = "select count(*) as n from metrics"

    assert query(sql, root)["n"].to_pylist() == query(sql, root, studies=["study"])["n"].to_pylist()
    assert query("select distinct arm from trials", root, studies=["other"]).num_rows == 1


def test_a_sweep_that_has_recorded_nothing_yet_gives_no_rows(tmp_path: Path) -> None:
    write_study(tmp_path, [], reference="a")

    assert query("select * from results", tmp_path).num_rows == 0
    assert query("select * from predictions", tmp_path).num_rows == 0


def test_a_half_written_trial_is_not_seen(root: Path) -> None:
    (root / "study/results/trials/vanilla-2.parquet").unlink()

    found = query("select distinct trial_id from metrics where trial_id like 'van%' order by 1", root)
    assert found["trial_id"].to_pylist() == ["vanilla-0", "vanilla-1"]


def test_an_empty_root_and_an_unknown_study_are_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="holds no study"):
        query("select 1", tmp_path / "nowhere")
    with pytest.raises(InputError, match="unknown study, got 'x'; known: study"):
        query("select 1", root, studies=["x"])


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "select sed from trials",
            'Referenced column "sed" not found in FROM clause; seed is a column of trials, curves',
        ),
        ("select region from trials", "region is a column of metrics, floors, arms"),
        ("select zzzz from trials", "`describe TABLE` has the columns of metrics, "),
        ("select t.objectiv from trials t", "objective is a column of trials"),
        ("select * from trails", "Table with name trails does not exist; tables: metrics, "),
        ("select arm frm trials where", 'syntax error at or near "trials" (LINE 1: '),
        ("selec 1", 'syntax error at or near "selec" (LINE 1: selec 1)'),
    ],
)
def test_an_sql_error_is_one_line_with_near_names(root: Path, sql: str, expected: str) -> None:
    with pytest.raises(InputError, match="Error: ") as caught:
        query(sql, root)

    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert len(message) < 300
    assert query("describe trials", root)["column_name"].to_pylist()[:2] == ["study", "arm"]


@pytest.mark.parametrize("sql", ["", "select 1; select 2", "create table x as select 1", "drop view trials"])
def test_only_a_single_question_is_answered(root: Path, sql: str) -> None:
    with pytest.raises(InputError, match="must be one SELECT statement"):
        query(sql, root)


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_nothing_outside_is_reached_by_a_query(root: Path, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(InputError, match="query: "):
        query(sql.format(folder=tmp_path), root)

    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def sealed() -> Iterator[duckdb.DuckDBPyConnection]:
    tables = {name: schema.empty_table() for name, schema in module.SCHEMAS.items()}
    with module.open_sealed(tables) as database:
        yield database


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_the_database_itself_is_sealed_whatever_statements_get_through(
    sealed: duckdb.DuckDBPyConnection, tmp_path: Path, sql: str
) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")

    with pytest.raises(duckdb.Error):
        sealed.execute(sql.format(folder=tmp_path))

    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_a_damaged_file_is_named(root: Path) -> None:
    (root / "study/results/metrics/conr-0.parquet").write_bytes(b"damaged")

    assert query("select count(*) as n from trials", root)["n"].to_pylist() == [6]
    with pytest.raises(InputError, match=r"conr-0.parquet: damaged Parquet file"):
        query("select * from metrics", root)


def test_damaged_predictions_are_named(root: Path) -> None:
    storage = write_study(root, [record("a", 0)], name="other")
    storage.write("results/predictions/a-0.parquet", b"damaged")

    with pytest.raises(InputError, match=r"a-0.parquet"):
        query("select * from predictions", root)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('https://example.org/x.csv')",
        "SELECT * FROM glob('/*')",
        "COPY trials TO '/tmp/out.csv'",
        "INSTALL httpfs",
        "ATTACH '/tmp/out.db'",
    ],
)
def test_what_would_reach_out_is_refused_with_one_sentence(root: Path, sql: str) -> None:
    with pytest.raises(InputError, match=r"query: (reaches the results alone|must be one SELECT)") as error:
        query(sql, root)

    assert len(error.value.faults) == 1
    assert "\n" not in str(error.value)


def test_a_limit_holds_for_every_form_of_question(root: Path) -> None:
    for sql in ("from metrics", "describe trials", "select 1 union all select 2 -- a comment"):
        assert query(sql, root, limit=1).num_rows == 1
    assert query("from trials", root, limit=100).num_rows == 6
    assert query("from trials", root, limit=0).column_names[0] == "study"


def test_a_statement_that_takes_too_long_is_stopped(root: Path) -> None:
    endless = "select sum(a.range * b.range) from range(1000000000) a, range(1000000000) b"

    with pytest.raises(InputError, match=r"^query: took longer than 0.1 seconds$"):
        query(endless, root, timeout=0.1)
    assert query("select count(*) as n from trials", root, timeout=60)["n"].to_pylist() == [6]


def test_damaged_files_are_left_out_when_asked_and_each_is_named(tmp_path: Path) -> None:
    predictions = SplitPredictions(sample_ids=["a"], labels=np.array([1.0]), predictions=np.array([1.5]))
    records = [
        TrialRecord(trial=one.trial, config={}, metrics=one.metrics, predictions={"test": predictions})
        for one in (record("a", seed) for seed in range(3))
    ]
    storage = write_study(tmp_path, records)
    for table, trial in (("trials", "a-0"), ("metrics", "a-1"), ("predictions", "a-2")):
        storage.write(f"results/{table}/{trial}.parquet", b"damaged")
    named: list[str] = []

    def left(sql: str) -> list[object]:
        found = query(sql, tmp_path, on_damaged=lambda fault: named.append(fault.where))
        return found.column(0).to_pylist()

    assert left("select trial_id from trials order by 1") == ["a-1", "a-2"]
    assert left("select distinct trial_id from metrics order by 1") == ["a-0", "a-2"]
    assert left("select trial_id from predictions order by 1") == ["a-0", "a-1"]
    assert [name.split("results/")[-1] for name in named] == [
        "trials/a-0.parquet",
        "metrics/a-1.parquet",
        "predictions/a-2.parquet",
    ]


def test_a_damaged_cache_costs_no_rows_when_damaged_files_are_left_out(root: Path) -> None:
    (root / "study/results/compacted").mkdir()
    (root / "study/results/compacted/trials.parquet").write_bytes(b"damaged")
    named: list[str] = []

    found = query("from trials", root, on_damaged=lambda fault: named.append(fault.where))

    assert found.num_rows == 6
    assert [Path(name).name for name in named] == ["trials.parquet"]


def test_ctrl_c_ends_a_long_statement(root: Path) -> None:
    sql = "select count(*) from range(1000000000) a, range(1000000000) b where a.range + b.range = 7"
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        query(sql, root)
    assert time.monotonic() - start < 20
    timer.join()
