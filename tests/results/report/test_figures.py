from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from dirtune.results.report.figures import REPORT_FIGURES, SEARCH_FIGURES, SVG, draw_pictures, prefix_identifiers
from tests.results.figures.stores import write_compared_arms, write_representations, write_search
from tests.results.record_factory import record, write_study

SMALL = (
    '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" '
    'xmlns:xlink="http://www.w3.org/1999/xlink"><metadata>by</metadata>'
    '<defs><path id="m"/></defs><g clip-path="url(#c)" style="fill: url(#m)"><use xlink:href="#m"/>'
    '<text>id="x" &lt;script&gt; url(#no)</text></g></svg>'
)


def test_identifiers_and_references_to_them_get_the_prefix() -> None:
    found = prefix_identifiers(SMALL, prefix="curve-a.b ")

    assert found.startswith("<svg")
    assert 'id="curve-a-b-m"' in found
    assert 'clip-path="url(#curve-a-b-c)"' in found
    assert 'style="fill: url(#curve-a-b-m)"' in found
    assert 'xlink:href="#curve-a-b-m"' in found
    assert "metadata" not in found


def test_text_is_unchanged() -> None:
    assert '<text>id="x" &lt;script&gt; url(#no)</text>' in prefix_identifiers(SMALL, prefix="p-")


def test_a_varied_setting_has_a_curve_and_identifiers_are_unique(tmp_path: Path) -> None:
    records = [
        record(f"conr {omega}", seed, omega + seed, config={"omega": omega}) for omega in (1.0, 2.0) for seed in (0, 1)
    ]
    write_study(tmp_path, records, reference="conr 1.0")

    drawn = [picture for picture in draw_pictures(tmp_path, "study", ["omega"], is_search=False) if picture.svg]

    regions, forest, curve = drawn
    assert regions.title == "Arms by shot region"
    assert forest.title == "Differences to the reference, with intervals"
    assert curve.title == "Metric against omega"
    assert {picture.problem for picture in drawn} == {""}
    ids = [
        element.get("id")
        for picture in drawn
        for element in ElementTree.fromstring(picture.svg).iter()
        if element.get("id")
    ]
    assert len(ids) == len(set(ids)) > 20
    assert any("shot region" in text for text in _texts(regions.svg))
    assert any("omega" in text for text in _texts(curve.svg))


def test_a_figure_that_cannot_be_drawn_has_a_problem(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])

    *_, curve = draw_pictures(tmp_path, "study", ["terms.conr.omega"], is_search=False)

    assert curve.svg == ""
    assert "x: must be a setting that is a number in some trial" in curve.problem


@pytest.mark.slow
def test_every_kind_is_drawn_for_a_study_with_its_data(tmp_path: Path) -> None:
    drawn = {
        picture.title
        for root in (
            write_search(tmp_path / "a"),
            write_representations(tmp_path / "b"),
            write_compared_arms(tmp_path / "c"),
        )
        for picture in draw_pictures(root, "study", [], is_search=True)
        if picture.svg
    }

    assert drawn == {*REPORT_FIGURES.values(), *SEARCH_FIGURES.values()}


def test_figures_of_an_empty_study_are_drawn_or_have_a_problem(tmp_path: Path) -> None:
    write_study(tmp_path, [], arms=["a"], reference="a", seeds=[0])

    found = list(draw_pictures(tmp_path, "study", [], is_search=False))

    assert [picture.title for picture in found] == list(REPORT_FIGURES.values())
    assert all(picture.svg or picture.problem for picture in found)


def _texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in ElementTree.fromstring(svg).iter(f"{{{SVG}}}text")]
