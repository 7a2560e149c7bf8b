from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dirtune.errors import InputError
from dirtune.results.figures.critical_difference import build_critical_difference, draw_critical_difference
from dirtune.results.tables.table import make_arm_table
from tests.results.figures.stores import (
    KEYS,
    make_request,
    write_compared_arms,
    write_many_arms,
    write_ranked_arms,
)
from tests.results.record_factory import write_study


@pytest.mark.parametrize("metric", ["mae", "pearson"])
def test_ranks_are_those_of_scipy_and_one_is_best(tmp_path: Path, metric: str) -> None:
    root = write_ranked_arms(tmp_path)
    data = build_critical_difference(make_request(root, metric=metric))

    arms = ["vanilla", "conr", "lds"]
    rows = {row.arm: row.cells["all"].values for row in make_arm_table(root, "study", metric=metric).rows}
    values = np.array([[rows[arm][seed] for arm in arms] for seed in range(5)])
    ranks = stats.rankdata(values if metric == "mae" else -values, axis=1).mean(axis=0)
    assert dict(data.ranks) == pytest.approx(dict(zip(arms, ranks, strict=True)))
    assert data.ranks[0][0] == "conr"
    assert "over 5 seeds, on these test samples" in data.caption
    assert "Left out, with missing seeds: half." in data.caption


def test_fewer_than_five_seeds_have_no_ranks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 5 seeds that all arms have, for ranks to differ; has 3"):
        build_critical_difference(make_request(write_compared_arms(tmp_path)))


def test_every_arm_is_named_and_every_group_has_a_bar(tmp_path: Path) -> None:
    data = build_critical_difference(make_request(write_many_arms(tmp_path, 36, seeds=5)))

    ruler, axes = draw_critical_difference(data).axes

    texts = [text.get_text().strip() for text in axes.texts]
    assert texts == [f"{arm} ({rank:.1f})" for arm, rank in data.ranks]
    bars = [line for line in axes.lines if line.get_linewidth() > 2]
    assert len(bars) == len(data.cliques) > 0
    assert [text.get_text() for text in ruler.texts] == [f"CD = {data.difference:.2f}"]
    assert ruler.get_title() == "mean rank by MAE, all"
    heights = [text.get_position()[1] for text in axes.texts]
    # Names do not overlap
    assert min(np.diff(sorted(heights[:18]))) == pytest.approx(1.0)


def test_fewer_than_two_complete_arms_have_no_ranks(tmp_path: Path) -> None:
    write_study(tmp_path, [], **KEYS)
    with pytest.raises(InputError, match="has no two arms with trials of the same seeds yet"):
        build_critical_difference(make_request(tmp_path))
