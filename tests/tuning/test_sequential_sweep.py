"""Run with `pytest tests/tuning/test_sequential_sweep.py`: simulated sweeps that add seeds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dirtune.config import TrialConfig
from dirtune.study.resolve import resolve
from dirtune.tuning.folder.records import TrialOutcome
from tests.tuning.simulated_sweep import STUDY, Killed, SimulatedSweep, omega

SEQUENTIAL: dict[str, Any] = {"reference": "vanilla", "search": {}, "space": {}, "sequential": {"most_seeds": 6}}
NOISE = [0.3, -0.5, 0.1, 0.4, -0.4, 0.2]


def error_of(config: TrialConfig) -> float:
    """Return an error with which conr is significantly better than vanilla, and wide is open."""
    noise = NOISE[config.seed - 3]
    if omega(config) == 0:
        return 5.0
    return 5.0 + noise if config.model.projection_dim else 3.0 + noise / 50


def make_sweep(root: Path) -> SimulatedSweep:
    return SimulatedSweep(
        root, lambda config: TrialOutcome(status="complete", objective=error_of(config)), few=error_of
    )


def list_seeds(sweep: SimulatedSweep) -> dict[str, list[int]]:
    return {arm: sorted(row.seed for row in sweep.read_trials(arm)) for arm in ("vanilla", "conr", "wide")}


EXPECTED = {"vanilla": [3, 4, 5, 6, 7, 8], "conr": [3, 4, 5], "wide": [3, 4, 5, 6, 7, 8]}


@pytest.mark.parametrize("concurrent", [1, 2, 5])
def test_seeds_are_added_until_an_arm_is_settled_or_none_is_left(tmp_path: Path, concurrent: int) -> None:
    sweep = make_sweep(tmp_path)
    ended = sweep.sweep(concurrent=concurrent, **SEQUENTIAL)
    assert list_seeds(sweep) == EXPECTED
    assert max(Counter(job.trial_id for job in ended).values()) == 1
    assert sweep.make_queue(**SEQUENTIAL).is_empty
    assert sweep.find_reuse(**SEQUENTIAL).is_complete
    assert sweep.sweep(**SEQUENTIAL) == []


@pytest.mark.parametrize("die_after", [1, 5, 6, 7, 9, 12])
def test_a_sweep_killed_at_any_moment_ends_with_the_same_seeds(tmp_path: Path, die_after: int) -> None:
    sweep = make_sweep(tmp_path)
    with pytest.raises(Killed):
        sweep.sweep(die_after=die_after, **SEQUENTIAL)
    reuse = sweep.find_reuse(**SEQUENTIAL)
    assert (len(reuse.kept), reuse.orphaned, reuse.is_complete) == (die_after, frozenset(), False)
    sweep.sweep(**SEQUENTIAL)
    assert list_seeds(sweep) == EXPECTED


def test_a_failed_trial_stops_adding_seeds(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)

    def get_outcome(config: TrialConfig) -> TrialOutcome:
        fails = config.seed == 5 and config.model.projection_dim
        return TrialOutcome(status="failed" if fails else "complete", objective=None if fails else error_of(config))

    sweep.outcome = get_outcome
    sweep.sweep(**SEQUENTIAL)
    assert list_seeds(sweep) == {"vanilla": [3, 4, 5], "conr": [3, 4, 5], "wide": [3, 4, 5]}


def test_a_study_can_change_between_fixed_and_added_seeds(tmp_path: Path) -> None:
    sweep, fixed = make_sweep(tmp_path), {**SEQUENTIAL, "sequential": None}
    sweep.sweep(**fixed)
    assert len(sweep.read_trials()) == 6
    assert len(sweep.sweep(**SEQUENTIAL)) == 9
    # With fixed seeds, the added ones are orphaned: in no table, and not lost
    assert sweep.sweep(**fixed) == []
    assert len(sweep.read_trials()) == 6
    assert sweep.find_reuse(**fixed).is_complete
    # Restored values may add seeds, which only the queue knows
    assert not sweep.find_reuse(**SEQUENTIAL).is_complete
    assert sweep.sweep(**SEQUENTIAL) == []
    assert list_seeds(sweep) == EXPECTED


def test_the_resolved_study_has_the_compared_metric_and_all_possible_seeds() -> None:
    compare = {"metric": "gmean", "region": "few"}
    written, claim = {"most_seeds": 5, "step": 2}, {**compare, "margin": "2%"}
    study = resolve({**STUDY, **SEQUENTIAL, "sequential": written, "claim": claim}, where="test")
    assert study.possible_seeds == (3, 4, 5, 6, 7)
    assert study.to_plain()["sequential"] == {"seeds": [3, 4, 5, 6, 7], "step": 2, "margin": "2%", **compare}
    assert study.to_plain()["claim"] == claim
    assert resolve({**STUDY, "search": STUDY["search"]}, where="test").to_plain()["sequential"] is None


def test_a_claim_is_the_objectives_metric_and_a_sequential_study_knows_its_region() -> None:
    plain = [
        resolve({**STUDY, **SEQUENTIAL, "sequential": each}, where="test").to_plain()
        for each in ({"most_seeds": 5}, None)
    ]
    assert [each["claim"] for each in plain] == [
        {"metric": "mae", "region": "all", "margin": None},
        {"metric": "mae", "region": None, "margin": None},
    ]
