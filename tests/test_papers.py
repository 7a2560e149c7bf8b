"""Run with `pytest tests/test_papers.py`: the page on papers is what its script writes."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from dirtune.presets import read_methods, read_recipes
from tests.golden.vectors import FOLDER

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "papers.py"))


def test_the_page_is_up_to_date(script: dict[str, Any]) -> None:
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == script["make_page"](), (
        "run: python docs/papers.py"
    )


def test_every_difference_of_a_preset_is_on_the_page(script: dict[str, Any]) -> None:
    page = script["make_page"]()
    assert script["list_unused_methods"]() == []
    reasons = [
        difference.reason
        for preset in (*read_methods().values(), *read_recipes().values())
        for settings in preset.data.values()
        for difference in settings.published
    ]
    assert len(reasons) > 20
    assert [reason for reason in reasons if reason not in page] == []


def test_every_source_of_a_vector_belongs_to_a_paper(script: dict[str, Any]) -> None:
    vectors = json.loads((FOLDER / "training" / "index.json").read_text(encoding="utf-8"))
    sources = {source for paper in script["PAPERS"] for source in paper.sources}
    assert {entry["source"][0] for entry in vectors.values()} <= sources


def test_every_vector_of_a_newest_method_is_in_the_table_and_read_by_a_test(script: dict[str, Any]) -> None:
    newest = json.loads((FOLDER / "newest" / "index.json").read_text(encoding="utf-8"))
    assert {name.partition("_")[0] for name in newest} == script["METHODS"].keys()
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    prefixes = {prefix for source in sources for prefix in re.findall(r'list_newest\("(\w+)"\)', source)}
    unread = {name for name in newest if not any(name.startswith(f"{prefix}_") for prefix in prefixes)}
    assert [name for name in sorted(unread) if "exception" not in newest[name]] == []
