from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.results.figures.pareto import build_pareto, draw_pareto
from tests.results.figures.stores import KEYS, VALUES, make_request, write_compared_arms, write_search
from tests.results.record_factory import OFFSETS, record, write_study


def test_points_are_means_and_spreads_over_seeds(tmp_path: Path) -> None:
    data = build_pareto(make_request(write_compared_arms(tmp_path), x="many", y="few/pearson"))

    assert len(data.points) == 4
    for point in data.points:
        values = np.array(list(VALUES[point.arm].values()))
        assert point.x == pytest.approx(values.mean() + OFFSETS["many"])
        assert point.y == pytest.approx((1 - values / 10).mean() + OFFSETS["few"])
        if len(values) > 1:
            assert point.x_sd == pytest.approx(values.std(ddof=1))
    # Small error and large correlation go together here, so that one arm beats all.
    assert [point.arm for point in data.points if point.on_front] == ["conr"]
    assert (data.x_label, data.y_label) == ("MAE [degrees], many", "Pearson r, few")


def test_each_trial_can_be_a_point(tmp_path: Path) -> None:
    data = build_pareto(make_request(write_search(tmp_path), each="trial", x="all", y="few"))

    assert len(data.points) == 12
    assert sum(point.on_front for point in data.points) == 1


def test_points_far_from_front_and_reference_are_counted_in_the_caption(tmp_path: Path) -> None:
    records = [record("vanilla", s, 5.0 + s / 10) for s in range(2)]
    records += [record("conr", s, 4.0 + s / 10) for s in range(2)]
    records += [record("lds", s, 500.0) for s in range(2)]
    write_study(tmp_path, records, **KEYS)

    data = build_pareto(make_request(tmp_path))

    assert data.x_limits[1] < 10
    assert "1 of 3 dots are outside of the axes." in data.caption
    assert "Without both quantities: half." in data.caption


def test_the_front_and_the_reference_are_named(tmp_path: Path) -> None:
    data = build_pareto(make_request(write_compared_arms(tmp_path)))

    figure = draw_pareto(data)

    (axes,) = figure.axes
    assert sorted(axes.get_legend_handles_labels()[1]) == ["conr", "vanilla"]
    assert axes.get_xlim() == pytest.approx(data.x_limits)
    assert (axes.get_xlabel(), axes.get_ylabel()) == (data.x_label, data.y_label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "most"}, "unknown region, got 'most'"),
        ({"y": "few/mea"}, "unknown metric, got 'mea'"),
        ({"each": "seed"}, "unknown each, got 'seed'; known: arm, trial"),
        ({"arms": ("comr",)}, "unknown arm, got 'comr'"),
        ({"split": "train"}, "unknown split"),
    ],
)
def test_unknown_names_are_errors(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_pareto(make_request(write_compared_arms(tmp_path), **options))


def test_an_empty_study_has_nothing_to_draw(tmp_path: Path) -> None:
    write_study(tmp_path, [], **KEYS)
    with pytest.raises(InputError, match="has no complete trial with both quantities yet"):
        build_pareto(make_request(tmp_path))
