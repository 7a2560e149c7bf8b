"""Run with `pytest tests/tuning/test_sequential_sweep.py`: sweeps that add seeds, whose trainings are a formula."""

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
    """conr is clearly better than vanilla, wide is not clearly anything."""
    noise = NOISE[config.seed - 3]
    if omega(config) == 0:
        return 5.0
    return 5.0 + noise if config.model.projection_dim else 3.0 + noise / 50


def pretended(root: Path) -> SimulatedSweep:
    return SimulatedSweep(root, lambda config: TrialOutcome(status="complete", objective=error_of(config)), few=error_of)


def seeds_of(sweep: SimulatedSweep) -> dict[str, list[int]]:
    return {arm: sorted(row.seed for row in sweep.read_trials(arm)) for arm in ("vanilla", "conr", "wide")}


EXPECTED = {"vanilla": [3, 4, 5, 6, 7, 8], "conr": [3, 4], "wide": [3, 4, 5, 6, 7, 8]}


@pytest.mark.parametrize("concurrent", [1, 2, 5])
def test_seeds_are_added_until_an_arm_is_decided_or_they_are_used_up(tmp_path: Path, concurrent: int) -> None:
    sweep = pretended(tmp_path)
    ended = sweep.sweep(concurrent=concurrent, **SEQUENTIAL)
    assert seeds_of(sweep) == EXPECTED
    assert max(Counter(job.trial_id for job in ended).values()) == 1
    assert sweep.make_queue(**SEQUENTIAL).is_empty
    assert sweep.sweep(**SEQUENTIAL) == []


@pytest.mark.parametrize("die_after", [1, 5, 6, 7, 9, 12])
def test_a_sweep_that_is_killed_anywhere_comes_to_the_same_seeds(tmp_path: Path, die_after: int) -> None:
    sweep = pretended(tmp_path)
    with pytest.raises(Killed):
        sweep.sweep(die_after=die_after, **SEQUENTIAL)
    reuse = sweep.find_reuse(**SEQUENTIAL)
    assert (len(reuse.kept), reuse.orphaned) == (die_after, frozenset())
    sweep.sweep(**SEQUENTIAL)
    assert seeds_of(sweep) == EXPECTED


def test_a_trial_that_fails_ends_the_seeds_of_its_arm_alone(tmp_path: Path) -> None:
    sweep = pretended(tmp_path)

    def ending(config: TrialConfig) -> TrialOutcome:
        fails = config.seed == 5 and config.model.projection_dim
        return TrialOutcome(status="failed" if fails else "complete", objective=None if fails else error_of(config))

    sweep.ending = ending
    sweep.sweep(**SEQUENTIAL)
    assert seeds_of(sweep) == {"vanilla": [3, 4, 5], "conr": [3, 4], "wide": [3, 4, 5]}


def test_a_study_that_was_swept_with_fixed_seeds_goes_on_and_back_again(tmp_path: Path) -> None:
    sweep, fixed = pretended(tmp_path), {**SEQUENTIAL, "sequential": None}
    sweep.sweep(**fixed)
    assert len(sweep.read_trials()) == 6
    assert len(sweep.sweep(**SEQUENTIAL)) == 8
    # With fixed seeds the further ones are no part of the study: out of every table, and not lost.
    assert sweep.sweep(**fixed) == []
    assert len(sweep.read_trials()) == 6
    assert sweep.sweep(**SEQUENTIAL) == []
    assert seeds_of(sweep) == EXPECTED


def test_the_resolved_study_says_what_is_compared_and_by_which_seeds() -> None:
    compare = {"metric": "gmean", "region": "few"}
    written = {"most_seeds": 5, "step": 2, "compare": compare}
    study = resolve({**STUDY, **SEQUENTIAL, "sequential": written}, where="test")
    assert study.possible_seeds == (3, 4, 5, 6, 7)
    assert study.to_plain()["sequential"] == {"seeds": [3, 4, 5, 6, 7], "step": 2, "margin": 0.02, **compare}
    assert resolve({**STUDY, "search": STUDY["search"]}, where="test").to_plain()["sequential"] is None
