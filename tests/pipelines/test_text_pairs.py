"""Run with `pytest tests/pipelines/test_text_pairs.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dirtune.data.contract import read_contract
from dirtune.data.new_samples import read_new_samples
from dirtune.data.store import decode, read_side_file, read_split
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines import text_pairs
from dirtune.pipelines.text_pairs import Options

ROWS = [
    ("q1", "train", 'What is "x"?', "A letter.", 1.5),
    ("q2", "train", "Why?", "Because\tof it.", 4.0),
    ("q3", "dev", "Who are you?", "Nobody.", 2.0),
    ("q4", "test", "Why?", "Because\tof it.", 4.0),
    ("q5", "left_out", "Unused words", "count as well", 3.0),
]
OPTIONS = {
    "name": "answers",
    "label": "grade",
    "id": "key",
    "split_column": "part",
    "first": "question",
    "second": "answer",
}


def _options(**given: object) -> Options:
    return read(Options, {**OPTIONS, **given}, where="options")


def _frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["key", "part", "question", "answer", "grade"])


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Storage, Manifest]:
    folder = tmp_path_factory.mktemp("pairs")
    _frame().to_parquet(folder / "answers.parquet")
    storage = Storage.open(folder / "data")
    options = _options(low=0, high=5, bin_width=0.5)
    return storage, text_pairs.ingest(storage, folder, options)


@pytest.mark.ray
def test_rows_go_where_their_column_says(ingested: tuple[Storage, Manifest]) -> None:
    found = {split: read_split(*ingested, split) for split in ("train", "val", "test")}
    ids = {split: shard["sample_id"].to_pylist() for split, shard in found.items()}
    assert ids == {"train": ["q1", "q2"], "val": ["q3"], "test": ["q4"]}
    assert found["train"]["label"].to_pylist() == [1.5, 4.0]
    assert ingested[1].label.num_bins == 10


@pytest.mark.ray
def test_both_texts_are_ids_of_one_vocabulary_as_in_sts_b(ingested: tuple[Storage, Manifest]) -> None:
    vocabulary = json.loads(read_side_file(*ingested, "vocabulary.json"))
    words = {index: token for token, index in vocabulary.items()}
    assert list(ingested[1].inputs) == ["first", "second"]
    assert ingested[1].inputs["first"].vocabulary == len(vocabulary) + 2
    arrays = decode(read_split(*ingested, "train"), ingested[1])
    spelt = [[words[index] for index in row if index] for row in arrays["first"].tolist()]
    assert spelt == [["What", "is", "``", "x", "''", "?"], ["Why", "?"]]
    assert {"Unused", "count"} < set(vocabulary)


@pytest.mark.ray
def test_new_rows_become_the_ids_of_the_ingested_ones(ingested: tuple[Storage, Manifest]) -> None:
    contract = read_contract(*ingested)
    arrays = decode(read_split(*ingested, "test"), ingested[1])
    frame = _frame()[["answer", "question", "key"]]
    frame = frame[frame["key"].isin(arrays["sample_id"])]
    for given in (frame, frame[["question", "answer"]].to_numpy().tolist()):
        found = read_new_samples(given, contract).read(np.arange(len(frame)))
        for name in ("first", "second"):
            np.testing.assert_array_equal(found[name], arrays[name])
    for change, sentence in (
        (frame.drop(columns="answer"), "answer: missing column"),
        (frame.assign(question=""), "the cell is empty"),
        (["alone"], "must be pairs of texts"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_new_samples(change, contract)


@pytest.mark.ray
def test_texts_that_are_cut_or_missing_are_noted(tmp_path: Path, ray_session: None) -> None:
    frame = _frame().assign(answer=["word " * 41, "word " * 40, "NaN", "Why, " * 21, "Fine."])
    frame.to_parquet(tmp_path / "answers.parquet")
    notes = text_pairs.ingest(Storage.open(tmp_path / "data"), tmp_path, _options()).notes
    assert "texts with more than 40 tokens, of which the first are used: 2" in notes
    assert "second: 'NaN' in 1 row is taken as a text; if it stands for a missing one, remove it" in notes


@pytest.mark.ray
def test_equal_pairs_with_equal_labels_are_leaks(ingested: tuple[Storage, Manifest]) -> None:
    assert ingested[1].notes == (
        "split: as published",
        "1 content in both train and test: 1 of 1 test rows, 1 train rows",
        "labels: lowest 1.5 (row 1), 2 (row 3); highest 4 (row 4), 4 (row 2)",
        "test rows: 1; only large differences between methods can be shown",
        "columns: label: grade; id: key; split column: part; first: question; second: answer",
    )


@pytest.mark.ray
def test_an_unchanged_request_returns_the_set_without_starting_ray(
    ingested: tuple[Storage, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, manifest = ingested
    monkeypatch.delattr(text_pairs.session, "ray_session")
    options = _options(low=0, high=5, bin_width=0.5)
    assert text_pairs.ingest(storage, Path(manifest.source["raw"]), options) == manifest


def test_empty_texts_and_bad_labels_are_named_by_row(tmp_path: Path) -> None:
    frame = _frame().astype({"grade": object})
    frame.loc[0, "question"] = " "
    frame.loc[2, "grade"] = "good"
    frame.loc[3, "key"] = "q1"
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError) as caught:
        text_pairs.ingest(Storage.open(tmp_path), tmp_path / "a.csv", _options())
    assert [str(each).removeprefix(f"{tmp_path.resolve()}/") for each in caught.value.faults] == [
        "a.csv:2: question: the cell is empty",
        "a.csv:4: grade: must be a finite number, got 'good'",
        "a.csv:5: key: the sample id is already in row 2, got 'q1'",
        "a.csv: skip_bad=3 leaves out the rows that cannot be used",
    ]


def test_the_two_texts_must_be_two_columns(tmp_path: Path) -> None:
    _frame().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match="second: the column is 'first' already"):
        text_pairs.ingest(Storage.open(tmp_path), tmp_path, _options(second="question"))
