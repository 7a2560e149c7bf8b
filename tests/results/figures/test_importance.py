from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.figures.importance import build_importance, draw_importance
from dirtune.results.records.store import read_table
from dirtune.results.statistics.importance import compute_importance
from tests.results.figures.stores import SPACE, make_request, write_search


@pytest.mark.parametrize("method", ["ped_anova", "fanova"])
def test_shares_are_those_of_the_complete_trials(tmp_path: Path, method: str) -> None:
    root = write_search(tmp_path, complete=30)

    data = build_importance(make_request(root, method=method))

    rows = [r for r in read_table(root, "trials").to_pylist() if r["status"] == "complete"]
    # FANOVA's forest depends on the order, which is that of their end
    rows = rows[::-1]
    expected = compute_importance(
        [{path: row[f"config.{path}"] for path in SPACE} for row in rows],
        [row["objective"] for row in rows],
        SPACE,
        method=method,
    )
    assert dict(zip(data.settings, data.shares, strict=True)) == pytest.approx(expected)
    # Which is the objective
    assert data.settings[0] == "terms.conr.omega"
    assert "over 30 complete trials. Left out: 3 pruned or failed." in data.caption


def test_a_bar_per_setting_with_its_share(tmp_path: Path) -> None:
    data = build_importance(make_request(write_search(tmp_path)))

    (axes,) = draw_importance(data).axes

    assert [bar.get_width() for bar in axes.patches] == pytest.approx(data.shares)
    assert [text.get_text() for text in axes.texts] == [f"{share:.0%}" for share in data.shares]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(data.settings)
    assert "So few trials show mostly noise." in data.caption


def test_too_few_trials_and_unknown_methods_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 4 complete trials of a search, got 3"):
        build_importance(make_request(write_search(tmp_path / "a", complete=3)))
    with pytest.raises(InputError, match="unknown method, got 'shap'; known: fanova, ped_anova"):
        build_importance(make_request(write_search(tmp_path / "b"), method="shap"))
