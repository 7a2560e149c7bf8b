from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.results.report.page import render_page, write_report
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.footer import make_footer
from dirtune.results.tables.render.grids import make_grids
from tests.results.record_factory import record, write_study

EVIL = "<script>alert('x')</script> & \"<b>\" '"
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Parsed page: elements with their attributes, and texts; asserts that the nesting is valid."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        # Innermost element and text
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data))

    def get_texts(self, tag: str) -> list[str]:
        return [text for innermost, text in self.texts if innermost == tag]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    records = [record("vanilla", seed, 5.0 + 0.2 * seed) for seed in range(3)]
    records += [record(EVIL, seed, 4.0 + 0.22 * seed, trial_id=f"evil-{seed}", config={"x": EVIL}) for seed in range(3)]
    records += [record("broken", 0, status="failed", error=f"{EVIL}\nTraceback")]
    write_study(
        tmp_path,
        records,
        question=f"Why {EVIL}?",
        reference="vanilla",
        seeds=[0, 1, 2],
        arms=["vanilla", EVIL, "broken"],
        data={"name": EVIL, "unit": EVIL},
        configs={"vanilla": {"x": 1}, EVIL: {"x": EVIL}, "broken": {"x": 1}},
    )
    return tmp_path


def test_the_page_is_valid_and_has_all_sections(root: Path) -> None:
    text = render_page(root, "study")
    found = Page(text)

    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert text.endswith("</html>")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"results", "figures", "missing", "settings", "provenance", "trials"} <= set(ids)
    links = [attributes["href"] for tag, attributes in found.elements if tag == "a"]
    assert {str(link).removeprefix("#") for link in links} <= set(ids)
    # Regions and forest
    assert sum(tag == "svg" for tag, _ in found.elements) == 2
    assert [text for _, text in found.texts if text.startswith("Not drawn: ")] == ["Not drawn: 3"]


def test_the_page_has_the_table_of_the_command_line_and_its_footer(root: Path) -> None:
    found = Page(render_page(root, "study"))
    table = compare(root, TableRequest(studies=("study",)))

    shown = {text for _, text in found.texts}
    for grid in make_grids(table):
        assert grid.title in shown
        for row in grid.rows:
            assert {*row.keys, *(cell.text for cell in row.cells)} <= shown
    assert set(make_footer(table)) <= set(found.get_texts("li"))
    bold = [cell.text for grid in make_grids(table) for row in grid.rows for cell in row.cells if cell.bold]
    assert found.get_texts("strong") == bold


def test_names_and_errors_are_never_markup(root: Path) -> None:
    found = Page(render_page(root, "study"))

    (script,) = found.get_texts("script")
    assert "alert" not in script
    assert sum(tag == "script" for tag, _ in found.elements) == 1
    assert not [tag for tag, _ in found.elements if tag == "b"]
    assert f"Why {EVIL}?" in found.get_texts("p")
    assert EVIL in found.get_texts("th")
    assert f"{EVIL}\nTraceback" in found.get_texts("td")
    attributes = [name for _, found_here in found.elements for name in found_here]
    assert not [name for name in attributes if name.startswith("on")]


def test_no_request_is_possible_and_only_the_own_script_runs(root: Path) -> None:
    found = Page(render_page(root, "study"))

    (policy,) = [
        attributes["content"]
        for tag, attributes in found.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    (script,) = found.get_texts("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'")
    assert not [tag for tag, _ in found.elements if tag in {"link", "img", "iframe", "base"}]
    for tag, attributes in found.elements:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), tag
    (style,) = [text for text in found.get_texts("style") if "prefers-color-scheme" in text]
    assert not re.search(r"url\(|@import", style)
    assert "@media print" in style


@pytest.mark.parametrize("keys", [{}, {"arms": ["a", "b"], "reference": "a", "seeds": [0, 1]}])
def test_the_report_of_a_study_without_results_lists_missing_trials(tmp_path: Path, keys: dict[str, object]) -> None:
    write_study(tmp_path, [], question="?", **keys)

    found = Page(render_page(tmp_path, "study"))

    assert any("none recorded" in text for text in found.get_texts("dd"))
    assert "None." in found.get_texts("p")
    assert found.get_texts("td").count("not recorded") == (4 if keys else 0)


def test_an_incomplete_study_has_a_report(tmp_path: Path) -> None:
    records = [record("a", 0), record("b", 0, status="pruned")]
    write_study(tmp_path, records, arms=["a", "b", "c"], reference="a", seeds=[0, 1])

    found = Page(render_page(tmp_path, "study"))

    assert {"pruned", "not recorded"} <= set(found.get_texts("td"))


def test_the_file_is_written_to_the_given_or_the_default_path(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "deeper" / "out.html"
    monkeypatch.chdir(tmp_path)

    assert write_report(root, "study", output=asked) == asked
    assert dirtune.report("study", results=root) == Path("reports/study.html")
    for file in (asked, tmp_path / "reports/study.html"):
        assert Page(file.read_text(encoding="utf-8")).get_texts("h1") == ["study"]


def test_a_damaged_file_is_an_error_with_its_name(root: Path) -> None:
    (root / "study/results/metrics/vanilla-0.parquet").write_bytes(b"damaged")

    with pytest.raises(InputError, match=r"vanilla-0.parquet: damaged Parquet file"):
        render_page(root, "study")
