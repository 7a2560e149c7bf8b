"""`pytest tests/data/splits/test_published.py`: published splits are recognized, and lists of equal sizes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dirtune.data.splits import compute_split_fingerprint, describe_list, describe_split
from dirtune.data.splits.published import PUBLISHED_SPLITS
from dirtune.data.verify import hash_digests, read_shards
from dirtune.io.storage import Storage

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
SIZES = {"train": 12208, "val": 2140, "test": 2140}


def test_the_fingerprint_equals_that_of_the_manifest(tmp_path):
    splits = np.array(["train", "val", "left_out", "train", "test"])
    ids = np.array(["b", "a", "z", "ä", "c"], dtype=object)
    labels = np.array([1.5, -0.0, 7.0, 2.0, 3.0])
    digests = []
    for split in ("train", "val", "test"):
        rows = splits == split
        table = pa.table({"sample_id": pa.array(ids[rows].tolist()), "label": labels[rows]})
        pq.write_table(table, tmp_path / f"{split}.parquet")
        digests.append(read_shards(Storage.open(tmp_path), split, [f"{split}.parquet"], {}).split_digests)
    assert compute_split_fingerprint(splits, ids, labels) == hash_digests(digests)
    turned = [4, 2, 0, 1, 3]
    assert compute_split_fingerprint(splits[turned], ids[turned], labels[turned]) == hash_digests(digests)


def test_the_published_agedb_list_is_recognized_and_a_changed_one_is_not(agedb):
    splits = agedb.published.astype("<U8")
    found = describe_split("agedb", compute_split_fingerprint(splits, agedb.ids, agedb.labels), SIZES)
    assert found == "the split is the list of YyzHarry/imbalanced-regression"
    train, test = np.flatnonzero(splits == "train")[0], np.flatnonzero(splits == "test")[0]
    splits[[train, test]] = splits[[test, train]]
    other = describe_split("agedb", compute_split_fingerprint(splits, agedb.ids, agedb.labels), SIZES)
    assert other is not None
    assert other.startswith("the splits have the sizes of the list of YyzHarry/imbalanced-regression")
    assert "not comparable" in other


def test_other_sizes_and_other_sets_have_no_description():
    assert describe_split("agedb", "0" * 64, {**SIZES, "test": 2139}) is None
    assert describe_split("faces", PUBLISHED_SPLITS[0].fingerprint or "", SIZES) is None


def test_raw_lists_are_recognized_by_their_hash():
    ranksim = "cc71336eb2061891c3f165fa9f812c780f1e86eca0f81e62b4da49ecb9dfb3d1"
    found = describe_list("sts_b", ranksim)
    assert found is not None
    assert found.startswith("the list of BorealisAI/ranksim-imbalanced-regression, another random split")
    assert describe_list("agedb", ranksim) is None
    assert describe_list("sts_b", "0" * 64) is None


@pytest.mark.parametrize(("data", "file"), [("agedb", "agedb/agedb.csv"), ("sts_b", "sts_b/train_new.tsv")])
def test_the_available_files_are_the_lists_of_yang_et_al(data, file):
    if not (SHARED / file).is_file():
        pytest.skip(f"{file} is not available")
    sha256 = hashlib.sha256((SHARED / file).read_bytes()).hexdigest()
    assert describe_list(data, sha256) == "the list of YyzHarry/imbalanced-regression"


@pytest.mark.skipif(not (SHARED / "sts_b").is_dir(), reason="the STS-B-DIR files are not available")
def test_the_published_sts_b_split_is_recognized_by_line_numbers_and_scores():
    splits, ids, labels = [], [], []
    for split, name in (("train", "train_new"), ("val", "dev_new"), ("test", "test_new")):
        text = (SHARED / "sts_b" / f"{name}.tsv").read_bytes().decode().removesuffix("\n")
        for number, line in enumerate(text.split("\n")[1:], start=2):
            splits.append(split)
            ids.append(f"{split}-{number:05d}")
            labels.append(float(line.split("\t")[-1]))
    found = compute_split_fingerprint(np.array(splits), np.array(ids, dtype=object), np.array(labels))
    sizes = {"train": 5249, "val": 1000, "test": 1000}
    assert describe_split("sts_b", found, sizes) == "the split is the list of YyzHarry/imbalanced-regression"


def test_hashes_of_published_splits_are_unique():
    lists = [each for known in PUBLISHED_SPLITS for each in known.lists]
    prints = [known.fingerprint for known in PUBLISHED_SPLITS if known.fingerprint]
    assert len({*lists, *prints}) == len(lists) + len(prints)
    assert all(len(each) == 64 and int(each, 16) for each in [*lists, *prints])
