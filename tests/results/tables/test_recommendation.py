"""Run with `pytest tests/results/tables/test_recommendation.py`: sentences that say no more than the table's words."""

from __future__ import annotations

import re
from pathlib import Path

from dirtune.results.tables.recommendation import describe_recommendation
from dirtune.results.tables.table import make_arm_table
from tests.results.record_factory import record, write_study
from tests.results.tables.test_floors import write


def test_the_method_that_helps_is_named_with_its_interval_and_the_best_floor(tmp_path: Path) -> None:
    first, floor = describe_recommendation(write(tmp_path, floors={"median": 1e3, "boosting": 1e3}), "study")[:2]
    table = make_arm_table(tmp_path, "study")
    cell = next(row for row in table.rows if row.arm == "conr").cells["all"]
    assert cell.difference is not None
    share = 100 * (1 - cell.mean / cell.reference_mean)
    assert first.startswith(f"Use conr: it lowers mae in region all by {share:.1f}% against vanilla, from ")
    found = re.search(r"difference (\S+) \[(\S+), (\S+)\] over 6 seeds and \d+ test samples\)\.$", first)
    assert found is not None
    expected = [cell.difference.mean, cell.difference.low, cell.difference.high]
    assert [float(number) for number in found.groups()] == [round(each, 2) for each in expected]
    assert floor.startswith("conr is better than every floor; the best of them is ")


def test_a_floor_that_no_arm_beats_is_named_and_a_constant_one_ends_the_recommendation(tmp_path: Path) -> None:
    sentences = describe_recommendation(write(tmp_path / "a", floors={"median": 1e3, "ridge": None}), "study")
    assert sentences[0].startswith("Use conr: ")
    assert "but: both worse than ridge" in sentences[0]
    assert sentences[1].startswith("Without a training run, ridge is better than conr: 0.01")
    sentences = describe_recommendation(write(tmp_path / "b", floors={"median": None}), "study")
    assert sentences[0].startswith("No recommendation: conr, at ")
    assert "no better than a constant prediction; dirtune check study" in sentences[0]


def test_nothing_is_recommended_that_is_not_decided_or_not_measured(tmp_path: Path) -> None:
    keys = {"reference": "vanilla", "seeds": [0, 1], "arms": ["vanilla", "conr", "lds"]}
    records = [record(arm, seed, error) for arm, error in (("vanilla", 5.0), ("conr", 3.0)) for seed in (0, 1)]
    write_study(tmp_path, records, **keys, claim={"region": "all"})
    first, *others = describe_recommendation(tmp_path, "study")
    assert first == "Keep vanilla: no method is shown to be better in mae in region all, where it has 5."
    assert others == [
        "Undecided: conr (-2.00 [-2.00, -2.00] over 2 seeds; fewer than 3 pairs).",
        "Not measured: lds.",
    ]
    write_study(tmp_path, [record("conr", 0)], name="alone", **keys)
    assert describe_recommendation(tmp_path, "alone")[0].startswith("No recommendation: no trial of vanilla ")


def test_a_reference_whose_trials_failed_is_named_with_the_command_that_runs_them_again(tmp_path: Path) -> None:
    keys = {"reference": "vanilla", "seeds": [0, 1], "arms": ["vanilla", "conr"]}
    records = [record("vanilla", seed, status="failed", error_class="nan") for seed in (0, 1)]
    write_study(tmp_path, [*records, record("conr", 0, status="failed", error_class="code")], **keys)
    expected = "no trial of vanilla is complete, failed: 2 nan; dirtune resume study --retry nan runs them again."
    assert describe_recommendation(tmp_path, "study") == [f"No recommendation: {expected}"]
