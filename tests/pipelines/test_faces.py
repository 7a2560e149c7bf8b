"""Run with `pytest tests/pipelines/test_faces.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec
from dirtune.pipelines.faces import Face, read_list

LABEL = LabelSpec(name="age", unit="years", low=0, high=120, bin_width=1, num_bins=120)


def _parse_person(path: str) -> str | None:
    return path.removesuffix(".jpg") if path.endswith(".jpg") else None


def _read(folder: Path, text: str) -> list[Face | Fault]:
    (folder / "ages.csv").write_text(text)
    return read_list(folder / "ages.csv", LABEL, _parse_person)


def test_rows_are_read_in_their_order(tmp_path: Path) -> None:
    rows = _read(tmp_path, "age,path,split\n31,b.jpg,train\r\n4.5,a.jpg,test\n")
    assert rows == [Face("b.jpg", 31.0, "b", "train"), Face("a.jpg", 4.5, "a", "test")]


def test_a_list_may_leave_the_split_open(tmp_path: Path) -> None:
    assert _read(tmp_path, "age,path\n31,b.jpg\n") == [Face("b.jpg", 31.0, "b", None)]


def test_every_bad_row_is_named_by_file_and_line_and_the_others_stay(tmp_path: Path) -> None:
    lines = [
        "age,path,split",
        "1,a.jpg,train",
        "2,b.jpg",
        "old,c.jpg,train",
        "nan,c.jpg,train",
        "120.5,c.jpg,train",
        "5,c.jpg,trian",
        "6,c.png,train",
        "7,a.jpg,test",
        "8,d.jpg,val",
    ]
    rows = _read(tmp_path, "\n".join(lines))
    assert [str(row).removeprefix(f"{tmp_path}/") for row in rows if isinstance(row, Fault)] == [
        "ages.csv:3: must have 3 columns, got 2",
        "ages.csv:4: age: must be a number, got 'old'",
        "ages.csv:5: age: must be within 0..120, got nan",
        "ages.csv:6: age: must be within 0..120, got 120.5",
        "ages.csv:7: split: unknown split, got 'trian'; known: test, train, val (did you mean 'train'?)",
        "ages.csv:8: path: is not a file name of this data set, got 'c.png'",
        "ages.csv:9: path: the image is already in line 2, got 'a.jpg'",
    ]
    assert [row.path for row in rows if isinstance(row, Face)] == ["a.jpg", "d.jpg"]


@pytest.mark.parametrize("header", ["path,age,split", "age;path;split", "1,a.jpg,train", ""])
def test_other_columns_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match=r"ages\.csv:1: the first line must name the columns age,p"):
        _read(tmp_path, f"{header}\n1,a.jpg,train\n" if header else "")


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_list(tmp_path / "none.csv", LABEL, _parse_person)
    (tmp_path / "ages.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"ages\.csv: must be CSV text"):
        read_list(tmp_path / "ages.csv", LABEL, _parse_person)
