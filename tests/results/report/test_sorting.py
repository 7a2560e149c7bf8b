"""The script of the report, run by Node with a document of its own making."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node on this machine")

SCRIPT = files("dirtune.results.report").joinpath("sorting.js").read_text(encoding="utf-8")
# As much of a document as the script touches.
DOCUMENT = """
class Element {
  constructor(text) { this.own = text; this.children = []; this.attributes = {}; this.heard = {}; }
  get textContent() { return this.own ?? this.children.map((child) => child.textContent).join(""); }
  set textContent(text) { this.own = text; }
  replaceChildren(...children) { this.own = undefined; this.children = children; }
  append(...moved) { this.rows = [...this.rows.filter((row) => !moved.includes(row)), ...moved]; }
  getAttribute(name) { return this.attributes[name] ?? null; }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  addEventListener(name, call) { this.heard[name] = call; }
}
const line = (texts) => ({ cells: texts.map((text) => new Element(text)) });
const table = { tHead: { rows: [line(INPUT.header)] }, tBodies: [new Element("")] };
table.tBodies[0].rows = INPUT.rows.map(line);
globalThis.document = {
  querySelectorAll: () => [table],
  createElement: () => new Element(""),
};
"""
SHOW = """
const states = INPUT.clicks.map((column) => {
  const header = table.tHead.rows[0].cells[column];
  header.children[0].heard.click();
  return {
    rows: table.tBodies[0].rows.map((row) => row.cells.map((cell) => cell.textContent)),
    sorted: table.tHead.rows[0].cells.map((cell) => cell.getAttribute("aria-sort")),
  };
});
console.log(JSON.stringify(states));
"""


def run_clicks(header: list[str], rows: list[list[str]], clicks: list[int]) -> list[dict[str, Any]]:
    """The table after each click on a heading."""
    given = json.dumps({"header": header, "rows": rows, "clicks": clicks})
    source = "\n".join([f"const INPUT = {given};", DOCUMENT, SCRIPT.replace('"use strict";', ""), SHOW])
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-"], input=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    states: list[dict[str, Any]] = json.loads(done.stdout)
    return states


def read_column(state: dict[str, Any], at: int) -> list[str]:
    return [row[at] for row in state["rows"]]


def test_numbers_with_spreads_and_intervals_are_sorted_as_numbers() -> None:
    rows = [["a", "10.00 ± 1.00"], ["b", "9.50"], ["c", "-"], ["d", "-1.2 [-3, +1] helps"]]

    up, down = run_clicks(["arm", "all"], rows, [1, 1])

    assert read_column(up, 0) == ["d", "b", "a", "c"]
    assert read_column(down, 0) == ["a", "b", "d", "c"]
    assert (up["sorted"], down["sorted"]) == ([None, "ascending"], [None, "descending"])


def test_texts_are_sorted_alphabetically_and_empty_ones_are_last() -> None:
    rows = [["vanilla"], [""], ["10a"], ["accon"], ["2b"]]

    up, down = run_clicks(["arm"], rows, [0, 0])

    assert read_column(up, 0) == ["10a", "2b", "accon", "vanilla", ""]
    assert read_column(down, 0) == ["vanilla", "accon", "2b", "10a", ""]


def test_equal_rows_keep_their_order_and_another_heading_replaces_the_first() -> None:
    rows = [["b", "1"], ["a", "1"], ["c", "0"]]

    by_number, by_name = run_clicks(["arm", "seed"], rows, [1, 0])

    assert read_column(by_number, 0) == ["c", "b", "a"]
    assert read_column(by_name, 0) == ["a", "b", "c"]
    assert by_name["sorted"] == ["ascending", None]


def test_a_trial_id_that_looks_like_a_number_is_still_a_text() -> None:
    rows = [["9e1a"], ["10ff"], ["ab12"]]

    (up,) = run_clicks(["trial"], rows, [0])

    assert read_column(up, 0) == ["10ff", "9e1a", "ab12"]


def test_an_empty_table_can_be_sorted() -> None:
    (up,) = run_clicks(["arm"], [], [0])

    assert up["rows"] == []
