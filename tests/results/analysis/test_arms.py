from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.results.analysis.arms import StudyRuns, filter_rows, get_values_by_trial, match_arms, read_study_runs
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.studies import read_study
from tests.results.record_factory import metric_rows, record, write_study


def runs_of(root: Path, records: list[TrialRecord], rule: str = "best_val", **keys: object) -> StudyRuns:
    storage = write_study(root, records, **keys)
    return read_study_runs(storage, read_study(storage), SELECTIONS[rule])


def searched(seed: int, objectives: list[float], *, status: str = "complete") -> list[TrialRecord]:
    return [
        record("tuned", seed, 9.0 - value, trial_id=f"s{seed}-{i}", objective=value, status=status)
        for i, value in enumerate(objectives)
    ]


def test_arms_come_in_the_order_of_the_study(tmp_path: Path) -> None:
    records = [record(arm, 0) for arm in ("a", "b", "c")]

    assert [arm.arm for arm in runs_of(tmp_path, records, arms=["c", "a", "b"]).arms] == ["c", "a", "b"]


def test_without_a_study_file_arms_come_by_name(tmp_path: Path) -> None:
    assert [arm.arm for arm in runs_of(tmp_path, [record("b", 0), record("a", 4)]).arms] == ["a", "b"]


def test_a_searched_arm_is_its_best_configuration_on_validation_data(tmp_path: Path) -> None:
    (arm,) = runs_of(tmp_path, searched(0, [3.0, 1.0, 2.0]) + searched(1, [0.5, 0.7])).arms

    assert {seed: chosen.trial_id for seed, chosen in arm.chosen.items()} == {0: "s0-1", 1: "s1-0"}
    assert arm.tried == {0: 3, 1: 2}
    assert arm.missing == ()


def test_the_oracle_chooses_the_opposite_where_test_contradicts_validation(tmp_path: Path) -> None:
    (arm,) = runs_of(tmp_path, searched(0, [3.0, 1.0, 2.0]), "oracle").arms

    assert arm.chosen[0].trial_id == "s0-0"


def test_the_last_epoch_is_judged_by_its_own_validation_number(tmp_path: Path) -> None:
    def trial(name: str, objective: float, last: float) -> TrialRecord:
        rows = metric_rows(objective, epochs=["best_val"]) + metric_rows(last, epochs=["last"])
        return record("a", 0, trial_id=name, objective=objective, metrics=rows)

    records = [trial("overfits", 1.0, 8.0), trial("steady", 2.0, 3.0)]

    assert runs_of(tmp_path / "1", records, "best_val").arms[0].chosen[0].trial_id == "overfits"
    assert runs_of(tmp_path / "2", records, "last").arms[0].chosen[0].trial_id == "steady"


def test_the_largest_objective_wins_where_higher_is_better(tmp_path: Path) -> None:
    records = [
        record("a", 0, trial_id=name, objective=value, metrics=metric_rows(value, metric="pearson"))
        for name, value in (("low", 0.2), ("high", 0.9), ("middle", 0.5))
    ]
    for rule in SELECTIONS:
        runs = runs_of(tmp_path / rule, records, rule, objective={"metric": "pearson"})
        assert runs.arms[0].chosen[0].trial_id == "high"


def test_pruned_and_failed_configurations_are_counted_and_never_chosen(tmp_path: Path) -> None:
    records = [
        *searched(0, [3.0]),
        record("tuned", 0, trial_id="p", objective=0.1, status="pruned", metrics=metric_rows(0.1)),
        record("tuned", 0, trial_id="f", objective=0.1, status="failed"),
    ]
    (arm,) = runs_of(tmp_path, records).arms

    assert arm.chosen[0].trial_id == "s0-0"
    assert (arm.tried, arm.unfinished, arm.missing) == ({0: 3}, {"pruned": 1, "failed": 1}, ())


def test_a_seed_without_a_complete_trial_is_missing_with_its_reason(tmp_path: Path) -> None:
    records = [
        record("a", 0),
        record("a", 1, status="failed", error="loss term 'conr' is not finite\nTraceback ..."),
        record("a", 2, status="pruned"),
        record("a", 4, trial_id="x", status="failed", error="e" * 500),
        record("a", 5, trial_id="y1", status="pruned"),
        record("a", 5, trial_id="y2", status="failed"),
    ]
    (arm,) = runs_of(tmp_path, records, arms=["a"], seeds=[0, 1, 2, 3]).arms

    reasons = {gap.seed: gap.reason for gap in arm.missing}
    assert set(arm.chosen) == {0}
    assert reasons[1] == "failed: loss term 'conr' is not finite"
    assert (reasons[2], reasons[3]) == ("pruned", "not recorded")
    assert len(reasons[4]) == 100
    assert reasons[5] == "no complete trial: 1 failed, 1 pruned"


def test_every_seed_of_an_arm_that_has_not_started_is_missing(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [record("a", 0)], arms=["a", "b"], seeds=[0, 1])

    assert [(gap.arm, gap.seed) for arm in runs.arms for gap in arm.missing] == [("a", 1), ("b", 0), ("b", 1)]


def test_trials_that_the_study_no_longer_plans_are_counted_and_left_out(tmp_path: Path) -> None:
    records = [
        record("a", 0, 5.0, trial_id="new"),
        record("a", 0, 1.0, trial_id="old"),
        record("gone", 0, 1.0, trial_id="other"),
    ]
    planned = [{"arm": "a", "seed": 0, "replicate": 0, "trial_id": "new"}]
    runs = runs_of(tmp_path, records, arms=["a"], planned=planned)

    assert runs.arms[0].chosen[0].trial_id == "new"
    assert runs.arms[0].tried == {0: 1}
    assert runs.orphans == 2


def test_a_planned_trial_counts_for_its_arm_whichever_arm_recorded_it(tmp_path: Path) -> None:
    records = [record("tuned", 0, trial_id="same")]
    planned = [{"arm": "fixed", "seed": 0, "replicate": 0, "trial_id": "same"}]
    runs = runs_of(tmp_path, records, arms=["fixed", "tuned"], planned=planned)

    assert [set(arm.chosen) for arm in runs.arms] == [{0}, {0}]


def test_a_trial_without_metrics_is_still_a_candidate(tmp_path: Path) -> None:
    (arm,) = runs_of(tmp_path, [record("a", 0, metrics=[])]).arms

    assert arm.chosen[0].trial_id == "a-0"


def test_an_arm_has_its_values_on_the_axes_and_not_those_of_who_recorded_its_trial(tmp_path: Path) -> None:
    records = [
        record("a omega=1", 0, trial_id="own", cell='{"omega": 1}'),
        record("b omega=2", 0, trial_id="shared", cell='{"omega": 2}'),
    ]
    planned = [
        {"arm": "a omega=1", "seed": 0, "replicate": 0, "trial_id": "own"},
        {"arm": "c", "seed": 0, "replicate": 0, "trial_id": "shared"},
    ]
    runs = runs_of(tmp_path, records, arms=["a omega=1", "c"], planned=planned)

    assert [dict(arm.levels) for arm in runs.arms] == [{"omega": 1}, {}]


def test_the_long_table_is_narrowed_by_any_column(tmp_path: Path) -> None:
    rows = metric_rows(5.0) + metric_rows(7.0, metric="mse")
    metrics = runs_of(tmp_path, [record("a", 0, metrics=rows)]).metrics

    found = filter_rows(metrics, metric="mse", region="few", split="test")
    assert found["value"].to_pylist() == [9.0, 9.0]
    assert found["selection"].to_pylist() == ["best_val", "last"]
    assert filter_rows(metrics, metric="r2").num_rows == 0
    assert get_values_by_trial(metrics, metric="mae", region="all", split="val", selection="last") == {"a-0": 5.0}


@pytest.mark.parametrize(
    ("patterns", "arms"),
    [
        ([], ["conr", "accon", "conr[1]"]),
        (["accon", "conr"], ["accon", "conr"]),
        (["c*", "conr"], ["conr", "conr[1]"]),
        (["conr[1]"], ["conr[1]"]),
        (["CONR"], []),
    ],
)
def test_arms_are_named_or_matched_in_the_order_asked(patterns: list[str], arms: list[str]) -> None:
    assert match_arms(patterns, ["conr", "accon", "conr[1]"]) == arms


def test_an_arm_with_the_name_of_a_pattern_hides_no_other() -> None:
    assert match_arms([], ["conr", "*", "accon"]) == ["conr", "*", "accon"]
    assert match_arms(["*"], ["conr", "*", "accon"]) == ["*"]
