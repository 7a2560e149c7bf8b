"""Run with `pytest tests/results/tables/test_sizes.py`: numbers of every size are printed with their digits, and checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dirtune.results.tables.check import check
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from tests.results.record_factory import record, write_study

SIZES = (8e-6, 1.3e-4, 0.05, 0.9, 7.5, 4.2e4, 4e9, 4e33)
STYLES = ("table", "markdown", "latex", "html")


def _store(root: Path, arms: dict[str, float]) -> None:
    records = []
    for arm, mean in arms.items():
        for seed in range(4):
            rows = [
                {"split": "test", "selection": "best_val", "region": region, "metric": "mae", "value": value, "n": 200}
                for region, factor in (("all", 1.0), ("many", 0.8), ("medium", 1.1), ("few", 1.4))
                for value in [mean * factor * (1 + 0.01 * seed)]
            ]
            records.append(record(arm, seed, metrics=[*rows, *({**row, "split": "val"} for row in rows)]))
    write_study(root, records, arms=list(arms))


@pytest.mark.parametrize("size", SIZES)
def test_a_table_shows_three_digits_of_what_it_compares_and_a_check_supports_no_other_number(
    tmp_path: Path, size: float
) -> None:
    _store(tmp_path, {"vanilla": size, "conr": 0.9 * size})
    request = TableRequest(studies=("study",))
    comparison = compare(tmp_path, request)
    texts = {style: render(comparison, style) for style in STYLES}
    for style, text in texts.items():
        assert not re.search(r"\b0\.0+ ", text), style
        # No number of many digits
        assert not re.search(r"\d{9}", re.sub(r"\{.*\}", "", text)), style
        # As four seeds have it
        mean = size * (1 + 0.01 * (0 + 1 + 2 + 3) / 4)
        found = [float(each) for each in re.findall(r"\d+(?:\.\d+)?(?:e[-+]\d+)?", text)]
        assert any(abs(value / mean - 1) < 0.006 for value in found), style

    # A check reads no page of HTML.
    checked = [text for style, text in texts.items() if style != "html"]
    assert not any(check(tmp_path, text, request).findings for text in checked)
    _store(tmp_path, {"vanilla": size, "conr": 0.93 * size})
    assert all(check(tmp_path, text, request).findings for text in checked)


def test_one_arm_of_another_size_does_not_change_the_digits_of_the_others(tmp_path: Path) -> None:
    _store(tmp_path, {"vanilla": 7.5, "conr": 7.0, "diverged": 4e33, "tiny": 2e-6})
    text = render(compare(tmp_path, TableRequest(studies=("study",))), "table")
    assert "7.613 ±" in text
    assert "4.06e+33 ±" in text
    assert "2.03e-06 ±" in text


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "html", "csv", "json"])
def test_names_with_backslashes_are_shown_as_they_are(tmp_path: Path, style: str) -> None:
    _store(tmp_path, {"vanilla": 7.5, "{a}~^\\": 7.0, "[bold]x[/bold]": 6.0})
    text = render(compare(tmp_path, TableRequest(studies=("study",))), style)
    shown = {"latex": r"\{a\}\textasciitilde{}\textasciicircum{}\textbackslash{}", "json": r'"{a}~^\\"'}
    assert shown.get(style, "{a}~^\\") in text
    assert style in {"json"} or "{a}~^\\\\" not in text
