from __future__ import annotations

import csv
import io
import json
import math
import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dirtune.errors import InputError
from dirtune.results.query.formats import format_table, save_table
from dirtune.results.query.query import query
from tests.results.record_factory import record, write_study

MIXED = pa.table({"arm": ["a|b", None], "value": [1 / 3, float("nan")], "n": pa.array([1, None], pa.int64())})


def test_csv_has_every_digit_and_nothing_for_null() -> None:
    rows = list(csv.reader(io.StringIO(format_table(MIXED, "csv"))))

    assert rows == [["arm", "value", "n"], ["a|b", repr(1 / 3), "1"], ["", "nan", ""]]


def test_json_is_valid_and_has_null_for_undefined_numbers() -> None:
    assert json.loads(format_table(MIXED, "json")) == [
        {"arm": "a|b", "value": 1 / 3, "n": 1},
        {"arm": None, "value": None, "n": None},
    ]


def test_markdown_escapes_what_would_break_the_table() -> None:
    assert format_table(MIXED, "markdown").split("\n") == [
        "| arm | value | n |",
        "| --- | ---: | ---: |",
        "| a\\|b | 0.333333 | 1 |",
        "|  | nan |  |",
    ]


def test_the_terminal_table_is_never_folded() -> None:
    wide = pa.table({"text": ["x" * 500], "[bold]": [2.0]})

    lines = format_table(wide).split("\n")

    assert any("x" * 500 in line for line in lines)
    assert "[bold]" in lines[0]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="unknown format, got 'xml'; known: csv, json, markdown, parquet, table"):
        format_table(MIXED, "xml")


def test_times_are_shown_in_every_format(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])
    found = query("select timestamptz '2026-01-02 03:04:05+00' as t", tmp_path)

    for style in ("table", "csv", "json", "markdown"):
        assert "2026-01-02 03:04:05+00:00" in format_table(found, style)


def test_parquet_is_not_text() -> None:
    with pytest.raises(InputError, match=r"parquet is not text: give a file"):
        format_table(MIXED, "parquet")


def test_a_parquet_file_has_every_value_and_type(tmp_path: Path) -> None:
    file = save_table(MIXED, tmp_path / "deeper" / "answer.parquet")

    assert pq.read_table(file).schema == MIXED.schema
    assert str(pq.read_table(file).to_pylist()) == str(MIXED.to_pylist())


@pytest.mark.parametrize(
    ("name", "format", "form"),
    [
        ("a.csv", None, "csv"),
        ("a.json", None, "json"),
        ("a.md", None, "markdown"),
        ("a.txt", None, "table"),
        ("a.csv", "csv", "csv"),
        ("a.txt", "json", "json"),
        ("a", "markdown", "markdown"),
    ],
)
def test_a_text_file_has_the_format_asked_for_or_that_of_its_suffix(
    tmp_path: Path, name: str, format: str | None, form: str
) -> None:
    file = save_table(MIXED, tmp_path / name, format)

    assert file.read_text() == f"{format_table(MIXED, form)}\n"


def test_a_suffix_without_a_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown suffix, got '.xlsx'; known: .csv, .json"):
        save_table(MIXED, tmp_path / "a.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "format"), [("a.json", "csv"), ("a.parquet", "json"), ("a.txt", "parquet")])
def test_a_format_that_is_not_that_of_the_suffix_is_refused(tmp_path: Path, name: str, format: str) -> None:
    with pytest.raises(InputError, match=f"the suffix {Path(name).suffix} is that of .*, got '{format}'"):
        save_table(MIXED, tmp_path / name, format)
    assert not list(tmp_path.iterdir())


def test_values_inside_of_others_are_written_as_those_alone() -> None:
    pairs = pa.map_(pa.string(), pa.decimal128(3, 0))
    nested = pa.table(
        {"l": [[1.0, math.inf]], "s": [{"x": Decimal("1.10")}], "m": pa.array([[("a", Decimal(3))]], pairs)}
    )
    assert json.loads(format_table(nested, "json")) == [{"l": [1.0, "inf"], "s": {"x": 1.1}, "m": [["a", 3]]}]
    assert "Decimal" not in format_table(nested, "csv")


def test_infinite_numbers_are_not_null_in_json() -> None:
    numbers = pa.table({"x": [math.nan, math.inf, -math.inf, None, 1.5]})
    found = [row["x"] for row in json.loads(format_table(numbers, "json"))]
    assert found == [None, "inf", "-inf", None, 1.5]


def test_bytes_are_written_as_duckdb_shows_them() -> None:
    content = pa.table({"b": [b"\x00ab\\"]})
    assert json.loads(format_table(content, "json")) == [{"b": r"\x00ab\x5C"}]
    assert format_table(content, "csv") == "b\n" + r"\x00ab\x5C"


def test_times_that_python_cannot_hold_are_texts() -> None:
    times = pa.table({"d": pa.array([-736000], pa.date32()), "t": pa.array([2**63 - 1], pa.timestamp("us"))})
    for form in ("csv", "json", "markdown", "table"):
        assert "-0046-11-26" in format_table(times, form)


def test_columns_of_one_name_are_numbered_in_every_format(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])
    found = query(
        "select t.arm as x, m.metric as x, 1 as x_2, m.* from trials t join metrics m using (trial_id)", tmp_path
    )
    assert len(set(found.column_names)) == len(found.column_names)
    assert found.column_names[:3] == ["x", "x_2", "x_2_2"]
    (first, *_) = json.loads(format_table(found, "json"))
    assert (first["x"], first["x_2"], first["x_2_2"]) == ("a", "mae", 1)
    both = "select * from trials t join metrics m on t.trial_id = m.trial_id"
    assert {"trial_id", "trial_id_2"} <= set(query(both, tmp_path).column_names)
    saved = save_table(found, tmp_path / "a.parquet")
    assert pq.read_table(saved).column_names == found.column_names


def test_sums_and_decimals_are_numbers(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", seed) for seed in range(3)])
    sql = (
        "select sum(seed) e, sum(case when status = 'complete' then 1 else 0 end) done, 100.0 * count(*) p, 0.10 d, "
        "sum(9223372036854775807::hugeint) big, 1e30 f, 12.50::decimal(9, 2) t from trials"
    )
    found = query(sql, tmp_path)
    (row,) = json.loads(format_table(found, "json"))
    assert row == {"e": 3, "done": 3, "p": 300.0, "d": 0.1, "big": 3 * 9223372036854775807, "f": 1e30, "t": 12.5}
    (line,) = csv.DictReader(io.StringIO(format_table(found, "csv")))
    assert {name: float(text) for name, text in line.items()} == {name: float(value) for name, value in row.items()}


def test_intervals_are_durations_in_every_format(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])
    found = query("select interval '26.5 seconds' + interval '2 days' took, null::interval no from trials", tmp_path)
    seconds = 2 * 86400 + 26.5
    assert json.loads(format_table(found, "json")) == [{"took": seconds, "no": None}]
    assert format_table(found, "csv") == f"took,no\n{seconds},"
    (read,) = pq.read_table(save_table(found, tmp_path / "took.parquet"))["took"].to_pylist()
    assert read.total_seconds() == seconds
    between = "select timestamp '2026-01-02 03:00:00' - timestamp '2026-01-01 00:00:01' took from trials"
    assert json.loads(format_table(query(between, tmp_path), "json")) == [{"took": 97199.0}]
    with pytest.raises(InputError, match="took: an interval of months or years has no fixed length"):
        query("select interval '1 month' took from trials", tmp_path)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("(2 ** 127)::uhugeint", "UHUGEINT"),
        ("'101'::bit", "BIT"),
        ("list(finished_at - started_at)", "INTERVAL[]"),
        ("{'a': [1::uhugeint]}", "STRUCT(a UHUGEINT[])"),
        ("'12:00:00+02'::timetz", "TIME WITH TIME ZONE"),
    ],
)
def test_types_whose_values_arrow_would_change_are_refused(tmp_path: Path, value: str, kind: str) -> None:
    write_study(tmp_path, [record("a", 0)])
    with pytest.raises(InputError, match=re.escape(f"x: values of the type {kind} cannot be returned; cast them")):
        query(f"select {value} x from trials", tmp_path)
    assert query("select '101'::bit::text x from trials", tmp_path).column("x").to_pylist() == ["101"]


def test_cells_that_spreadsheets_would_run_are_defused_in_csv() -> None:
    table = pa.table({"=arm": ["=1+1", "@SUM(A1)", "-x", "+x", "\tx", "a=b", "β"], "n": [-1.5, -1, 0, 1, 2, 3, 4]})
    lines = format_table(table, "csv").split("\n")
    assert lines[0] == "'=arm,n"
    assert [line.rpartition(",")[0] for line in lines[1:]] == ["'=1+1", "'@SUM(A1)", "'-x", "'+x", "'\tx", "a=b", "β"]
    assert lines[1].endswith(",-1.5")
