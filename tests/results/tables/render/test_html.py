from __future__ import annotations

from html.parser import HTMLParser

from dirtune.results.tables.render.grids import Column, Grid, Row, Shown
from dirtune.results.tables.render.html import make_list, make_table

GRID = Grid(
    title="<a> & b",
    keys=("arm",),
    columns=(Column("MAE", "all"), Column("MAE", "few"), Column("", "n")),
    rows=(Row(("<script>",), (Shown("5 ± 1", bold=True), Shown("-"), Shown("3"))),),
)


class Reader(HTMLParser):
    """Tags that are open, and the texts of the cells by line."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.lines: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.lines.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.lines[-1].append(data)


def test_every_text_is_escaped_and_every_tag_closed() -> None:
    found = Reader(make_table(GRID) + make_list(["x < y", "R&D"]))

    assert found.open == []
    assert "script" not in found.tags
    assert found.lines == [["MAE"], ["arm", "all", "few", "n"], ["<script>", "5 ± 1", "-", "3"]]


def test_groups_span_their_columns_and_bold_is_strong() -> None:
    text = make_table(GRID)

    assert '<td></td><th colspan="2">MAE</th><th colspan="1"></th>' in text
    assert "<td><strong>5 ± 1</strong></td><td>-</td>" in text
    assert "<caption>&lt;a&gt; &amp; b</caption>" in text


def test_a_list_has_an_item_per_text() -> None:
    assert make_list(["x < y", "z"]) == "<ul>\n<li>x &lt; y</li>\n<li>z</li>\n</ul>"
