"""Run with `pytest tests/tuning/plan/test_runtime.py`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from dirtune.io.storage import Storage
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.store import write_record
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.tuning.plan.runtime import (
    GROUP_START_SECONDS,
    START_SECONDS,
    TimeEstimate,
    compute_makespan,
    count_missing_trials,
    estimate_from_records,
    forecast_runtime,
)

BASE: dict[str, Any] = {
    "data": {"name": "toy"},
    "model": {"encoder": {"name": "cnn", "channels": 4}},
    "recipe": {"epochs": 4, "batch_size": 64},
}
OMEGA = {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}}


def study(**changes: Any) -> ResolvedStudy:
    raw = {
        "name": "tiny",
        "question": "?",
        "reference": "a",
        "seeds": [0, 1, 2],
        "base": BASE,
        "arms": {"a": {}, "b": {"terms": {"conr": {}}}},
    }
    return resolve({**raw, **changes}, where="test")


def record(
    root: Path,
    found: ResolvedStudy,
    arm: str,
    number: int,
    *,
    study: str = "tiny",
    plain: dict[str, Any] | None = None,
    **columns: Any,
) -> None:
    """A trial of 2 s an epoch and 1 s beside them, unless other columns or another configuration are given."""
    (config,) = [each.config for each in found.arms if each.name == arm]
    trial = {
        "study": study,
        "arm": arm,
        "trial_id": f"{arm}{number}",
        "status": "complete",
        "epochs_run": 4,
        "seconds_train": 5.0,
        "seconds_eval": 2.0,
        "seconds_data": 1.0,
        "seconds_overhead": 1.0,
        "device": "cpu (1 threads)",
        "workers": 1,
    }
    write_record(
        Storage.open(root).get_folder(study), TrialRecord(trial={**trial, **columns}, config=plain or config.to_plain())
    )


def test_the_makespan_is_that_of_a_simulation_second_by_second() -> None:
    seconds, slots = [5, 3, 3, 4, 1, 6], 2
    running: list[int] = []
    waiting, clock = [*seconds], 0
    while waiting or running:
        while waiting and len(running) < slots:
            running.append(waiting.pop(0))
        running = [left - 1 for left in running if left > 1]
        clock += 1
    assert compute_makespan(seconds, slots) == clock
    assert compute_makespan(seconds, 1) == sum(seconds)
    assert compute_makespan(seconds, 9) == max(seconds)
    assert compute_makespan([], 3) == 0.0


def test_remaining_trials_are_assigned_to_slots_in_the_order_of_their_start() -> None:
    estimates = {"a": TimeEstimate(10.0, "x"), "b": TimeEstimate(30.0, "x")}
    found = forecast_runtime(study(), estimates, left={"a": 3, "b": 2}, concurrent=2)
    # a b a b a: the first slot ends at 10, 20, 50, the second at 30, 40.
    assert found.seconds == 50 + START_SECONDS
    assert (found.gpu_hours, found.is_bound) == (0.0, False)


def test_gpu_hours_count_every_worker_and_its_share() -> None:
    needs = study(resources={"workers": 4, "gpus": 1})
    estimates = {"a": TimeEstimate(1800.0, "x"), "b": TimeEstimate(3600.0, "x")}
    found = forecast_runtime(needs, estimates, left={"a": 1, "b": 2}, concurrent=1)
    assert found.gpu_hours == pytest.approx((0.5 + 2 * 1.0) * 4)
    assert found.seconds == 1800 + 2 * 3600 + GROUP_START_SECONDS


def test_a_finished_study_takes_no_time_even_with_unknown_speed() -> None:
    found = forecast_runtime(study(), {"a": None, "b": None}, left={"a": 0, "b": 0}, concurrent=2)
    assert (found.seconds, found.gpu_hours) == (0.0, 0.0)


def test_one_unknown_speed_makes_the_run_time_unknown() -> None:
    estimates = {"a": TimeEstimate(1.0, "x"), "b": None}
    found = forecast_runtime(study(), estimates, left={"a": 1, "b": 1}, concurrent=2)
    assert (found.seconds, found.gpu_hours) == (None, None)


def test_a_scheduler_of_a_search_or_early_stopping_makes_the_run_time_a_bound() -> None:
    halved = {"scheduler": {"name": "asha"}}
    estimates, left = {"a": None, "b": None}, {"a": 0, "b": 0}
    for changes, is_bound in (
        ({"space": OMEGA, "search": halved}, True),
        ({"space": OMEGA}, False),
        ({"search": halved}, False),
        ({"arms": {"a": {}, "b": {"recipe": {"early_stopping": {"patience": 2}}}}}, True),
    ):
        found = forecast_runtime(study(**changes), estimates, left=left, concurrent=1)
        assert found.is_bound == is_bound


def test_the_time_of_a_trial_is_the_median_over_the_trials_of_its_arm(tmp_path: Path) -> None:
    found = study()
    for number, train in enumerate((5.0, 9.0, 500.0)):
        record(tmp_path, found, "a", number, seconds_train=train, seconds_overhead=number)
    # 8 s in two epochs
    record(tmp_path, found, "b", 0, epochs_run=2, status="pruned")
    assert estimate_from_records(found, tmp_path) == {
        "a": TimeEstimate(12.0 / 4 * 4 + 1, "from 3 recorded trials of the arm"),
        "b": TimeEstimate(8.0 / 2 * 4 + 1, "from 1 recorded trial of the arm"),
    }


def test_an_arm_without_trials_has_the_speed_of_similar_ones(tmp_path: Path) -> None:
    found = study()
    record(tmp_path, found, "a", 0)
    record(tmp_path, found, "a", 1, study="earlier", seconds_train=13.0)
    estimates = estimate_from_records(found, tmp_path)
    assert estimates["a"] == TimeEstimate(9.0, "from 1 recorded trial of the arm")
    like = "from 2 recorded trials of the same data, encoder and batch"
    assert estimates["b"] == TimeEstimate((2.0 + 4.0) / 2 * 4 + 1, like)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"encoder": {"name": "cnn", "channels": 8}}},
        {"model": {"encoder": {"name": "mlp"}}},
        {"data": {"name": "other"}},
        {"recipe": {**BASE["recipe"], "batch_size": 32}},
        {"recipe": {**BASE["recipe"], "views": {"count": 2}}},
        {"recipe": {**BASE["recipe"], "precision": "bf16"}},
        {"recipe": {**BASE["recipe"], "accumulation": 2}},
    ],
)
def test_trials_of_another_encoder_batch_or_data_set_are_not_similar(tmp_path: Path, change: dict[str, Any]) -> None:
    record(tmp_path, study(base={**BASE, **change}), "a", 0)
    assert estimate_from_records(study(), tmp_path) == {"a": None, "b": None}


def test_a_record_without_a_later_option_has_its_default(tmp_path: Path) -> None:
    found = study(arms={"a": {}, "b": {"recipe": {"precision": "bf16"}}})
    config = found.arms[0].config.to_plain()
    for option in ("precision", "channels_last", "accumulation", "compile"):
        del config["recipe"][option]
    record(tmp_path, found, "a", 0, plain=config)
    like = "from 1 recorded trial of the arm"
    assert estimate_from_records(found, tmp_path) == {"a": TimeEstimate(9.0, like), "b": None}


@pytest.mark.parametrize(
    "columns",
    [{"device": "NVIDIA H200"}, {"device": "cpu (2 threads)"}, {"workers": 2}, {"epochs_run": 0, "status": "failed"}],
)
def test_trials_on_another_device_or_group_or_without_epochs_are_ignored(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    record(tmp_path, study(), "a", 0, **columns)
    assert estimate_from_records(study(), tmp_path) == {"a": None, "b": None}


def test_trials_on_gpus_estimate_trials_on_gpus_only(tmp_path: Path) -> None:
    needs = study(resources={"gpus": 1})
    record(tmp_path, needs, "a", 0)
    assert estimate_from_records(needs, tmp_path)["a"] is None
    record(tmp_path, needs, "a", 1, device="NVIDIA H200")
    assert estimate_from_records(needs, tmp_path)["a"] == TimeEstimate(9.0, "from 1 recorded trial of the arm")


def test_an_empty_results_root_and_damaged_files_give_no_estimate(tmp_path: Path) -> None:
    assert estimate_from_records(study(), tmp_path / "none") == {"a": None, "b": None}
    record(tmp_path, study(), "a", 0)
    record(tmp_path, study(), "b", 0)
    (tmp_path / "tiny/results/trials/a0.parquet").write_bytes(b"damaged")
    estimates = estimate_from_records(study(), tmp_path)
    assert estimates["b"] == TimeEstimate(9.0, "from 1 recorded trial of the arm")


def test_missing_trials_are_counted_by_arm() -> None:
    searched = study(space=OMEGA, search={"trials": 5})
    assert count_missing_trials(searched, ["a", "b", "b", "gone"]) == {"a": 2, "b": 3}
    assert count_missing_trials(searched, itertools.repeat("a", 9)) == {"a": 0, "b": 5}
