from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from dirtune.data.ingest import ingest
from dirtune.data.inspection import Inspection, inspect
from dirtune.data.store import decode, read_side_file, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines import sts_b
from dirtune.pipelines.sts_b import FILES, HEADER, SHOT_RULES, Options, read_pairs

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sts_b"


def _line(first: str, second: str, score: str) -> str:
    return "\t".join(["0", "news", "file", "2012", "7", "none", "none", first, second, score])


LINES = {
    "train_new.tsv": [
        _line("A cat sat.", 'He said "no" and left.', "0.000"),
        _line("A cat sat. It slept.", "a dog\x85ran", "4.999"),
        _line("Same pair.", "Same pair.", "5"),
    ],
    "dev_new.tsv": [_line("word " * 50, "A dog.", "2.5")],
    "test_new.tsv": [_line("Same pair.", "Same pair.", "5.000"), _line("A cat.", "Rare!", "1")],
}


def _raw(folder: Path, changed: Mapping[str, list[str]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, lines in {**LINES, **(changed or {})}.items():
        text = "\n".join(["\t".join(HEADER), *lines]) + "\n"
        (folder / name).write_bytes(text.encode())
    return folder


def _faults(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_pairs({split: folder / name for split, name in FILES.items()})
    return [str(fault).removeprefix(f"{folder}/") for fault in caught.value.faults]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Storage, Manifest]:
    folder = tmp_path_factory.mktemp("sts_b")
    raw = _raw(folder / "raw")
    manifest = ingest("sts_b", root=folder / "data", raw=raw, report=str)
    return Storage.open(folder / "data"), manifest


@pytest.mark.ray
def test_rows_carry_their_line_number_and_scores(small: tuple[Storage, Manifest]) -> None:
    arrays = decode(read_split(*small, "train"), small[1])
    assert arrays["sample_id"].tolist() == ["train-00002", "train-00003", "train-00004"]
    assert arrays["label"].tolist() == [0.0, 4.999, 5.0]
    assert decode(read_split(*small, "val"), small[1])["sample_id"].tolist() == ["val-00002"]


@pytest.mark.ray
def test_ids_spell_the_tokens_of_the_sentences(small: tuple[Storage, Manifest]) -> None:
    vocabulary = json.loads(read_side_file(*small, "vocabulary.json"))
    words = {index: token for token, index in vocabulary.items()}
    arrays = decode(read_split(*small, "train"), small[1])
    spelt = [[words[index] for index in row if index] for row in arrays["first"].tolist()]
    # No sentence splitting: the inner full stop stays with its word.
    assert spelt == [["A", "cat", "sat", "."], ["A", "cat", "sat.", "It", "slept", "."], ["Same", "pair", "."]]
    assert [words[index] for index in arrays["second"][0].tolist() if index] == [
        "He",
        "said",
        "``",
        "no",
        "''",
        "and",
        "left",
        ".",
    ]
    assert arrays["first"].dtype == np.int32
    assert arrays["first"].shape == (3, 40)


@pytest.mark.ray
def test_pairs_in_two_splits_are_counted_and_kept(small: tuple[Storage, Manifest]) -> None:
    assert small[1].notes == ("split: as published", "1 content in both train and test: 1 of 2 test rows, 1 train rows")
    assert small[1].splits["test"].rows == 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_changed_raw_file_is_ingested_again_without_copies_by_option(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "raw")
    first = ingest("sts_b", root=tmp_path, raw=raw, report=str)
    _raw(raw, {"dev_new.tsv": [_line("Other.", "Words.", "3")]})
    second = ingest("sts_b", root=tmp_path, raw=raw, options={"drop_leaks": True}, report=str)
    assert second.content_hash != first.content_hash
    train = read_split(Storage.open(tmp_path), second, "train")
    assert train["sample_id"].to_pylist() == ["train-00002", "train-00003"]
    assert second.notes == ("split: as published", "copies left out: 1 rows")


@pytest.mark.ray
def test_an_unchanged_request_returns_the_set_without_starting_ray(
    small: tuple[Storage, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, manifest = small
    monkeypatch.delattr(sts_b.session, "ray_session")
    assert sts_b.ingest(storage, Path(storage.root).parent / "raw", Options()) == manifest


def test_every_bad_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    _raw(
        tmp_path,
        {
            "train_new.tsv": [
                _line("A.", "B.", "1"),
                "too\tfew",
                _line("A.", "B.", "high"),
                _line("A.", "B.", "5.001"),
                _line("A.", "B.", "nan"),
            ],
            "dev_new.tsv": [_line(" ", "B.", "1"), _line("A.", "", "1"), ""],
        },
    )
    assert _faults(tmp_path) == [
        "train_new.tsv:3: must have 10 tab-separated columns, got 2",
        "train_new.tsv:4: score: must be a number, got 'high'",
        "train_new.tsv:5: score: must be within 0..5, got 5.001",
        "train_new.tsv:6: score: must be within 0..5, got nan",
        "dev_new.tsv:2: sentence1: the sentence is empty",
        "dev_new.tsv:3: sentence2: the sentence is empty",
        "dev_new.tsv:4: must have 10 tab-separated columns, got 1",
    ]


def test_of_many_bad_rows_twenty_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    _raw(tmp_path, {"train_new.tsv": ["bad"] * 30})
    faults = _faults(tmp_path)
    assert len(faults) == 21
    assert faults[20] == "sts_b: 30 faults in all, 10 of them not shown"


def test_files_that_are_no_such_table_are_refused(tmp_path: Path) -> None:
    _raw(tmp_path)
    (tmp_path / "train_new.tsv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "dev_new.tsv").write_text("a,b,c\n1,2,3\n")
    broken, foreign = _faults(tmp_path)
    assert broken.startswith("train_new.tsv: must be UTF-8 text")
    assert foreign.startswith("dev_new.tsv:1: the first line must name the 10 columns index, genre")


def test_windows_line_ends_are_read_like_the_others(tmp_path: Path) -> None:
    _raw(tmp_path)
    files = {split: tmp_path / name for split, name in FILES.items()}
    expected = read_pairs(files)
    for path in files.values():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_pairs(files) == expected


def test_missing_raw_files_are_named_before_ray_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sts_b.session, "ray_session")
    storage = Storage.open(tmp_path)
    with pytest.raises(InputError, match=r"raw: needs the folder of train_new\.tsv, dev_new\.tsv"):
        sts_b.ingest(storage, None, Options())
    raw = _raw(tmp_path / "raw")
    (raw / "dev_new.tsv").unlink()
    with pytest.raises(InputError, match=r"dev_new\.tsv: no such file") as caught:
        sts_b.ingest(storage, raw, Options())
    assert len(caught.value.faults) == 1


def test_the_glue_layout_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / name).write_text("index\n")
    with pytest.raises(InputError) as caught:
        sts_b.ingest(Storage.open(tmp_path / "data"), tmp_path, Options())
    assert str(caught.value) == (
        f"{tmp_path}: this is the GLUE layout; the re-split STS-B-DIR files are needed: "
        "train_new.tsv, dev_new.tsv, test_new.tsv"
    )


def test_grouped_splits_are_refused_because_there_are_no_groups(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sts_b: split: the raw files name no groups"):
        sts_b.ingest(Storage.open(tmp_path), _raw(tmp_path / "raw"), Options(split="grouped"))


def test_the_official_shot_rule_lists_22_many_and_7_medium_bins() -> None:
    rule = SHOT_RULES["official"]
    assert rule.many_bins == (0, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 49)
    assert rule.medium_bins == (2, 4, 6, 8, 27, 35, 37)


def _samples(seen: Inspection, split: str) -> list[int]:
    return [seen.count_samples(split, region) for region in ("many", "medium", "few")]


needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason="the STS-B-DIR files are not part of the repository")


@needs_real_files
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_published_counts_come_out_of_the_real_files(tmp_path: Path) -> None:
    manifest = ingest("sts_b", root=tmp_path, raw=REAL, report=str)
    assert {split: info.rows for split, info in manifest.splits.items()} == {"train": 5249, "val": 1000, "test": 1000}
    official = inspect("sts_b", root=tmp_path)
    assert official.shot_rule == "official"
    assert _samples(official, "test") == [756, 170, 74]
    assert _samples(official, "train") == [4510, 538, 201]
    assert _samples(inspect("sts_b", root=tmp_path, shot_rule="counts"), "test") == [756, 207, 37]
    assert manifest.split_fingerprint.startswith("12daa666d76831ba")
    assert manifest.notes == (
        "train_new.tsv is the list of YyzHarry/imbalanced-regression",
        "split: as published",
        "7 contents in both train and val: 7 of 1,000 val rows, 7 train rows",
        "15 contents in both train and test: 15 of 1,000 test rows, 18 train rows",
        "2 contents in both val and test: 2 of 1,000 test rows, 2 val rows",
        "21 contents more than once in train: 21 rows repeat another",
        "2 contents more than once in test: 2 rows repeat another",
    )
    assert manifest.train_counts == (
        428,
        4,
        96,
        2,
        98,
        9,
        86,
        14,
        97,
        1,
        203,
        1,
        139,
        7,
        117,
        22,
        111,
        17,
        118,
        1,
        186,
        3,
        192,
        7,
        111,
        27,
        150,
        35,
        143,
        1,
        357,
        6,
        332,
        22,
        239,
        55,
        209,
        71,
        257,
        5,
        352,
        3,
        229,
        4,
        126,
        20,
        115,
        25,
        133,
        263,
    )


@needs_real_files
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_another_split_of_the_real_files_is_drawn_by_the_published_recipe(tmp_path: Path) -> None:
    options = {"split": "made", "hold_out": "interpolation", "fraction": 0.25}
    manifest = ingest("sts_b", root=tmp_path, raw=REAL, options=options, report=str)
    wide = {split: np.add.reduceat(manifest.splits[split].bin_counts, range(0, 50, 5)) for split in ("val", "test")}
    # 50 per quarter
    assert wide["val"].tolist() == wide["test"].tolist() == [100] * 10
    assert inspect("sts_b", root=tmp_path).shot_rule == "counts"
    held = inspect("sts_b", root=tmp_path, shot_rule="held_out")
    assert held.count_samples("train", "few") == 0
    assert held.count_samples("test", "few") > 0
    assert manifest.notes[1].startswith("split: made, min(n // 2, 50) rows for val and for test")
    ids = read_split(Storage.open(tmp_path), manifest, "test")["sample_id"].to_pylist()
    assert {name.split("-")[0] for name in ids} == {"train", "val", "test"}
