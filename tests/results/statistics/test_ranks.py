from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.ranks import compute_critical_difference, find_cliques, rank_arms


@pytest.mark.parametrize(
    # Demsar 2006, table 5 (a), alpha = 0.05
    ("arms", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_the_critical_difference_has_the_published_quantiles(arms: int, q: float) -> None:
    expected = q * math.sqrt(arms * (arms + 1) / (6 * 14))

    assert compute_critical_difference(arms, 14) == pytest.approx(expected, abs=0.001)


def test_ranks_and_friedmans_test_are_those_of_scipy() -> None:
    # With ties
    values = np.random.default_rng(0).integers(0, 9, (12, 5)).astype(float)
    losses = {f"a{j}": dict(enumerate(values[:, j])) for j in range(5)}

    found = rank_arms(losses)

    ranks = stats.rankdata(values, axis=1).mean(axis=0)
    assert found.mean_ranks == pytest.approx({f"a{j}": rank for j, rank in enumerate(ranks)})
    assert list(found.mean_ranks.values()) == sorted(found.mean_ranks.values())
    assert found.p_friedman == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    assert (found.blocks, found.left_out) == (12, 0)


def test_friedmans_statistic_is_demsars_where_there_are_no_ties() -> None:
    values = np.random.default_rng(1).normal(size=(8, 4))
    ranks = stats.rankdata(values, axis=1).mean(axis=0)
    statistic = 12 * 8 / (4 * 5) * (sum(ranks**2) - 4 * 5**2 / 4)

    found = rank_arms({f"a{j}": dict(enumerate(values[:, j])) for j in range(4)})

    assert found.p_friedman == pytest.approx(stats.chi2.sf(statistic, 3))


def test_blocks_that_one_arm_lacks_are_left_out() -> None:
    found = rank_arms({"a": {0: 1.0, 1: 5.0, 2: 1.0}, "b": {0: 2.0, 1: 4.0, 3: 1.0, 2: math.nan}})

    assert (found.blocks, found.left_out) == (2, 2)
    assert found.mean_ranks == {"a": 1.5, "b": 1.5}


@pytest.mark.parametrize("losses", [{"a": {0: 1.0}}, {"a": {0: 1.0}, "b": {1: 1.0}}])
def test_nothing_can_be_ranked_without_two_arms_and_a_common_block(losses: dict[str, dict[object, float]]) -> None:
    with pytest.raises(ValueError, match="needs two arms and a block that all have"):
        rank_arms(losses)


def test_one_block_and_ties_alone_have_no_p() -> None:
    assert math.isnan(rank_arms({"a": {0: 1.0}, "b": {0: 2.0}}).p_friedman)
    assert math.isnan(rank_arms({"a": {0: 1.0, 1: 1.0}, "b": {0: 1.0, 1: 1.0}}).p_friedman)


def test_cliques_are_the_largest_groups_within_the_difference() -> None:
    generator = np.random.default_rng(2)
    for _ in range(30):
        values = sorted(generator.uniform(1, 8, 8).tolist())
        ranks = dict(zip("abcdefgh", values, strict=True))

        runs = [(i, j) for i in range(8) for j in range(i + 1, 8) if values[j] - values[i] <= 2.0]
        largest = [(i, j) for i, j in runs if not any((k, m) != (i, j) and k <= i and j <= m for k, m in runs)]
        assert find_cliques(ranks, 2.0) == tuple(tuple("abcdefgh"[i : j + 1]) for i, j in largest)
