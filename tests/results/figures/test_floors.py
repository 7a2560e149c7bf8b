"""Run with `pytest tests/results/figures/test_floors.py`: floors as thin lines in figures of errors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures.forest import build_forest, draw_forest
from dirtune.results.figures.regions import build_regions, draw_regions
from dirtune.results.report.page import render_page
from tests.results.tables.test_floors import FALLING, write


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> PlotRequest:
    root = write(tmp_path_factory.mktemp("store"), curve=FALLING, floors={"median": 50.0, "boosting": None})
    return PlotRequest(root=root, study="study")


def test_bars_have_the_median_and_boosting_as_lines(request_: PlotRequest) -> None:
    bars, table = build_regions(request_), request_.build_table()
    expected = {row.name: row.values for row in table.floors}
    assert [name for name, _ in bars.floors] == ["median", "boosting"]
    for name, values in bars.floors:
        assert values == tuple(expected[name][region] for region in bars.regions)
    assert "(dashed: the median, dotted: boosting; a number at the upper edge if beyond it)" in bars.caption
    (axes,) = draw_regions(bars).axes
    drawn = [line.get_ydata() for line in axes.lines if line.get_linestyle() in {"--", ":"}]
    assert sorted({float(y[0]) for y in drawn}) == sorted(set(expected["boosting"].values()))
    # The median is far above the bars, whose axis it does not change: it is a number.
    assert axes.get_ylim()[1] < expected["median"]["all"]
    numbers = [text.get_text() for text in axes.texts]
    assert numbers == [f"median {expected['median'][region]:.3g} \N{UPWARDS ARROW}" for region in bars.regions]


def test_a_forest_has_them_as_differences_to_the_reference(request_: PlotRequest) -> None:
    forest, table = build_forest(request_), request_.build_table()
    reference = next(row for row in table.rows if row.arm == "vanilla")
    for region, values in zip(forest.regions, forest.floors, strict=True):
        expected = [row.values[region] - reference.cells[region].mean for row in table.floors]
        assert list(values) == pytest.approx(expected)
    assert draw_forest(forest).axes


def test_figures_without_floors_have_no_lines(tmp_path: Path) -> None:
    request_ = PlotRequest(root=write(tmp_path), study="study")
    assert build_regions(request_).floors == ()
    assert "without a training run" not in build_regions(request_).caption
    assert set(build_forest(request_).floors) == {()}
    assert not math.isnan(build_regions(request_).means[0][0])


def test_a_report_begins_with_the_findings(request_: PlotRequest) -> None:
    page = render_page(request_.root, "study")
    place = page.index("conr, vanilla" if "conr, vanilla" in page else "vanilla, conr")
    finding = page.index("not converged: the validation objective still improves at the end")
    assert page.index("<h2>Findings</h2>") < place < finding < page.index("<h2>Results</h2>")
