from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.results.report.page import page, report
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.footer import footer
from dirtune.results.tables.layout import grids_of
from tests.results.record_factory import record, write_study

EVIL = "<script>alert('x')</script> & \"<b>\" '"
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, texts, and whether the nesting is sound."""

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

    def of(self, tag: str) -> list[str]:
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


def test_the_page_is_sound_and_has_all_sections(root: Path) -> None:
    text = page(root, "study")
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
    found = Page(page(root, "study"))
    table = compare(root, TableRequest(studies=("study",)))

    said = {text for _, text in found.texts}
    for grid in grids_of(table):
        assert grid.title in said
        for row in grid.rows:
            assert {*row.keys, *(cell.text for cell in row.cells)} <= said
    assert set(footer(table)) <= set(found.of("li"))
    bold = [cell.text for grid in grids_of(table) for row in grid.rows for cell in row.cells if cell.bold]
    assert found.of("strong") == bold
    assert len(bold) == 4


def test_nothing_that_a_name_or_an_error_says_becomes_markup(root: Path) -> None:
    found = Page(page(root, "study"))

    (script,) = found.of("script")
    assert "alert" not in script
    assert sum(tag == "script" for tag, _ in found.elements) == 1
    assert not [tag for tag, _ in found.elements if tag == "b"]
    assert f"Why {EVIL}?" in found.of("p")
    assert EVIL in found.of("th")
    assert f"{EVIL}\nTraceback" in found.of("td")
    attributes = [name for _, found_here in found.elements for name in found_here]
    assert not [name for name in attributes if name.startswith("on")]


def test_nothing_is_loaded_and_only_the_own_script_may_run(root: Path) -> None:
    found = Page(page(root, "study"))

    (policy,) = [
        attributes["content"]
        for tag, attributes in found.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    (script,) = found.of("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'")
    assert not [tag for tag, _ in found.elements if tag in {"link", "img", "iframe", "base"}]
    for tag, attributes in found.elements:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), tag
    (style,) = [text for text in found.of("style") if "prefers-color-scheme" in text]
    assert not re.search(r"url\(|@import", style)
    assert "@media print" in style


@pytest.mark.parametrize("keys", [{}, {"arms": ["a", "b"], "reference": "a", "seeds": [0, 1]}])
def test_a_study_without_results_gives_a_report_of_holes(tmp_path: Path, keys: dict[str, object]) -> None:
    write_study(tmp_path, [], question="?", **keys)

    found = Page(page(tmp_path, "study"))

    assert any("none recorded" in text for text in found.of("dd"))
    assert "None." in found.of("p")
    assert found.of("td").count("not recorded") == (4 if keys else 0)


def test_a_half_done_study_gives_a_report(tmp_path: Path) -> None:
    records = [record("a", 0), record("b", 0, status="pruned")]
    write_study(tmp_path, records, arms=["a", "b", "c"], reference="a", seeds=[0, 1])

    found = Page(page(tmp_path, "study"))

    assert {"pruned", "not recorded"} <= set(found.of("td"))


def test_the_file_is_written_where_it_is_asked_for(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "deeper" / "out.html"
    monkeypatch.chdir(tmp_path)

    assert report(root, "study", output=asked) == asked
    assert dirtune.report(root, "study") == Path("reports/study.html")
    for file in (asked, tmp_path / "reports/study.html"):
        assert Page(file.read_text(encoding="utf-8")).of("h1") == ["study"]


def test_a_damaged_file_is_named(root: Path) -> None:
    (root / "study/results/metrics/vanilla-0.parquet").write_bytes(b"damaged")

    with pytest.raises(InputError, match=r"vanilla-0.parquet: damaged Parquet file"):
        page(root, "study")
