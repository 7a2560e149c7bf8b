from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.results.figures.heatmap import build_heatmap, draw_heatmap
from tests.results.figures.stores import KEYS, VALUES, make_request, write_compared_arms, write_many_arms
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import OFFSETS, record, write_study


def by_loops(arm: str, region: str, *, relative: bool) -> float:
    pairs = [(VALUES[arm][s], VALUES["vanilla"][s]) for s in VALUES[arm] if s in VALUES["vanilla"]]
    difference = sum(a - b for a, b in pairs) / len(pairs)
    level = sum(b + OFFSETS[region] for _, b in pairs) / len(pairs)
    return 100 * difference / level if relative else difference


@pytest.mark.parametrize("relative", [False, True])
def test_cells_are_mean_differences_over_the_seeds_of_both(tmp_path: Path, relative: bool) -> None:
    data = build_heatmap(make_request(write_compared_arms(tmp_path), relative=relative))

    assert data.arms == ("conr", "lds", "half")
    for arm, row in zip(data.arms, data.differences, strict=True):
        for region, value in zip(data.regions, row, strict=True):
            assert value == pytest.approx(by_loops(arm, region, relative=relative))
    sizes = sorted(abs(value) for row in data.differences for value in row)
    assert sizes[0] < np.quantile(sizes, 0.9) <= data.limit < 1.1 * np.quantile(sizes, 0.9)
    assert data.label == f"MAE [{'%' if relative else 'degrees'}]: difference to vanilla"


def test_better_is_blue_for_errors_and_correlations(tmp_path: Path) -> None:
    root = write_compared_arms(tmp_path)

    colors = {}
    for metric in ("mae", "pearson"):
        (axes, _) = draw_heatmap(build_heatmap(make_request(root, metric=metric))).axes
        (image,) = axes.images
        colors[metric] = image.to_rgba(image.get_array())

    red, blue = 0, 2
    # Conr: smaller error
    assert (colors["mae"][0, :, blue] > colors["mae"][0, :, red]).all()
    # Larger correlation
    assert (colors["pearson"][0, :, blue] > colors["pearson"][0, :, red]).all()


def test_every_cell_has_its_number_and_significance_a_star(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "many"})
    data = build_heatmap(make_request(tmp_path))

    (axes, bar) = draw_heatmap(data).axes

    texts = [text.get_text() for text in axes.texts]
    flat = [value for row in data.differences for value in row]
    assert [float(text.rstrip("*")) for text in texts] == pytest.approx(flat, abs=0.005)
    assert [text.endswith("*") for text in texts] == [s for row in data.significant for s in row]
    # In the claim's column alone
    assert data.significant[-1] == (False, True, False, False)
    assert "Claim: mae in region many, no margin." in data.caption
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(data.arms)
    assert bar.get_xlabel() == data.label


def test_numbers_have_the_digits_of_the_table_and_percents_one(tmp_path: Path) -> None:
    root = write_compared_arms(tmp_path)

    decimals = {
        (metric, relative): {len(text.get_text().rstrip("*").split(".")[1]) for text in axes.texts}
        for metric, relative in (("mae", False), ("mae", True), ("pearson", False))
        for axes in draw_heatmap(build_heatmap(make_request(root, metric=metric, relative=relative))).axes[:1]
    }

    assert decimals == {("mae", False): {2}, ("mae", True): {1}, ("pearson", False): {3}}


def test_a_cell_without_a_pair_stays_empty(tmp_path: Path) -> None:
    records = [record("vanilla", 0), record("conr", 0, 4.0), record("lds", 1)]
    write_study(tmp_path, records, **KEYS)

    data = build_heatmap(make_request(tmp_path))

    missing = [arm for arm, row in zip(data.arms, data.differences, strict=True) if math.isnan(row[0])]
    assert missing == ["lds", "half"]
    assert len(draw_heatmap(data).axes[0].texts) == 4


def test_one_diverged_arm_does_not_determine_the_color_scale(tmp_path: Path) -> None:
    records = [record(f"a{i}", s, 5.0 + i / 10) for i in range(20) for s in range(2)]
    records += [record("wild", s, 500.0) for s in range(2)]
    write_study(tmp_path, records, arms=[*(f"a{i}" for i in range(20)), "wild"], reference="a0")

    data = build_heatmap(make_request(tmp_path))

    # 1.81
    quantile = np.quantile([i / 10 for i in range(1, 20)] + [495.0], 0.9)
    assert data.limit == pytest.approx(1.9)
    assert data.limit - 0.1 < quantile
    assert "Colors end at ±1.9;" in data.caption


def test_an_infinite_difference_leaves_the_color_scale_to_the_others(tmp_path: Path) -> None:
    records = [record(arm, 0, value) for arm, value in (("a", 5.0), ("b", 5.5), ("c", math.inf))]
    write_study(tmp_path, records, arms=["a", "b", "c"], reference="a")

    data = build_heatmap(make_request(tmp_path))

    assert math.isinf(data.differences[1][0])
    assert data.limit == pytest.approx(0.5)


def test_arms_beyond_the_room_of_a_page_are_dropped_by_a_stated_rule(tmp_path: Path) -> None:
    data = build_heatmap(make_request(write_many_arms(tmp_path, 50)))

    assert len(data.arms) == 43
    assert data.arms[0].endswith("07")
    assert "44 of 50 arms are shown: the reference and those with the best" in data.caption


def test_without_a_reference_or_a_pair_there_is_nothing_to_draw(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)], arms=["a"], seeds=[0])
    with pytest.raises(InputError, match="study study: has no reference; give one"):
        build_heatmap(make_request(tmp_path))
    with pytest.raises(InputError, match="has no common seed of a and another arm yet"):
        build_heatmap(make_request(tmp_path, reference="a"))
