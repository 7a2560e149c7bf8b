"""Run with `pytest tests/pipelines/test_sheets.py`."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.pipelines.sheets import Sheet, TextFormat, find_data_file, read_sheet


def _sheet(folder: Path, text: str, name: str = "a.csv", **settings: object) -> Sheet:
    (folder / name).write_text(text)
    return read_sheet(folder / name, TextFormat(**settings))


def _faults(sheet: Sheet, found: list[object]) -> list[str]:
    return [str(fault).removeprefix(f"{sheet.path}") for fault in found]


def test_cells_of_text_files_stay_as_they_are_written(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, 'id,text\n007,"a ""b"", c"\n1e3,NA\n')
    assert sheet.read_texts("id").tolist() == ["007", "1e3"]
    assert sheet.read_texts("text").tolist() == ['a "b", c', "NA"]


def test_in_tsv_files_quotes_are_text_by_default(tmp_path: Path) -> None:
    assert _sheet(tmp_path, 'a\tb\n"x\t1\n', "a.tsv").read_texts("a").tolist() == ['"x']
    assert _sheet(tmp_path, 'a\tb\n"x"\t1\n', "a.tsv", quoted=True).read_texts("a").tolist() == ["x"]


def test_another_delimiter_can_be_given(tmp_path: Path) -> None:
    assert _sheet(tmp_path, "a;b\n1;2\n", delimiter=";").read_numbers("b").tolist() == [2.0]


def test_rows_are_counted_as_in_the_file_past_blank_and_unreadable_ones(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, 'a,b\n1,2\n3\n"x\ny",5\n\n6,7,8\n9,10\n')
    assert sheet.row_numbers.tolist() == [2, 4, 7]
    assert _faults(sheet, sheet.unreadable) == [":3: must have 2 cells, got 1", ":6: must have 2 cells, got 3"]


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.5, None], "b": [True, False]}).to_parquet(tmp_path / "a.parquet")
    sheet = read_sheet(tmp_path / "a.parquet")
    assert sheet.read_numbers("b").tolist() == [1.0, 0.0]
    sheet.read_numbers("a")
    assert _faults(sheet, sheet.faults) == [":2: a: the cell is empty"]


@pytest.mark.parametrize(("cell", "value"), [("1", 1.0), (" -2.5 ", -2.5), ("+.5e1", 5.0), ("3.", 3.0), ("1E-2", 0.01)])
def test_numbers_are_read_in_their_usual_forms(tmp_path: Path, cell: str, value: float) -> None:
    assert _sheet(tmp_path, f"a\n{cell}\n1\n").read_numbers("a")[0] == value


def test_every_cell_that_is_no_number_is_one_fault(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, "a,b\n1,x\nhigh,x\n,x\nnan,x\n1_0,x\n2,x\n3,x\n1e999,x\n4,x\n")
    numbers = sheet.read_numbers("a")
    expected = [1, math.nan, math.nan, math.nan, math.nan, 2, 3, math.nan, 4]
    np.testing.assert_array_equal(numbers, expected)
    assert _faults(sheet, sheet.faults) == [
        ":3: a: must be a finite number, got 'high'",
        ":4: a: the cell is empty",
        ":5: a: must be a finite number, got 'nan'",
        ":6: a: must be a finite number, got '1_0'",
        ":9: a: must be a finite number, got '1e999'",
    ]


def test_a_column_of_texts_is_one_fault_that_skip_bad_does_not_cover(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, "a\nx\ny\n1\n")
    sheet.read_numbers("a", hint="; name it elsewhere")
    with pytest.raises(InputError) as caught:
        sheet.select_usable(skip_bad=100)
    assert _faults(sheet, caught.value.faults) == [": a: most cells are not numbers; name it elsewhere, got 'x'"]


def test_a_column_of_another_kind_is_named_with_its_type(tmp_path: Path) -> None:
    frame = pd.DataFrame({"day": pd.to_datetime(["2020-01-01"]), "many": [[1, 2]]})
    frame.to_parquet(tmp_path / "a.parquet")
    sheet = read_sheet(tmp_path / "a.parquet")
    sheet.read_numbers("day")
    sheet.read_texts("many")
    assert [fault.key for fault in sheet.column_faults] == ["day", "many"]
    assert "timestamp" in sheet.column_faults[0].rule
    assert "list" in sheet.column_faults[1].rule


def test_texts_of_every_parquet_form_are_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.Categorical(["x", "y"]), "b": [1, 2], "c": ["x", None]})
    frame.to_parquet(tmp_path / "a.parquet")
    sheet = read_sheet(tmp_path / "a.parquet")
    assert sheet.read_texts("a").tolist() == ["x", "y"]
    assert sheet.read_texts("b").tolist() == ["1", "2"]
    assert sheet.read_texts("c").tolist() == ["x", ""]
    assert _faults(sheet, sheet.faults) == [":2: c: the cell is empty"]


def test_missing_and_doubly_used_columns_are_all_named(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, "strength,age\n1,2\n")
    with pytest.raises(InputError) as caught:
        sheet.require({"label": "strenght", "id": "age", "group": "age", "split_column": None})
    assert _faults(sheet, caught.value.faults) == [
        ": label: no such column, got 'strenght'; known: age, strength (did you mean 'strength'?)",
        ": group: the column is 'id' already, got 'age'",
    ]


def test_as_many_bad_rows_as_allowed_are_left_out_and_noted(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, "a,b\n1,1\nx,y\n3,3\n4\n5,5\n6,6\n")
    sheet.read_numbers("a")
    sheet.read_numbers("b")
    with pytest.raises(InputError) as caught:
        sheet.select_usable(skip_bad=1)
    assert len(caught.value.faults) == 3 + 1
    assert caught.value.faults[3].rule == "skip_bad=2 leaves out the rows that cannot be used"
    assert sheet.select_usable(skip_bad=2).tolist() == [0, 2, 3, 4]
    assert sheet.notes == [
        "rows that cannot be used, left out: 2",
        f"left out: {sheet.path}:5: must have 2 cells, got 1",
        f"left out: {sheet.path}:3: a: must be a finite number, got 'x'",
        f"left out: {sheet.path}:3: b: must be a finite number, got 'y'",
    ]


def test_of_many_faults_twenty_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, "a\n" + "x\n" * 30 + "1\n" * 31)
    sheet.read_numbers("a")
    with pytest.raises(InputError) as caught:
        sheet.select_usable(skip_bad=29)
    assert len(caught.value.faults) == 21
    assert caught.value.faults[20].rule == (
        "30 faults in all, 10 of them not shown; skip_bad=30 leaves out the rows that cannot be used"
    )
    assert len(sheet.notes) == 0 + 1 + 20


def test_a_sheet_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row can be used"):
        _sheet(tmp_path, "a,b\n").select_usable(skip_bad=5)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "cannot be read"),
        (
            b"a\n\xff\n",
            "is not text in utf-8 .line 2.; choose its encoding, such as `--option text_encoding=cp1252` or `--option text_encoding=latin-1`",
        ),
        ("a\n1\n".encode("utf-16"), "is not text in utf-8 .line 1.; .*encoding=utf-16`"),
        ("a\n1\n".encode("utf-16-le"), "has null characters .`--option text_encoding=utf-16"),
        (b"a,a\n1,2\n", "two columns have this name, got 'a'"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=rule):
        read_sheet(tmp_path / "a.csv")


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read"):
        read_sheet(tmp_path / "a.parquet")


def test_the_only_table_of_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.CSV").write_text("a\n1\n")
    (tmp_path / "readme.txt").write_text("")
    assert find_data_file("table", tmp_path).path == (tmp_path / "a.CSV").resolve()
    (tmp_path / "b.tsv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"must be one file of .*, got \['a.CSV', 'b.tsv'\]"):
        find_data_file("table", tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"table: raw: needs a file .*`dirtune ingest table --raw"):
        find_data_file("table", None)
    with pytest.raises(InputError, match="no such file or folder"):
        find_data_file("table", tmp_path / "none.csv")
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(InputError, match=r"must be one file of \.csv, .*got 'a.xlsx'"):
        find_data_file("table", tmp_path / "a.xlsx")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "cp1252"])
def test_headers_and_cells_are_read_in_the_given_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("Größe,Ort\n1,Köln\n".encode(encoding))
    sheet = read_sheet(tmp_path / "a.csv", TextFormat(text_encoding=encoding.removesuffix("-sig")))
    assert sheet.table.to_pydict() == {"Größe": ["1"], "Ort": ["Köln"]}


@pytest.mark.parametrize(
    ("settings", "cells", "values"),
    [
        ({"decimal": ","}, ["54,70", "-0,5", ",5e1", "7"], [54.7, -0.5, 5.0, 7.0]),
        ({"decimal": ",", "thousands": "."}, ["1.234,5", "1.234", "12", "0,25"], [1234.5, 1234.0, 12.0, 0.25]),
        ({"thousands": ","}, ["54,700", "1,054,700.5", "-12", ".5"], [54700.0, 1054700.5, -12.0, 0.5]),
        ({"thousands": "space"}, ["54\u00a0700", "1 054 700", "9", "\u202f8"], [54700.0, 1054700.0, 9.0, 8.0]),
        ({"symbols": "%$"}, ["54 %", "-7%"], [54.0, -7.0]),
        ({"symbols": "%$"}, ["$7", "-$1.5", "$ -2", "0"], [7.0, -1.5, -2.0, 0.0]),
        ({"thousands": "'"}, ["54\u2019700.5", "1'054'700"], [54700.5, 1054700.0]),
        ({}, ["\u22121.5", "\u00a02\u00a0", "1e\u22123", "+4"], [-1.5, 2.0, 0.001, 4.0]),
        # Dashes and hyphens that a text processor writes for a minus
        ({}, ["\u20131.5", "\u20102", "\u20113", "\uff0d4"], [-1.5, -2.0, -3.0, -4.0]),
        ({"thousands": ","}, ["12,34,567.5", "-1,00,000", "54,700"], [1234567.5, -100000.0, 54700.0]),
    ],
)
def test_numbers_are_read_as_the_options_describe_them(
    tmp_path: Path, settings: dict[str, str], cells: list[str], values: list[float]
) -> None:
    sheet = _sheet(tmp_path, "a\n" + "".join(f'"{cell}"\n' for cell in cells), **settings)
    assert sheet.read_numbers("a").tolist() == values
    assert not sheet.faults


@pytest.mark.parametrize(
    ("settings", "cell"),
    [
        ({"decimal": ","}, "1.5"),
        ({"decimal": ",", "thousands": "."}, "1.5"),
        ({"thousands": ","}, "1,23"),
        ({"thousands": ","}, "1234,567"),
        ({"symbols": "%"}, "5%5"),
        ({"symbols": "%"}, "%"),
    ],
)
def test_numbers_of_another_form_are_faults_and_not_other_numbers(
    tmp_path: Path, settings: dict[str, str], cell: str
) -> None:
    sheet = _sheet(tmp_path, f'a\n1\n"{cell}"\n2\n', **settings)
    sheet.read_numbers("a")
    assert [fault.got for fault in sheet.faults] == [cell]


@pytest.mark.parametrize(
    ("cells", "remedy"),
    [
        (["54,70", "0,125", "1,5"], "(they have decimal commas: decimal=,)"),
        (["54,700", "1,054,700"], "(they have commas between thousands: thousands=,)"),
        (["54,700", "12,500"], "(decimal=,) or between thousands (thousands=,)"),
        (["1.234,5", "2.000,1"], "decimal=, thousands=."),
        (["1 234", "2 000,1"], "thousands=space"),
        (["5 %", "7 %"], "symbols='%'"),
        (["$5", "$7.5"], "symbols='$'"),
        (["[1, 2]", "[3, 4]"], "lists"),
        (["1.234.567", "5.774.000"], "points between thousands: decimal=, thousands=."),
        (["5\u2019774.0", "1\u2019000"], 'thousands="\'"'),
        (["(5.5)", "($7)"], "parentheses, which mean negative numbers"),
        (["<5", "<7"], "most cells are not numbers; name it elsewhere"),
        (["", " "], "all cells are empty"),
        (["red", "blue"], "most cells are not numbers; name it elsewhere"),
        (
            ["$1,200.50", "-$7,000"],
            "(symbols='$' removes the symbols; they have commas between thousands: thousands=,)",
        ),
        (["1,50 \u20ac", "7,25 \u20ac"], "(symbols='\u20ac' removes the symbols; they have decimal commas: decimal=,)"),
        (["5 kg", "7.5kg"], "(symbols='kg' removes the symbols)"),
        (["USD 5", "USD 7.5"], "(symbols='USD' removes the symbols)"),
        (["5 kg", "7 g"], "most cells are not numbers such as 1234.5; name it elsewhere"),
        (["P012", "P007"], "most cells are not numbers; name it elsewhere"),
        (['=""7.5""', '=""8""'], "(symbols='\"=' removes the symbols)"),
        (["1_200", "2_000.5"], "thousands=_"),
        (["12,34,567", "1,00,000"], "(they have commas between thousands: thousands=,)"),
        (["7.5-", "3-"], "(they have a minus behind the number: write it in front)"),
        (["1-2", "1/2", "2020-01-02"], "most cells are not numbers such as 1234.5; name it elsewhere"),
    ],
)
def test_columns_that_are_no_numbers_lead_to_their_option(tmp_path: Path, cells: list[str], remedy: str) -> None:
    sheet = _sheet(tmp_path, "a\n" + "".join(f'"{cell}"\n' for cell in cells))
    sheet.read_numbers("a", hint="; name it elsewhere")
    assert remedy in sheet.column_faults[0].rule


def test_integers_that_64_bits_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    numbers = [2**63 + row for row in range(50)]
    pq.write_table(pa.table({"a": pa.array(numbers, pa.uint64())}), tmp_path / "b.parquet")
    for sheet in (_sheet(tmp_path, "a\n" + "\n".join(map(str, numbers))), read_sheet(tmp_path / "b.parquet")):
        sheet.read_numbers("a")
        assert sheet.column_faults[0].rule.startswith("50 different cells would be 1 as numbers of 64 bits")
    spread = _sheet(tmp_path, "a\n" + "\n".join(str(2**53 + 1000 * row) for row in range(50)))
    assert len(set(spread.read_numbers("a").tolist())) == 50
    assert not spread.column_faults


def test_dashes_are_no_symbols() -> None:
    with pytest.raises(InputError, match="symbols must not have digits, signs"):
        read(TextFormat, {"symbols": "\u2013"}, where="options")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"\x1f\x8b\x08\x00", "a gzip file; unpack it"),
        ("a.csv", b"PK\x03\x04" + bytes(30), "a zip archive or an Excel workbook"),
        ("a.csv", b"PAR1", "a Parquet file; its name must end with .parquet"),
        ("a.csv", b"\n<!DOCTYPE html><html></html>", "a web page"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer of Git LFS"),
        ("a.jsonl", b'[{"a": 1}]', "one array of JSON"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read \(it is " + re.escape(kind)):
        read_sheet(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_recognized(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("a,b\n1,2\n3,4\n".encode(encoding))
    for given in ("utf-8", "utf-16-be" if encoding == "utf-32" else "utf-8"):
        with pytest.raises(InputError, match=f"text_encoding={encoding}`"):
            read_sheet(tmp_path / "a.csv", TextFormat(text_encoding=given))
    assert read_sheet(tmp_path / "a.csv", TextFormat(text_encoding=encoding)).table.column_names == ["a", "b"]


def test_numbers_beyond_32_bits_are_faults(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, "a,b\n1,1e200\n1e39,-1e201\n-3e38,3e300\n")
    assert np.isnan(sheet.read_numbers("a")).tolist() == [False, True, False]
    sheet.read_numbers("b")
    assert _faults(sheet, sheet.faults) == [":3: a: must be within 3.4e+38, the largest number of 32 bits, got '1e39'"]
    assert sheet.column_faults[0].rule.startswith(
        "most numbers are infinite or beyond 3.4e+38, the largest number of 32 bits"
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a;b\n1;2\n", "no such column (the header has the delimiter ';'; `--option delimiter=';'`)"),
        ("a\tb\n1\t2\n", "no such column (the header has the delimiter '\\t'; `--option delimiter=tab`)"),
        ("a|b\n1|2\n", "no such column (the header has the delimiter '|'; `--option delimiter='|'`)"),
        ('"a,b"\n"1,2"\n', "no such column (each line is in quotes as a whole: remove these quotes)"),
        ("a b\n1 2\n", "no such column (if blanks are between the columns: `--option delimiter=' '`"),
        ("a   b\n1   2\n", "no such column (blanks align the columns: write one delimiter between them"),
        ("1.5,2\n3,4\n", "no such column (the first line has numbers alone"),
        ("My data,\n,\na,b\n1,2\n", "no such column (line 3 has it: `--option skip_lines=2` skips those before it)"),
        ('a, "b"\n1, "2"\n', "no such column (names are in quotes that belong to them"),
        ("'a','b'\n1,2\n", "no such column (names are in quotes that belong to them"),
        ("# exported 2026\n", "no such column (the first line looks like no header; `--option skip_lines=1` skips it)"),
        ("# x,y\n# c,d\na,c\n1,2\n", "no such column (the first 2 lines look like no header; `--option skip_lines=2`"),
    ],
)
def test_a_wrong_delimiter_is_recognized(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        _sheet(tmp_path, text).require({"label": "b"})
    assert caught.value.faults[0].rule.startswith(rule)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_before_the_header_are_skipped_and_counted(tmp_path: Path, end: str) -> None:
    lines = ["# exported", "# 2026", "a,b", "1,2", "x,3"]
    (tmp_path / "a.csv").write_bytes(end.join(lines).encode())
    sheet = read_sheet(tmp_path / "a.csv", TextFormat(skip_lines=2))
    assert sheet.table.column_names == ["a", "b"]
    assert sheet.row_numbers.tolist() == [4, 5]
    with pytest.raises(InputError, match="skip_lines: the file has only 5 lines, got 9"):
        read_sheet(tmp_path / "a.csv", TextFormat(skip_lines=9))


def test_the_line_by_which_spreadsheets_write_the_delimiter_is_read(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, "sep=;\na;b\n1;2\n")
    assert sheet.table.to_pydict() == {"a": ["1"], "b": ["2"]}
    assert sheet.row_numbers.tolist() == [3]


def test_rows_that_are_one_cell_longer_than_the_header_are_one_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the header .2; the first row has 3.: .* correct the header$") as caught:
        _sheet(tmp_path, "a,b\n1,2,\n3,4,\n")
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    "before", ["# 2026\n", "\n\n", "My data\n", "My data\nby X\n\n", "# by X, Y\n# 2026\n\n", "\n%\n"]
)
@pytest.mark.parametrize("given", [0, 1])
def test_the_number_of_lines_before_the_header_is_said_at_once(tmp_path: Path, before: str, given: int) -> None:
    (tmp_path / "a.csv").write_text(f"{before}a,b\n1,2\n3,4\n")
    lines = before.count("\n")
    if given < lines:
        with pytest.raises(InputError, match=f"`--option skip_lines={lines}` skips"):
            read_sheet(tmp_path / "a.csv", TextFormat(skip_lines=given)).require({"label": "b"})
    assert read_sheet(tmp_path / "a.csv", TextFormat(skip_lines=lines)).table.column_names == ["a", "b"]


@pytest.mark.parametrize("units", ["[m],[kg]", "m,kg", "(-),(10^3 kg)", "[m],", "'m','kg'"])
def test_a_row_of_units_is_recognized(tmp_path: Path, units: str) -> None:
    sheet = _sheet(tmp_path, f'a,b\n{units}\n1,2\n3,4\n"5,0",6\n')
    sheet.read_numbers("a")
    assert [fault.where.rpartition(":")[2] for fault in sheet.faults] == ["2", "5"]
    assert "looks like a unit, in a row below the header" in sheet.faults[0].rule
    assert "decimal" in sheet.faults[1].rule


@pytest.mark.parametrize("row", ["x,2", "?,?", '"[1, 2]",3', "(1),(2)", "1,[kg]"])
def test_other_cells_that_are_no_numbers_are_no_units(tmp_path: Path, row: str) -> None:
    assert not _sheet(tmp_path, f"a,b\n{row}\n1,2\n3,4\n").has_units


def test_header_cells_are_trimmed_as_other_cells_are(tmp_path: Path) -> None:
    sheet = _sheet(
        tmp_path, " a ,strength(MPa, megapascals) \n1,2\n".replace("strength(", '"strength(').replace(") ", ') "')
    )
    assert sheet.table.column_names == ["a", "strength(MPa, megapascals)"]


def test_columns_without_a_name_and_the_index_of_pandas_are_named(tmp_path: Path) -> None:
    assert _sheet(tmp_path, ",a,\n0,1,\n1,2,\n").index_columns == ["Unnamed: 0", "Unnamed: 2"]
    assert _sheet(tmp_path, "Unnamed: 0,Unnamed: 0.1,a\n0,1,2\n").index_columns == ["Unnamed: 0", "Unnamed: 0.1"]
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=[5, 3])
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_sheet(tmp_path / "a.parquet").index_columns == ["__index_level_0__"]
    frame.rename_axis("sample").to_parquet(tmp_path / "a.parquet")
    assert read_sheet(tmp_path / "a.parquet").index_columns == ["sample"]
    frame.reset_index(drop=True).to_parquet(tmp_path / "a.parquet")
    assert read_sheet(tmp_path / "a.parquet").index_columns == []


@pytest.mark.parametrize(
    "given",
    [
        {"delimiter": ""},
        {"delimiter": ";;"},
        {"text_encoding": "utf-9"},
        {"text_encoding": "rot13"},
        {"symbols": "-"},
        {"symbols": "()"},
    ],
)
def test_formats_that_no_file_can_have_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        TextFormat(**given)


@pytest.mark.parametrize("rows", ["1,5;2,5;3\n2,5;3,5;4\n", "1.5;2.5;3\n"])
def test_another_delimiter_is_named_also_where_the_cells_have_commas(tmp_path: Path, rows: str) -> None:
    (tmp_path / "a.csv").write_text("a;b;y\n" + rows)
    with pytest.raises(InputError, match=r"the header has the delimiter ';'; `--option delimiter=';'`"):
        read_sheet(tmp_path / "a.csv").require({"label": "y"})


@pytest.mark.parametrize("cells", [["5 %", "0.05", "7 %"], ["$5", "\u20ac5", "$6"]])
def test_numbers_of_several_units_are_refused(tmp_path: Path, cells: list[str]) -> None:
    sheet = _sheet(tmp_path, "a\n" + "".join(f"{cell}\n" for cell in cells), symbols="%$\u20ac")
    sheet.read_numbers("a")
    assert sheet.column_faults[0].rule.startswith("the cells have different symbols (")


@pytest.mark.parametrize(
    ("cells", "is_noted"),
    [(["1.234", "987", "12.500"], True), (["1.234", "12.500"], False), (["1.234", "98.7"], False)],
)
def test_points_that_may_be_between_thousands_are_noted(tmp_path: Path, cells: list[str], is_noted: bool) -> None:
    sheet = _sheet(tmp_path, "a\n" + "".join(f"{cell}\n" for cell in cells))
    assert sheet.read_numbers("a").tolist() == [float(cell) for cell in cells]
    assert any("set thousands=. and decimal=," in note for note in sheet.notes) == is_noted


def test_names_are_those_that_can_be_typed(tmp_path: Path) -> None:
    header = '"Gro\u0308\u00dfe  (cm)",my\u00a0label,"two\nlines",\u200bx'
    sheet = _sheet(tmp_path, f"{header}\n1, s1,3,4\n2,s1 ,4,5\n")
    assert sheet.table.column_names == ["Gr\u00f6\u00dfe (cm)", "my label", "two lines", "x"]
    # Two groups of one name would be in two splits.
    assert sheet.read_names("my label").tolist() == ["s1", "s1"]
    with pytest.raises(InputError, match=r"ignore.0: .*several names are in brackets: ignore=\[x, my label\]"):
        sheet.require({"ignore.0": "x, my label"})


def test_a_header_of_numbers_is_noted(tmp_path: Path) -> None:
    assert any("numbers alone" in note for note in _sheet(tmp_path, "1.5,2,3e1\n4,5,6\n").notes)
    assert _sheet(tmp_path, "0,1,2\n4,5,6\n").notes == []
    assert _sheet(tmp_path, "400,410,label\n4,5,6\n").notes == []


def test_texts_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# one\n# two\r\nä,y\n" + "".join(f"{row},é{row}\n" for row in range(40))
    for encoding in ("utf-8", "utf-16", "latin-1"):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        for size in (1, 7, 2**20):
            monkeypatch.setattr("dirtune.pipelines.sheets._PART_BYTES", size)
            sheet = read_sheet(tmp_path / "a.csv", TextFormat(text_encoding=encoding, skip_lines=2))
            assert sheet.table["ä"].to_pylist() == [str(row) for row in range(40)]
            assert sheet.table["y"].to_pylist() == [f"é{row}" for row in range(40)]
            assert sheet.row_numbers.tolist() == list(range(4, 44))
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    for size in (1, 2**20):
        monkeypatch.setattr("dirtune.pipelines.sheets._PART_BYTES", size)
        with pytest.raises(InputError, match=r"is not text in utf-8 \(line 3\)"):
            read_sheet(tmp_path / "a.csv")
