"""Run with `pytest tests/results/analysis/test_soundness.py`: each rule with records that break it and records that do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dirtune.diagnostics import EmbeddedSamples, compute_representation_metrics
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.metrics import REGIONS
from dirtune.results.analysis.floors import read_floors
from dirtune.results.analysis.soundness import check_study, get_least_cosine, judge_convergence
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.store import write_record
from dirtune.results.records.studies import read_study
from tests.results.record_factory import metric_rows, record, write_study

FLAT = [9.0, 5.0, 4.0, 4.01, 3.99, 4.0, 4.02, 3.98]
MAE = "val/all/mae"


def manifest() -> Manifest:
    info = SplitInfo(files=(), rows=10, bin_counts=(5, 5))
    return Manifest(
        name="toy",
        inputs={"vector": InputSpec(kind="vector", shape=(2,))},
        label=LabelSpec(name="length", unit="m", low=0, high=2, bin_width=1, num_bins=2),
        shot_rules={"own": ShotRule(), "other": ShotRule(many_above=3)},
        default_shot_rule="own",
        splits=dict.fromkeys(("train", "val", "test"), info),
        content_hash="0" * 64,
        split_fingerprint="0" * 64,
    )


def floor(name: str, value: float, *, rule: str = "own", **fields: Any) -> TrialRecord:
    rows = [row for row in metric_rows(value) if row["selection"] == "best_val"]
    made = record(name, 0, trial_id=f"floor-{name}-{rule}", metrics=rows)
    trial = {
        **made.trial,
        "role": "floor",
        "seed": None,
        "replicate": None,
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
        **fields,
    }
    return TrialRecord(trial=trial, config={"data": {"shot_rule": rule}, "floor": {"rows": 10}}, metrics=made.metrics)


def sound(
    arm: str,
    seed: int,
    value: float = 5.0,
    *,
    curve: Sequence[float] = FLAT,
    uniformity: float = -1.0,
    shares: Sequence[Mapping[str, float]] = ({}, {}),
    n: int = 100,
) -> TrialRecord:
    """A trial without findings, unless a setting makes one."""
    epochs: list[dict[str, float]] = [{MAE: each} for each in curve]
    for at, own in zip((0, -1), shares, strict=True):
        epochs[at] |= {f"gradient/{name}": share for name, share in own.items()}
    rows = [{**row, "n": n} for row in metric_rows(value)]
    own = {
        "split": "test",
        "selection": "best_val",
        "region": "all",
        "metric": "uniformity",
        "value": uniformity,
        "n": n,
    }
    return replace(record(arm, seed), epochs=epochs, metrics=[*rows, own])


def write(root: Path, records: Sequence[TrialRecord], floors: Sequence[TrialRecord] | None = None) -> Storage:
    arms = list(dict.fromkeys(str(each.trial["arm"]) for each in records))
    configs = {arm: {"data": {"shot_rule": None}} for arm in arms}
    study = write_study(root, records, arms=arms, reference=arms[0], configs=configs)
    study.write(MANIFEST, manifest().model_dump_json().encode())
    for one in [floor("median", 20.0), floor("mean", 21.0)] if floors is None else floors:
        write_record(study.get_folder("floors"), one)
    return study


def found(root: Path, records: Sequence[TrialRecord], floors: Sequence[TrialRecord] | None = None) -> list[str]:
    write(root, records, floors)
    return [str(finding) for finding in check_study(root, "study")]


def test_sound_trials_have_no_findings(tmp_path: Path) -> None:
    shares = ({"regression": 0.5, "conr": 0.5}, {"regression": 0.9, "conr": 0.1})
    assert found(tmp_path, [sound("a", 0), sound("a", 1), sound("b", 0, shares=shares)]) == []


# --- Convergence


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], False),
        # Slow and steady: 1.2 % in two of eight epochs
        ([10.0 - 0.06 * epoch for epoch in range(8)], False),
        ([10.0 - 0.04 * epoch for epoch in range(8)], True),
        (FLAT, True),
        # The best epoch is the last by chance, and the line through the last four epochs is flat.
        ([9.0, 5.0, 4.0, 4.1, 3.85, 4.0, 4.1, 3.8], True),
        # The line falls, and no epoch is better than those before.
        ([3.0, 3.0, 3.0, 5.0, 4.8, 4.6, 4.4, 4.2], True),
        # Creeping: a thousandth an epoch, of which the last quarter has 3 of 9
        ([10.0 - 0.01 * epoch for epoch in range(10)], False),
        # The last half falls as steadily, and has next to nothing of what was gained.
        ([20.0, 15.0, 12.0, 11.0, 10.0, *(9.99 - 0.01 * epoch for epoch in range(5))], True),
        # Too few epochs to tell a creep from noise
        ([10.0 - 0.01 * epoch for epoch in range(8)], True),
        ([3.0, 2.0, 1.0], None),
        ([3.0, math.nan, 2.0, math.nan, 1.0], None),
        ([], None),
    ],
)
def test_a_trial_is_converged_unless_its_objective_still_falls(curve: list[float], expected: bool | None) -> None:
    assert judge_convergence(curve, maximize=False) is expected
    # Correlations rise where errors fall.
    assert judge_convergence([-value for value in curve], maximize=True) is expected


def test_noise_around_a_constant_is_converged() -> None:
    drawn = np.random.default_rng(0)
    states = [judge_convergence(1 + 0.02 * drawn.normal(size=10), maximize=False) for _ in range(1000)]
    # 1.1 % in the long run; five standard errors above
    assert states.count(False) <= 28


def test_a_trial_that_settles_slowly_is_found_through_noise() -> None:
    drawn, epochs = np.random.default_rng(0), np.arange(40)
    for rate, least, most in ((0.05, 95, 100), (0.5, 0, 5)):
        curve = 1 + np.exp(-rate * epochs)
        states = [judge_convergence(curve * (1 + 0.02 * drawn.normal(size=40)), maximize=False) for _ in range(100)]
        assert least <= states.count(False) <= most


def test_trials_that_still_improve_are_counted_by_arm(tmp_path: Path) -> None:
    falling = [8.0, 7.0, 6.0, 5.0]
    (line,) = found(tmp_path, [sound("a", 0), sound("a", 1), sound("b", 0, curve=falling), sound("b", 1)])
    assert line.startswith("b (1 of 2 trials): not converged")


def test_too_few_epochs_are_not_judged(tmp_path: Path) -> None:
    (line,) = found(tmp_path, [sound("a", 0, curve=[2.0, 1.0])])
    assert "convergence cannot be judged" in line


def test_the_objective_of_an_earlier_stage_is_left_out(tmp_path: Path) -> None:
    # The first stage is flat at 9, the second at 4.
    made = sound("a", 0, curve=[9.0] * 12 + [4.0] * 4)
    again = replace(made, config={**made.config, "scheme": {"epochs": 4}})
    assert found(tmp_path / "one", [again]) == []
    assert len(found(tmp_path / "two", [made])) == 1


def test_a_second_stage_is_found_where_early_stopping_ended_the_first(tmp_path: Path) -> None:
    # Both stages are best in their third epoch: the first one ends after forty more, the second one after ten of at most 97.
    flat = [2.0 + 0.001 * (at % 3) for at in range(10)]
    made = sound("a", 0, curve=[9.0, 5.0, 4.0] + [4.0 + each / 100 for each in flat] * 4 + [2.5, 2.2, 2.0, *flat])
    recipe = {"epochs": 60, "early_stopping": {"patience": 40, "rule": "plateau"}}
    again = replace(made, config={**made.config, "scheme": {"name": "rrt", "epochs": 100}, "recipe": recipe})
    assert found(tmp_path / "one", [again]) == []
    # Taken for one stage, the step between them looks like progress at the end.
    assert len(found(tmp_path / "two", [made])) == 1


# --- Floors


def test_a_trial_no_better_than_the_median_is_the_most_severe_finding(tmp_path: Path) -> None:
    lines = found(tmp_path, [sound("a", 0, 20.0), sound("a", 1, 5.0), sound("b", 0, 30.0, curve=[4.0, 3.0, 2.0, 1.0])])
    # 20 against 20: an equal error is no better.
    assert lines[0].startswith(
        "a, b (2 of 3 trials): no better than the training median on test data, mae in all (20 to 30 "
    )
    assert "many (19 to 29 against 19), medium (21 to 31 against 21), few (22 to 32 against 22)" in lines[0]
    assert lines[1].startswith("b (1 of 1 trials): not converged")
    assert len(lines) == 2


def test_arms_that_fail_in_other_regions_are_other_findings(tmp_path: Path) -> None:
    rare = [{**row, "value": 25.0 if row["region"] == "few" else row["value"]} for row in sound("b", 0, 5.0).metrics]
    lines = found(tmp_path, [sound("a", 0, 20.0), replace(sound("b", 0, 5.0), metrics=rare), sound("c", 0, 24.0)])
    assert [line.split(": ")[0] for line in lines] == ["a, c (2 of 2 trials)", "b (1 of 1 trials)"]
    # From the best to the worst arm
    assert "mae in all (20 to 24 against 20), many (19 to 23 against 19)" in lines[0]
    assert "mae in few (25 against 22) -> no conclusion about these regions" in lines[1]


def test_a_trial_is_listed_under_the_floor_that_is_the_least_to_beat(tmp_path: Path) -> None:
    floors = [floor("median", 20.0), floor("ridge", 7.0), floor("boosting", 4.0)]
    lines = found(tmp_path, [sound("a", 0, 5.0), sound("b", 0, 8.0), sound("c", 0, 3.0)], floors)
    assert [line.split(" on test data")[0] for line in lines] == [
        "b (1 of 1 trials): no better than ridge",
        "a (1 of 1 trials): no better than boosting",
    ]


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        ([], "study: no complete trial is recorded -> dirtune resume study"),
        (["nan"], "study: no complete trial is recorded, failed: 1 nan -> dirtune resume study --retry nan"),
        (["infrastructure"], "study: no complete trial is recorded, failed: 1 infrastructure -> dirtune resume study"),
        (
            ["code", "nan"],
            "study: no complete trial is recorded, failed: 1 code, 1 nan -> dirtune resume study --retry failed",
        ),
    ],
)
def test_failed_trials_alone_are_found_with_the_command_that_runs_them_again(
    classes: list[str], line: str, tmp_path: Path
) -> None:
    records = [record("a", seed, status="failed", error_class=name) for seed, name in enumerate(classes)]
    write_study(tmp_path, records, seeds=[0, 1], arms=["a"])
    assert [str(each) for each in check_study(tmp_path, "study")] == [line]


def test_a_study_without_floors_says_so(tmp_path: Path) -> None:
    (line,) = found(tmp_path, [sound("a", 0)], [])
    assert "dirtune resume study records them" in line


def test_floors_are_those_of_the_shot_rule_of_the_arms(tmp_path: Path) -> None:
    study = write(tmp_path, [sound("a", 0)], [floor("median", 20.0), floor("median", 3.0, rule="other")])
    (one,) = read_floors(study, read_study(study))
    assert (one.shot_rule, one.values["test", "few", "mae"]) == ("own", 22.0)
    assert check_study(tmp_path, "study") == []


# --- Gradient shares


def test_a_term_with_next_to_no_gradient_is_found(tmp_path: Path) -> None:
    weak = ({"regression": 0.995, "conr": 0.005}, {"regression": 0.999, "conr": 0.001})
    fading = ({"regression": 0.5, "conr": 0.5}, {"regression": 0.999, "conr": 0.001})
    records = [
        sound("a", 0),
        sound("weak", 0, shares=weak),
        sound("weak", 1, shares=weak),
        sound("b", 0, shares=fading),
    ]
    (line,) = found(tmp_path, records)
    assert line.startswith("weak (2 of 2 trials): conr has at most 0.50% of the gradient")


def test_a_regression_loss_without_gradient_at_the_end_is_found(tmp_path: Path) -> None:
    drowned = ({"regression": 0.5, "conr": 0.5}, {"regression": 0.002, "conr": 0.998})
    # Weight zero: nothing else was asked for
    without = ({"regression": 0.0, "conr": 1.0}, {"regression": 0.0, "conr": 1.0})
    (line,) = found(tmp_path, [sound("a", 0, shares=drowned), sound("b", 0, shares=without)])
    assert line.startswith("a (1 of 1 trials): the regression loss has 0.20% of the gradient at the end")


# --- Representations


def test_collapsed_representations_are_found(tmp_path: Path) -> None:
    (line,) = found(tmp_path, [sound("a", 0, uniformity=-0.001), sound("b", 0, uniformity=-0.03)])
    assert line.startswith("a (1 of 1 trials): test representations point in one direction (mean cosine at least 1.00)")


@pytest.mark.parametrize("spread", [0.001, 0.02, 0.1, 0.5, 5.0])
def test_the_uniformity_bounds_the_mean_cosine(spread: float) -> None:
    z = np.array([1.0, 0, 0, 0]) + spread * np.random.default_rng(0).normal(size=(60, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    rows = compute_representation_metrics(
        EmbeddedSamples(representations=z, labels=np.arange(60.0), bins=np.arange(60), label_range=60.0)
    )
    uniformity = next(row["value"] for row in rows if row["metric"] == "uniformity")
    cosine = (z @ z.T)[np.triu_indices(60, 1)].mean()
    assert get_least_cosine(uniformity) <= cosine <= 1 + uniformity / 4
    if uniformity > -0.02:
        assert cosine > 0.96


# --- Test samples


def test_regions_with_few_test_samples_are_found(tmp_path: Path) -> None:
    made = sound("a", 0)
    metrics = [{**row, "n": {"few": 7, "many": 0}.get(str(row["region"]), 100)} for row in made.metrics]
    (line,) = found(tmp_path, [replace(made, metrics=metrics)])
    assert line.startswith("data: fewer than 30 test samples: 7 in few ->")
    assert set(REGIONS) > {"few", "many"}
