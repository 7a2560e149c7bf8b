from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from scipy import stats

from dirtune.errors import InputError
from dirtune.results.figures._style import BAD, GOOD
from dirtune.results.figures.forest import build_forest, draw_forest
from dirtune.results.tables.table import make_arm_table
from tests.results.figures.stores import KEYS, VALUES, make_request, write_compared_arms
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import record, write_study


def test_effects_are_those_of_scipys_paired_t_test(tmp_path: Path) -> None:
    data = build_forest(make_request(write_compared_arms(tmp_path)))

    # Every region has the same differences
    for effects in data.effects:
        for arm, effect in zip(data.arms, effects, strict=True):
            seeds = sorted(VALUES[arm])
            test = (
                stats.ttest_rel([VALUES[arm][s] for s in seeds], [VALUES["vanilla"][s] for s in seeds])
                if len(seeds) > 1
                else None
            )
            expected = np.mean([VALUES[arm][s] - VALUES["vanilla"][s] for s in seeds])
            assert effect.mean == pytest.approx(expected)
            ends = test.confidence_interval() if test else (math.nan, math.nan)
            assert (effect.low, effect.high) == pytest.approx(tuple(ends), nan_ok=True)
            assert effect.good == (expected < 0)


def test_every_panel_has_a_zero_line_and_a_marker_per_arm(tmp_path: Path) -> None:
    data = build_forest(make_request(write_compared_arms(tmp_path)))

    panels = draw_forest(data).axes

    assert [axes.get_title() for axes in panels] == list(data.regions)
    for axes, effects in zip(panels, data.effects, strict=True):
        assert list(axes.lines[0].get_xdata()) == [0.0, 0.0]
        assert _markers(axes) == pytest.approx([effect.mean for effect in effects])
        colors = [to_hex(line.get_color()).upper() for line in axes.lines[1:]]
        assert colors == [GOOD if effect.good else BAD for effect in effects]
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == list(data.arms)


def test_an_effect_beyond_the_axis_has_an_arrow_and_a_number(tmp_path: Path) -> None:
    records = [record("a0", seed) for seed in range(3)]
    records += [record(f"a{i}", seed, 5.1 + i * seed / 100) for i in range(1, 8) for seed in range(3)]
    records += [record("wild", seed, 90.0 + seed) for seed in range(3)]
    write_study(tmp_path, records, reference="a0")

    data = build_forest(make_request(tmp_path))

    limits, wild = data.limits[0], data.effects[0][-1]
    assert limits[1] < 10 < wild.low
    (axes, *_) = draw_forest(data).axes
    last = axes.collections[-1].get_offsets()[0]
    assert last.tolist() == pytest.approx([limits[1], len(data.arms) - 1])
    # The arrow stands for the marker
    assert len(_markers(axes)) == len(data.arms)
    (number,) = axes.texts
    assert number.get_text() == f"{wild.mean:+.3g}"
    assert number.xy == pytest.approx((limits[1], len(data.arms) - 1))


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_infinite_difference_is_beyond_the_axis_of_the_others(tmp_path: Path, seeds: int) -> None:
    records = [
        record(arm, seed, value + seed)
        for arm, value in (("a", 5.0), ("b", 5.5), ("wild", math.inf))
        for seed in range(seeds)
    ]
    write_study(tmp_path, records, arms=["a", "b", "wild"], reference="a")

    data = build_forest(make_request(tmp_path))

    assert data.limits[0] == pytest.approx((-0.03, 0.53))
    (axes, *_) = draw_forest(data).axes
    assert [text.get_text() for text in axes.texts] == ["+inf"]


def test_the_claims_panel_alone_has_filled_markers_and_intervals_are_the_tables(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "medium"})
    table = make_arm_table(tmp_path, "study")

    data = build_forest(make_request(tmp_path))

    for region, effects in zip(data.regions, data.effects, strict=True):
        for row, effect in zip(table.rows[1:], effects, strict=True):
            cell = row.cells[region]
            assert (effect.low, effect.high) == (cell.difference.low, cell.difference.high)
            is_word = cell.verdict is not None and cell.verdict.decision in ("helps", "hurts")
            assert effect.significant == is_word
    assert [any(effect.significant for effect in effects) for effects in data.effects] == [False, False, True, False]
    assert "the larger of two t intervals" in data.caption
    assert "Claim: mae in region medium" in data.caption
    chosen = build_forest(make_request(tmp_path, reference="conr"))
    assert "chosen after the study: reference conr" in chosen.caption


def test_equal_arms_have_an_axis_too(tmp_path: Path) -> None:
    records = [record(arm, seed) for arm in ("a", "b") for seed in range(2)]
    write_study(tmp_path, records, reference="a")

    assert set(build_forest(make_request(tmp_path)).limits) == {(-1.0, 1.0)}


def test_without_a_reference_or_a_pair_there_is_nothing_to_draw(tmp_path: Path) -> None:
    write_study(tmp_path, [], **KEYS)
    with pytest.raises(InputError, match="has no common seed of vanilla and another arm yet"):
        build_forest(make_request(tmp_path))


def _markers(axes: Axes) -> list[float]:
    dots = [part for part in axes.collections if isinstance(part, PathCollection)]
    return [float(part.get_offsets()[0][0]) for part in dots]
