from __future__ import annotations

from pathlib import Path

from dirtune.results.arms import StudyRuns, study_runs
from dirtune.results.schema import TrialRecord
from dirtune.results.selection import SELECTIONS
from dirtune.results.studies import read_study
from tests.results.records import metric_rows, record, write_study


def runs_of(
    root: Path, records: list[TrialRecord], rule: str = "best_val", **keys: object
) -> StudyRuns:
    storage = write_study(root, records, **keys)
    return study_runs(storage, read_study(storage), SELECTIONS[rule])


def searched(seed: int, objectives: list[float], *, status: str = "complete") -> list[TrialRecord]:
    return [
        record("tuned", seed, 9.0 - value, trial_id=f"s{seed}-{i}", objective=value, status=status)
        for i, value in enumerate(objectives)
    ]


def test_arms_come_in_the_order_of_the_study(tmp_path: Path) -> None:
    records = [record(arm, 0) for arm in ("a", "b", "c")]

    assert [arm.arm for arm in runs_of(tmp_path, records, arms=["c", "a", "b"]).arms] == [
        "c",
        "a",
        "b",
    ]


def test_without_a_study_file_arms_come_by_name(tmp_path: Path) -> None:
    assert [arm.arm for arm in runs_of(tmp_path, [record("b", 0), record("a", 4)]).arms] == [
        "a",
        "b",
    ]


def test_a_searched_arm_is_its_best_configuration_on_validation_data(tmp_path: Path) -> None:
    (arm,) = runs_of(tmp_path, searched(0, [3.0, 1.0, 2.0]) + searched(1, [0.5, 0.7])).arms

    assert {seed: chosen.trial_id for seed, chosen in arm.chosen.items()} == {0: "s0-1", 1: "s1-0"}
    assert arm.tried == {0: 3, 1: 2}
    assert arm.holes == ()


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
    assert (arm.tried, arm.unfinished, arm.holes) == ({0: 3}, {"pruned": 1, "failed": 1}, ())


def test_a_seed_without_a_complete_trial_is_a_hole_with_its_reason(tmp_path: Path) -> None:
    records = [
        record("a", 0),
        record("a", 1, status="failed", error="loss term 'conr' is not finite\nTraceback ..."),
        record("a", 2, status="pruned"),
        record("a", 4, trial_id="x", status="failed", error="e" * 500),
        record("a", 5, trial_id="y1", status="pruned"),
        record("a", 5, trial_id="y2", status="failed"),
    ]
    (arm,) = runs_of(tmp_path, records, arms=["a"], seeds=[0, 1, 2, 3]).arms

    reasons = {hole.seed: hole.reason for hole in arm.holes}
    assert set(arm.chosen) == {0}
    assert reasons[1] == "failed: loss term 'conr' is not finite"
    assert (reasons[2], reasons[3]) == ("pruned", "not recorded")
    assert len(reasons[4]) == 100
    assert reasons[5] == "none complete: 1 failed, 1 pruned"


def test_an_arm_that_has_not_begun_is_all_holes(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [record("a", 0)], arms=["a", "b"], seeds=[0, 1])

    assert [(hole.arm, hole.seed) for arm in runs.arms for hole in arm.holes] == [
        ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip


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
