from __future__ import annotations

import math

import pytest
from matplotlib.figure import Figure

from dirtune.results.figures._bands import draw_bands, make_band
from dirtune.results.figures._style import REFERENCE_COLOR


def test_a_band_has_mean_spread_and_number_in_the_order_of_x() -> None:
    found = make_band("a", {2: [1.0, 3.0], 1: [5.0], 3: []})

    assert (found.x, found.means, found.n) == ((1, 2), (5.0, 2.0), (1, 2))
    assert math.isnan(found.sds[0])
    assert found.sds[1] == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(("markers", "kinds"), [(True, {"o", "s"}), (False, {"None"})])
def test_bands_are_lines_and_areas(markers: bool, kinds: set[str]) -> None:
    axes = Figure().add_subplot()
    values = {1: [1.0, 3.0], 2: [4.0, 8.0]}

    draw_bands(axes, [make_band("a", values), make_band("b", values)], "b", markers=markers)

    assert {line.get_marker() for line in axes.lines} == kinds
    assert axes.lines[1].get_color() == REFERENCE_COLOR
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.min() == pytest.approx(2 - math.sqrt(2))
    assert corners.max() == pytest.approx(6 + math.sqrt(8))
