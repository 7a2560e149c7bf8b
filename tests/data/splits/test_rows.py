"""`pytest tests/data/splits/test_rows.py`: the seeded order is tied to the ids."""

from __future__ import annotations

import numpy as np
import pytest

from dirtune.data.splits.rows import Rows, rank_by_seed, rank_within_bins
from dirtune.errors import InputError
from dirtune.manifest import LabelSpec

SCORE = LabelSpec(name="score", unit="points", low=0, high=5, bin_width=0.1, num_bins=50)


def _rows(ids: list[str], labels: list[float]) -> Rows:
    return Rows(name="set", label=SCORE, ids=np.array(ids, dtype=object), labels=np.array(labels))


def test_ranks_are_a_permutation_tied_to_the_ids():
    ids = np.array([f"id-{row}" for row in range(50)], dtype=object)
    ranks = rank_by_seed(ids, 3, "test")
    assert sorted(ranks.tolist()) == list(range(50))
    shuffled = np.random.default_rng(0).permutation(50)
    assert rank_by_seed(ids[shuffled], 3, "test").tolist() == ranks[shuffled].tolist()
    assert rank_by_seed(ids.astype(np.str_), 3, "test").tolist() == ranks.tolist()


def test_ranks_depend_on_seed_and_purpose():
    ids = np.array([f"id-{row}" for row in range(50)], dtype=object)
    orders = {tuple(rank_by_seed(ids, seed, purpose)) for seed in (0, 1) for purpose in "ab"}
    assert len(orders) == 4


def test_ranks_within_bins_count_the_rows_of_the_bin_with_smaller_ranks():
    drawn = np.random.default_rng(1)
    bins, ranks = drawn.integers(4, size=40), drawn.permutation(40)
    expected = [sum(bins[j] == bins[i] and ranks[j] < ranks[i] for j in range(40)) for i in range(40)]
    assert rank_within_bins(bins, ranks).tolist() == expected


def test_bins_can_be_wider_than_the_label_bins():
    rows = _rows(["a", "b", "c", "d"], [0.0, 0.25, 4.999, 5.0])
    assert rows.bins.tolist() == [0, 2, 49, 49]
    assert rows.compute_bins(0.25).tolist() == [0, 1, 19, 19]
    assert rows.compute_bins(None).tolist() == rows.bins.tolist()


def test_repeated_ids_and_columns_of_unequal_length_are_errors():
    with pytest.raises(InputError, match=r"sample ids must be unique.*got 2"):
        _rows(["a", "b", "a", "a"], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="one entry per row"):
        _rows(["a", "b"], [1.0])
    with pytest.raises(ValueError, match="one entry per row"):
        _rows([], [])
