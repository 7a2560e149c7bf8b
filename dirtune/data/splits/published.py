"""Published splits of data sets, by fingerprint, so that a manifest can name the one that it holds.

Two AgeDB-DIR lists and two STS-B-DIR lists have equal sizes and different rows; results on one are not comparable with
results on the other. A split is recognized by its fingerprint (`dirtune.data.verify`: sample ids, splits, labels), a raw
list by its SHA-256.

Sources: the files in YyzHarry/imbalanced-regression, BorealisAI/ranksim-imbalanced-regression and
Wang-ML-Lab/variational-imbalanced-regression. To add one: ingest it, and copy `split_fingerprint` from its manifest.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dirtune.data.splits.rows import LEFT_OUT, Ids, SplitNames
from dirtune.data.verify import hash_digests
from dirtune.frozen import to_canonical_json


class PublishedSplit(NamedTuple):
    """Published split of a data set."""

    data: str
    """Name of the pipeline."""
    title: str
    sizes: Mapping[str, int]
    """Rows by split."""
    lists: tuple[str, ...]
    """SHA-256 of the raw files that define the split."""
    fingerprint: str | None = None
    """None if the list is known by its hash alone."""
    remark: str = ""

    def describe(self) -> str:
        return f"{self.title}, {self.remark}" if self.remark else self.title


_AGEDB_SIZES = {"train": 12208, "val": 2140, "test": 2140}
_STS_B_SIZES = {"train": 5249, "val": 1000, "test": 1000}

PUBLISHED_SPLITS = (
    PublishedSplit(
        data="agedb",
        title="the list of YyzHarry/imbalanced-regression",
        sizes=_AGEDB_SIZES,
        lists=("ab9f8d4c7099a9d74ec5094c42b6fe9f1927a166a48d2ab800a88b2fd6081252",),
        # The sample id is the column `path`.
        fingerprint="3c607288fe2dc5dd9c57bb40827a3becfcba9536b7b283b98cabc6fb97edaf32",
    ),
    PublishedSplit(
        data="agedb",
        title="the list of Wang-ML-Lab/variational-imbalanced-regression",
        sizes=_AGEDB_SIZES,
        lists=("e00bba61a5671b0dea153c70778e531e1eb6022e3d23c13be95fd8c62f384ca7",),
        remark="of the paths it shares with the list of YyzHarry/imbalanced-regression, 61 % are in the same split; "
        "results are not comparable with that list",
    ),
    PublishedSplit(
        data="sts_b",
        title="the list of YyzHarry/imbalanced-regression",
        sizes=_STS_B_SIZES,
        # Of `train_new.tsv`.
        lists=("4da3322ae29f7ad1b7d03cdeafcb2480c276e5df1d08737678a7856697218a9a",),
        fingerprint="12daa666d76831ba017719d4a4c95bc2efa0844360d79b3849394f68d04b3747",
    ),
    PublishedSplit(
        data="sts_b",
        title="the list of BorealisAI/ranksim-imbalanced-regression",
        sizes=_STS_B_SIZES,
        # Of `train_new.tsv`.
        lists=("cc71336eb2061891c3f165fa9f812c780f1e86eca0f81e62b4da49ecb9dfb3d1",),
        remark="another random split of the same pairs; the shot rule 'official' does not fit its counts, and results are "
        "not comparable with the other list",
    ),
)


def compute_split_fingerprint(splits: SplitNames, ids: Ids, labels: np.typing.NDArray[np.float64]) -> str:
    """Return the split fingerprint of the manifest before anything is written; rows that are left out do not count."""
    columns = zip(splits.tolist(), ids.tolist(), labels.astype(np.float64), strict=True)
    return hash_digests(
        hashlib.sha256(to_canonical_json([split, sample_id]).encode() + label.tobytes()).digest()
        for split, sample_id, label in columns
        if split != LEFT_OUT
    )


def describe_split(name: str, split_fingerprint: str, sizes: Mapping[str, int]) -> str | None:
    """Return the published split that a fingerprint or the sizes match, as a sentence for the manifest's notes, else None.

    Args:
        name: the data set.
        split_fingerprint: of its manifest.
        sizes: rows by split.
    """
    known = [each for each in PUBLISHED_SPLITS if each.data == name]
    for each in known:
        # The fingerprint identifies the rows; equal sizes alone do not.
        if each.fingerprint == split_fingerprint:
            return f"the split is {each.describe()}"
    alike = [each.title for each in known if dict(each.sizes) == dict(sizes)]
    if not alike:
        return None
    return (
        f"the splits have the sizes of {' and of '.join(alike)}, but not the rows of any list whose fingerprint is known: "
        "results are not comparable unless the lists are shown to be equal"
    )


def describe_list(name: str, sha256: str) -> str | None:
    """Return the published list with this SHA-256, as the end of a sentence that begins with the file's name, else None."""
    for each in PUBLISHED_SPLITS:
        if each.data == name and sha256 in each.lists:
            return each.describe()
    return None
