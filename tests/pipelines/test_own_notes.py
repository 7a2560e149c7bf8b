"""Run with `pytest tests/pipelines/test_own_notes.py`: what an ingest of own data reports, and what it refuses."""

from __future__ import annotations

import json
import math
from datetime import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.pipelines import own, table
from dirtune.pipelines.table import Options

ROWS = 60


class _Written(Exception):
    """Carries what would be written."""

    def __init__(self, notes: list[str], features: list[dict[str, Any]], values: np.ndarray) -> None:
        super().__init__()
        self.notes, self.features, self.values = notes, features, values


@pytest.fixture(autouse=True)
def _nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_storage: Storage, division: Any, splits: dict[str, Any], _inputs: object, **given: Any) -> None:
        features = json.loads(given["side_files"]["features.json"])
        batches = [batch for split in splits.values() for batch in split]
        order = np.argsort(np.concatenate([batch["sample_id"] for batch in batches]))
        values = np.concatenate([batch["features"] for batch in batches])[order]
        raise _Written([*given["sheet"].notes, *given["notes"]], features, values)

    monkeypatch.setattr(table.own, "write_own", write)


def _frame(**columns: Any) -> pd.DataFrame:
    drawn = np.random.default_rng(0)
    return pd.DataFrame({"a": drawn.normal(size=ROWS), "y": drawn.normal(50, 10, ROWS).round(2), **columns})


def _ingest(file: Path, frame: pd.DataFrame | None = None, *, index: bool = False, **given: Any) -> _Written:
    if frame is not None:
        frame.to_parquet(file) if file.suffix == ".parquet" else frame.to_csv(file, index=index)
    options = read(Options, {"name": "mine", "label": "y", **given}, where="options")
    with pytest.raises(_Written) as caught:
        table.ingest(Storage.open(file.parent / "data"), file, options)
    return caught.value


def _names(written: _Written) -> list[str]:
    return [each["name"] for each in written.features]


def test_the_index_that_pandas_writes_is_no_feature(tmp_path: Path) -> None:
    frame = _frame().sort_values("y").reset_index(drop=True)
    written = _ingest(tmp_path / "a.csv", frame, index=True)
    assert _names(written) == ["a"]
    assert "left out as row numbers or index: Unnamed: 0; `features` can name them" in written.notes
    assert _names(_ingest(tmp_path / "a.csv", features=["Unnamed: 0", "a"])) == ["Unnamed: 0", "a"]


@pytest.mark.parametrize("name", [None, "sample"])
def test_the_index_in_a_parquet_file_is_no_feature(tmp_path: Path, name: str | None) -> None:
    frame = _frame().sort_values("y").rename_axis(name)
    assert _names(_ingest(tmp_path / "a.parquet", frame)) == ["a"]


@pytest.mark.parametrize("name", ["index", "level_0", "ID", "No", "row_id", "Sample ID", "#"])
def test_numbers_of_rows_under_a_usual_name_are_no_feature(tmp_path: Path, name: str) -> None:
    # With gaps, as after rows were dropped
    written = _ingest(tmp_path / "a.csv", _frame(**{name: 3 * np.arange(ROWS)}))
    assert _names(written) == ["a"]
    assert f"left out as row numbers or index: {name}; `features` can name them" in written.notes


def test_a_column_of_such_a_name_with_other_contents_is_a_feature(tmp_path: Path) -> None:
    assert _names(_ingest(tmp_path / "a.csv", _frame(index=np.arange(ROWS) / 7))) == ["a", "index"]
    assert _names(_ingest(tmp_path / "a.csv", _frame(no=np.arange(ROWS) % 7))) == ["a", "no"]


def test_a_feature_that_counts_the_rows_is_noted(tmp_path: Path) -> None:
    shuffled = np.random.default_rng(1).permutation(ROWS) + 5
    written = _ingest(tmp_path / "a.csv", _frame(when=shuffled))
    assert _names(written) == ["a", "when"]
    assert any(note.startswith("every integer of a range once") and ": when;" in note for note in written.notes)
    written = _ingest(tmp_path / "a.csv", _frame(when=1.7e4 + np.arange(ROWS) * 0.37, patient_id=np.arange(ROWS) // 5))
    assert any("larger from row to row" in note and ": when;" in note for note in written.notes)
    assert any("names of identifiers: patient_id;" in note for note in written.notes)


def test_the_columns_are_reported_by_role(tmp_path: Path) -> None:
    frame = _frame(kind=list("uvw") * 20, who=[f"p{row % 20}" for row in range(ROWS)], text="x")
    written = _ingest(tmp_path / "a.csv", frame, one_hot=["kind"], group="who", ignore=["text"])
    assert written.notes[:2] == [
        "columns: label: y; group: who; features: a; one-hot: kind",
        "columns that are not used: text",
    ]


def test_a_column_of_lists_is_one_feature_per_element(tmp_path: Path) -> None:
    vectors = np.random.default_rng(2).normal(size=(ROWS, 3))
    written = _ingest(tmp_path / "a.parquet", _frame(emb=list(vectors)), standardize=False)
    assert _names(written) == ["a", "emb.0", "emb.1", "emb.2"]
    stored = {tuple(row[1:]) for row in written.values.astype(np.float32).tolist()}
    assert stored <= {tuple(row) for row in vectors.astype(np.float32).tolist()}
    assert _names(_ingest(tmp_path / "a.parquet", features=["emb"])) == ["emb.0", "emb.1", "emb.2"]


def test_elements_of_lists_with_the_name_of_another_column_are_refused(tmp_path: Path) -> None:
    frame = _frame(emb=[[1.0, 2.0]] * ROWS).assign(**{"emb.1": 3.0})
    with pytest.raises(InputError, match=r"emb: the elements of its lists would have the name .*, got 'emb.1'"):
        _ingest(tmp_path / "a.parquet", frame)


def test_lists_of_several_lengths_and_lists_as_label_are_refused(tmp_path: Path) -> None:
    frame = _frame(emb=[[1.0] * (2 + (row == 9)) for row in range(ROWS)])
    with pytest.raises(InputError, match=r"emb: the lists of a column must have the same length.*, got \[2, 3\]"):
        _ingest(tmp_path / "a.parquet", frame)
    for cell in ({"p": 1.0}, [[1.0]], ["x", "z"]):
        frame = _frame(emb=[cell] * ROWS)
        with pytest.raises(InputError, match=r"emb: a column of \w+<.*; name it in ignore, or write a column for each"):
            _ingest(tmp_path / "a.parquet", frame)
        assert _names(_ingest(tmp_path / "a.parquet", frame, ignore=["emb"])) == ["a"]
    frame = _frame(y=[[1.0, 2.0]] * ROWS)
    with pytest.raises(InputError, match=r"y: a column of list.*; a label is one number per row"):
        _ingest(tmp_path / "a.parquet", frame)


@pytest.mark.parametrize(
    "cells",
    [
        pd.date_range("2020-01-01", periods=ROWS),
        pd.timedelta_range("1 h", periods=ROWS),
        [time(hour=row % 24) for row in range(ROWS)],
        [bytes([row]) for row in range(ROWS)],
    ],
    ids=["timestamp", "duration", "time", "binary"],
)
def test_columns_that_are_neither_numbers_nor_texts_are_to_be_converted(cells: Any, tmp_path: Path) -> None:
    kind = r"a column of (timestamp|duration|time64|binary)\S*"
    with pytest.raises(InputError, match=rf"t: {kind}; name it in ignore, or convert it to numbers$"):
        _ingest(tmp_path / "a.parquet", _frame(t=cells))
    for options in ({"features": ["a", "t"]}, {"label": "t", "ignore": ["y"]}):
        with pytest.raises(InputError, match=rf"t: {kind}; convert it to numbers$"):
            _ingest(tmp_path / "a.parquet", _frame(t=cells), **options)


@pytest.mark.parametrize(
    ("column", "settings"),
    [
        (np.where(np.arange(ROWS) == 7, 9.97e36, np.arange(ROWS) / 7), {}),
        (np.where(np.arange(ROWS) == 7, -3e38, np.arange(ROWS) / 7), {}),
        (1.7e9 + np.arange(ROWS) / 2, {"standardize": False}),
        (1e-300 * (1 + np.arange(ROWS) / 7), {}),
        (1e-60 * (1 + np.arange(ROWS) / 7), {"standardize": False}),
    ],
)
def test_numbers_that_would_become_equal_are_refused(
    tmp_path: Path, column: np.ndarray, settings: dict[str, bool]
) -> None:
    words = ("numbers of 32 bits; standardize or", "standardized numbers of 32 bits; correct or")[settings == {}]
    with pytest.raises(InputError, match=rf"b: 60 different numbers would be \d+ as {words} rescale the column"):
        # The odd row is in training, whose numbers it standardizes.
        _ingest(tmp_path / "a.csv", _frame(b=column), held_back=0.1, **settings)


@pytest.mark.parametrize("scale", [1e16, 1e37])
def test_numbers_whose_squares_are_infinite_in_a_network_are_refused(tmp_path: Path, scale: float) -> None:
    frame = _frame(b=scale * np.random.default_rng(3).normal(size=ROWS))
    with pytest.raises(
        InputError, match=r"b: numbers up to .* too large for a network.*standardize .* in row \d+, got"
    ):
        _ingest(tmp_path / "a.csv", frame, standardize=False)
    assert np.abs(_ingest(tmp_path / "a.csv", frame).values).max() < 10
    _ingest(tmp_path / "a.csv", frame.assign(b=frame["b"] / scale * 1e14), standardize=False)


def test_a_code_for_missing_cells_among_numbers_is_noted(tmp_path: Path) -> None:
    column = np.where(np.arange(ROWS) % 20 == 7, -9999.0, np.random.default_rng(3).normal(size=ROWS))
    notes = _ingest(tmp_path / "a.csv", _frame(b=column)).notes
    assert any(note.startswith("b: far from all others: -9999 (row 9 and 2 more);") for note in notes)
    column[5:20:5] = 999.0
    notes = _ingest(tmp_path / "a.csv", _frame(b=column)).notes
    assert any("others: -9999 (row 9 and 2 more), 999 (row 7 and 2 more);" in note for note in notes)
    usual = _frame(b=np.random.default_rng(3).lognormal(0, 1, ROWS), c=(np.arange(ROWS) == 3).astype(float))
    assert not any("far from all others" in note for note in _ingest(tmp_path / "a.csv", usual).notes)


def _label_notes(folder: Path, labels: np.ndarray, **given: Any) -> list[str]:
    from dirtune.pipelines.own import describe_labels, divide, read_entries
    from dirtune.pipelines.sheets import read_sheet

    pd.DataFrame({given.get("label", "y"): labels}).to_csv(folder / "a.csv", index=False)
    options = read(Options, {"name": "mine", "label": "y", **given}, where="options")
    sheet = read_sheet(folder / "a.csv", options)
    entries = read_entries(sheet, options)
    return describe_labels(divide(options, entries, np.arange(len(labels)), list(range(len(labels)))), sheet)


@pytest.mark.parametrize("wrong", [1e9, 99999.0, -9999.0, 7500.0])
def test_a_wrong_label_that_fills_one_bin_with_all_others_is_named(tmp_path: Path, wrong: float) -> None:
    labels = np.append(np.random.default_rng(0).uniform(20, 96, 300).round(2), wrong)
    notes = _label_notes(tmp_path, labels)
    assert f"{wrong:g} (row 302)" in notes[0]
    assert notes[1].startswith("one label bin of ")
    assert "correct the outermost labels, or set low, high and bin_width" in notes[1]


def test_codes_for_missing_labels_are_named_though_they_share_the_bins_of_others(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).uniform(20, 96, 100).round(2)
    labels[:9] = -999
    assert any("labels far from all others: -999 (row 2 and 8 more)" in note for note in _label_notes(tmp_path, labels))


def test_categories_that_look_alike_are_one(tmp_path: Path) -> None:
    written = _ingest(tmp_path / "a.csv", _frame(kind=["m", " m", "\u00fc", "u\u0308"] * 15), one_hot=["kind"])
    assert [(each["name"], each.get("text")) for each in written.features] == [
        ("a", None),
        ("kind", "m"),
        ("kind", "\u00fc"),
    ]


def test_a_label_in_lists_of_one_number_is_this_number(tmp_path: Path) -> None:
    frame = _frame()
    plain = _ingest(tmp_path / "a.parquet", frame)
    listed = _ingest(tmp_path / "a.parquet", frame.assign(y=[[label] for label in frame.y]))
    assert np.array_equal(plain.values, listed.values)


def test_usual_labels_and_many_zeros_are_not_called_wrong(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    assert len(_label_notes(tmp_path, drawn.uniform(20, 96, 600).round(2))) == 1
    rain = np.where(drawn.random(1000) < 0.85, 0.0, drawn.exponential(4.0, 1000).round(1))
    assert not any("correct the outermost labels" in note for note in _label_notes(tmp_path, rain))


def test_labels_that_need_a_thought_are_noted(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    rain = np.where(drawn.random(1000) < 0.85, 0.0, drawn.exponential(4.0, 1000).round(1))
    assert any(f"{np.count_nonzero(rain == 0)} of 1,000 labels are 0" in note for note in _label_notes(tmp_path, rain))
    transformed = _label_notes(tmp_path, rain, label_transform="log1p")
    assert not any("there is label_transform=log1p" in note for note in transformed)
    prices = drawn.lognormal(12, 1.5, 1000).round()
    assert any("the logarithm of such labels" in note for note in _label_notes(tmp_path, prices))
    classes = drawn.integers(0, 2, 400).astype(float)
    assert any("the label has 2 values" in note for note in _label_notes(tmp_path, classes))
    usual = drawn.uniform(20, 96, 1000).round(2)
    assert len(_label_notes(tmp_path, usual)) == 1
    assert any(note.startswith("test rows: ") for note in _label_notes(tmp_path, usual[:100]))


@pytest.mark.parametrize(("unit", "turn"), [("degrees", 360.0), ("°", 360.0), ("rad", 2 * math.pi)])
def test_angles_of_a_full_turn_are_noted(tmp_path: Path, unit: str, turn: float) -> None:
    angles = np.random.default_rng(0).uniform(-turn / 2, turn / 2, 400)
    assert any("labels of a full turn" in note for note in _label_notes(tmp_path, angles, unit=unit))
    assert not any("labels of a full turn" in note for note in _label_notes(tmp_path, angles / 3, unit=unit))
    # From end to end, without a word of the user
    noted = any("labels of a full turn" in note for note in _label_notes(tmp_path, angles + turn / 2))
    assert noted == (turn == 360)
    notes = _label_notes(tmp_path, np.random.default_rng(0).uniform(1, 11, 400), label_period=12.0)
    assert any(note.startswith("labels of a full turn (12): errors are differences of numbers") for note in notes)
    notes = _label_notes(tmp_path, np.linspace(0, 24, 400), label_period=1000.0)
    assert any(note.startswith("labels repeat after 1000 and cover 2.4% of it, from 0 to 24: ") for note in notes)
    notes = _label_notes(tmp_path, np.linspace(0, 24, 400), label_period=10.0)
    assert any(
        note.startswith("labels repeat after 10 and extend over 2.4 times that, from 0 to 24: ") for note in notes
    )
    assert not any("full turn" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "last", "turn"), [("hour", 23, 24), ("Weekday", 6, 7), ("month", 12, 12), ("day_of_year", 365, 365)]
)
def test_labels_of_the_calendar_are_noted(tmp_path: Path, name: str, last: int, turn: int) -> None:
    labels = np.random.default_rng(0).integers(int(last == turn), last + 1, 3000)
    for label, expected in ((name, True), ("hours", False)):
        notes = _label_notes(tmp_path, labels, label=label)
        assert any(note.startswith(f"labels of a full turn ({turn}):") for note in notes) == expected


@pytest.mark.parametrize(
    "change", [lambda y: 100 * y, lambda y: y + 273.15, np.log, lambda y: -y, lambda y: y.rank(), lambda y: y.round()]
)
def test_the_label_in_another_form_is_noted_among_the_features(tmp_path: Path, change: Any) -> None:
    frame = _frame()
    written = _ingest(tmp_path / "a.csv", frame.assign(copy=change(frame["y"])))
    (note,) = (each for each in written.notes if each.startswith("features with the order of the label"))
    assert "(rank correlation 0.99 or more)" in note
    assert note.endswith(": copy; `ignore` leaves them out")
    assert not any("order of the label" in note for note in _ingest(tmp_path / "a.csv", frame).notes)


def test_parts_of_a_label_that_is_their_total_are_noted(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1)
    parts = {"casual": drawn.integers(0, 300, ROWS), "registered": drawn.integers(0, 900, ROWS)}
    frame = _frame(**parts)
    written = _ingest(tmp_path / "a.csv", frame.assign(y=parts["casual"] + parts["registered"]))
    rule = "the label is a weighted sum of features, as a total is of its parts: casual, registered; `ignore` leaves them out"
    assert rule in written.notes
    assert not any("weighted sum" in note for note in _ingest(tmp_path / "a.csv", frame).notes)


def test_repeated_measurements_in_two_splits_are_noted(tmp_path: Path) -> None:
    frame = _frame()
    twice = pd.concat([frame, frame.assign(y=frame["y"] + 0.5)])
    notes = _ingest(tmp_path / "a.csv", twice).notes
    assert sum("have the features of a training row and another label" in note for note in notes) == 1
    who = [*range(ROWS), *range(ROWS)]
    assert not any(
        "another label" in note for note in _ingest(tmp_path / "a.csv", twice.assign(who=who), group="who").notes
    )
    assert not any("another label" in note for note in _ingest(tmp_path / "a.csv", pd.concat([frame, frame])).notes)


def test_names_in_several_spellings_are_noted(tmp_path: Path) -> None:
    kinds = ["Male", "male", "MALE ", "female", "1", "1.0", "NA", "type-a", "Type A", "b"] * (ROWS // 10)
    notes = _ingest(tmp_path / "a.csv", _frame(kind=kinds), one_hot=["kind"]).notes
    spellings = "'1' and '1.0'; 'MALE' and 'Male' and 'male'; 'Type A' and 'type-a'"
    assert f"kind: spellings that are taken as different names: {spellings}" in notes
    assert "kind: 'NA' in 6 rows is taken as a text; if it stands for a missing one, remove it" in notes
    assert own.describe_similar_names("who", np.array(["p1", "p2", "10", "1"], dtype=object)) == []


def test_columns_that_name_persons_and_splits_are_noted(tmp_path: Path) -> None:
    columns = {"subject": np.arange(ROWS) // 5, "patient_no": np.arange(ROWS) % 7, "fold": np.arange(ROWS) % 5}
    notes = _ingest(tmp_path / "a.csv", _frame(**columns)).notes
    assert any(note.startswith("features with the names of identifiers: subject, patient_no;") for note in notes)
    assert any(note.startswith("features with the names of splits: fold;") for note in notes)
