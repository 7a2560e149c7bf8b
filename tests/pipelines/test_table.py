"""Run with `pytest tests/pipelines/test_table.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dirtune.data.ingest import ingest as ingest_by_name
from dirtune.data.store import decode, read_side_file, read_split
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest, ShotRule
from dirtune.pipelines import table
from dirtune.pipelines.sheets import read_sheet
from dirtune.pipelines.table import Cells, Options, make_vectors, read_cells

COLUMNS = {"name": "mine", "label": "strength"}


def _options(**given: object) -> Options:
    return read(Options, {**COLUMNS, **given}, where="options")


def _frame(rows: int = 240) -> pd.DataFrame:
    drawn = np.random.default_rng(0)
    cement, water = drawn.normal(300, 50, rows).round(2), drawn.normal(0.5, 0.1, rows).round(4)
    return pd.DataFrame(
        {
            "cement": cement,
            "kind": drawn.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]),
            "water": water,
            "batch": drawn.integers(0, 12, rows),
            "always": np.full(rows, 0.1),
            "strength": (cement / 10 - 20 * water + drawn.normal(0, 1, rows)).round(3),
        }
    )


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Manifest]:
    folder = tmp_path_factory.mktemp("table")
    frame = _frame()
    # A copy
    frame.loc[len(frame)] = frame.loc[0]
    frame.to_csv(folder / "concrete.csv", index=False)
    with (folder / "concrete.csv").open("a") as file:
        # Row 243
        file.write("much,a,0.5,3,0.1,20\n")
    options = {
        **COLUMNS,
        "one_hot": ["kind"],
        "group": "batch",
        "split": "made",
        "unit": "MPa",
        "skip_bad": 1,
        "many_above": 5,
        "few_below": 2,
    }
    manifest = ingest_by_name("table", root=folder / "data", raw=folder / "concrete.csv", options=options, report=str)
    return Storage.open(folder / "data"), manifest


def test_the_set_is_ingested_under_its_own_name(ingested: tuple[Storage, Manifest]) -> None:
    storage, manifest = ingested
    assert storage.list_folders() == ["mine"]
    assert (manifest.name, manifest.label.name, manifest.label.unit) == ("mine", "strength", "MPa")
    assert manifest.group == "batch"
    assert manifest.shot_rules == {"counts": ShotRule(many_above=5, few_below=2)}
    assert list(manifest.inputs) == ["features"]
    # Three numbers and three kinds
    assert manifest.inputs["features"].shape == (6,)


def test_stored_vectors_are_the_standardized_columns_and_the_one_hot_kinds(ingested: tuple[Storage, Manifest]) -> None:
    frame, splits = _frame(), {}
    for split in ("train", "val", "test"):
        arrays = decode(read_split(*ingested, split), ingested[1])
        rows = np.array([int(name.removeprefix("row-")) - 2 for name in arrays["sample_id"]])
        # The copy
        splits[split] = arrays, np.where(rows == 240, 0, rows)
    train = frame.iloc[splits["train"][1]]
    for arrays, rows in splits.values():
        expected = [
            (frame[name].iloc[rows] - train[name].mean()) / train[name].std(ddof=0) for name in ("cement", "water")
        ]
        # The constant column
        expected += [np.zeros(len(rows))]
        expected += [frame["kind"].iloc[rows] == kind for kind in ("a", "b", "c")]
        np.testing.assert_allclose(arrays["features"], np.array(expected).T, atol=2e-6)
        assert arrays["features"].dtype == np.float32
        np.testing.assert_array_equal(arrays["label"], frame["strength"].iloc[rows])
        assert arrays["group"].tolist() == frame["batch"].iloc[rows].astype(str).tolist()


def test_a_side_file_describes_each_number(ingested: tuple[Storage, Manifest]) -> None:
    features = json.loads(read_side_file(*ingested, "features.json"))
    assert [each["name"] for each in features] == ["cement", "water", "always", "kind", "kind", "kind"]
    assert [each["text"] for each in features[3:]] == ["a", "b", "c"]
    assert (features[2]["mean"], features[2]["sd"]) == (pytest.approx(0.1), 0.0)


def test_the_notes_say_how_rows_were_split_and_which_were_left_out(ingested: tuple[Storage, Manifest]) -> None:
    notes = ingested[1].notes
    assert notes[0].startswith("split: made, min(n // 3, ")
    # The copy, in one split or in two
    assert sum("content" in note for note in notes) == 1
    assert notes[-3:-1] == ("constant in training: always", "rows that cannot be used, left out: 1")
    assert notes[-1].endswith("concrete.csv:243: cement: must be a finite number, got 'much'")
    assert sum(info.rows for info in ingested[1].splits.values()) == 241


def test_an_unchanged_request_returns_the_set_without_reading_it_again(
    ingested: tuple[Storage, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, manifest = ingested
    raw = Path(manifest.source["raw"])
    options = _options(one_hot=["kind"], group="batch", split="made", unit="MPa", skip_bad=1, many_above=5, few_below=2)

    def forbidden(*given: object) -> None:
        raise AssertionError("the file was read")

    monkeypatch.setattr(table.sheets, "read_sheet", forbidden)
    assert table.ingest(storage, raw, options) == manifest
    with pytest.raises(AssertionError, match="the file was read"):
        table.ingest(storage, raw, options.model_copy(update={"fraction": 0.5}))


def _make_error(folder: Path, frame: pd.DataFrame, **given: object) -> list[str]:
    frame.to_csv(folder / "a.csv", index=False)
    with pytest.raises(InputError) as caught:
        table.ingest(Storage.open(folder), folder / "a.csv", _options(**given))
    assert not (folder / "mine").exists()
    return [str(each).removeprefix(f"{folder.resolve()}/") for each in caught.value.faults]


def test_a_column_of_texts_must_be_named(tmp_path: Path) -> None:
    kind = _frame()["kind"][0]
    assert _make_error(tmp_path, _frame()) == [
        f"a.csv: kind: most cells are not numbers; name it in one_hot or in ignore, got {kind!r}"
    ]
    assert _make_error(tmp_path, _frame(), features=["kind"]) == [
        f"a.csv: kind: most cells are not numbers, got {kind!r}"
    ]


def test_columns_that_do_not_exist_or_have_two_roles_are_named(tmp_path: Path) -> None:
    found = _make_error(tmp_path, _frame(), features=["cement", "sand"], one_hot=["kind"], ignore=["kind", "strength"])
    assert [fault.split(";")[0] for fault in found] == [
        "a.csv: features.1: no such column, got 'sand'",
        "a.csv: ignore.0: the column is 'one_hot.0' already, got 'kind'",
        "a.csv: ignore.1: the column is 'label' already, got 'strength'",
    ]


def test_bad_cells_of_all_columns_are_named_with_their_rows(tmp_path: Path) -> None:
    frame = _frame(20).astype({"cement": object, "strength": object})
    frame.loc[3, "cement"] = "much"
    frame.loc[3, "strength"] = "hard"
    frame.loc[7, "kind"] = ""
    assert _make_error(tmp_path, frame, one_hot=["kind"], skip_bad=1) == [
        "a.csv:5: strength: must be a finite number, got 'hard'",
        "a.csv:5: cement: must be a finite number, got 'much'",
        "a.csv:9: kind: the cell is empty",
        "a.csv: skip_bad=2 leaves out the rows that cannot be used",
    ]


def test_a_one_hot_column_of_many_texts_is_refused(tmp_path: Path) -> None:
    frame = _frame(300).assign(kind=[f"id {row}" for row in range(300)])
    assert _make_error(tmp_path, frame, one_hot=["kind"]) == [
        "a.csv: kind: a one-hot column must have at most 256 different texts, got 300"
    ]


def test_a_table_without_features_is_refused(tmp_path: Path) -> None:
    assert _make_error(tmp_path, _frame()[["strength"]]) == ["a.csv: features: no column is left"]


def test_all_columns_without_another_role_are_features_unless_some_are_named(tmp_path: Path) -> None:
    _frame().to_csv(tmp_path / "a.csv", index=False)
    sheet = read_sheet(tmp_path / "a.csv")
    given = {"one_hot": ["kind"], "group": "batch", "split": "made"}
    assert read_cells(sheet, _options(**given)).names == ["cement", "water", "always"]
    assert read_cells(sheet, _options(**given, ignore=["always"])).names == ["cement", "water"]
    assert read_cells(sheet, _options(features=["water"])).names == ["water"]
    only = read_cells(sheet, _options(features=[], one_hot=["kind"]))
    assert only.numbers.shape == (240, 0)
    assert set(only.texts) == {"kind"}


def test_training_rows_alone_say_means_deviations_and_one_hot_texts() -> None:
    cells = Cells(
        names=["x"], numbers=np.array([[1.0], [3.0], [100.0]]), texts={"k": np.array(["b", "a", "c"], dtype=object)}
    )
    values, features = make_vectors(cells, np.array([0, 1]), standardize=True)
    assert values.tolist() == [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [98.0, 0.0, 0.0]]
    assert features == [{"name": "x", "mean": 2.0, "sd": 1.0}, {"name": "k", "text": "a"}, {"name": "k", "text": "b"}]


def test_numbers_are_unchanged_without_standardization() -> None:
    cells = Cells(names=["x"], numbers=np.array([[1.0], [30.5]]), texts={})
    values, features = make_vectors(cells, np.array([0]), standardize=False)
    assert values.tolist() == [[1.0], [30.5]]
    assert features == [{"name": "x", "mean": 0.0, "sd": 1.0}]


def test_rows_are_copies_if_all_cells_and_the_label_are_equal() -> None:
    cells = Cells(
        names=["x"],
        numbers=np.array([[1.0], [1.0], [1.0], [1.0]]),
        texts={"k": np.array(["a", "a", "b", "a"], dtype=object)},
    )
    first, second, other_text, other_label = cells.list_contents(np.array([5.0, 5.0, 5.0, 6.0]))
    assert first == second
    assert len({first, other_text, other_label}) == 3


def test_rows_of_equal_hashes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandas.util.hash_array", lambda column: np.zeros(len(column), dtype=np.uint64))
    cells = Cells(names=["x"], numbers=np.array([[1.0], [2.0], [1.0], [0.0], [-0.0]]), texts={})
    assert cells.list_contents(np.array([5.0, 5.0, 5.0, 5.0, 5.0])).tolist() == [0, 1, 0, 3, 4]
