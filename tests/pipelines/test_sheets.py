"""Run with `pytest tests/pipelines/test_sheets.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dirtune.errors import InputError
from pipelines.sheets import Sheet, find_data_file, read_sheet


def _sheet(folder: Path, text: str, name: str = "a.csv", **settings: object) -> Sheet:
    (folder / name).write_text(text)
    return read_sheet(folder / name, **settings)


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
    assert len(caught.value.faults) == 3
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
    assert caught.value.faults[20].rule == "30 faults in all, 10 of them not shown"
    assert len(sheet.notes) == 0 + 1 + 20


def test_a_sheet_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row can be used"):
        _sheet(tmp_path, "a,b\n").select_usable(skip_bad=5)


@pytest.mark.parametrize(
    ("content", "rule"),
    [(b"", "cannot be read"), (b"a\n\xff\n", "cannot be read"), (b"a,a\n1,2\n", "two columns have this name, got 'a'")],
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
    assert find_data_file("table", tmp_path) == (tmp_path / "a.CSV").resolve()
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
