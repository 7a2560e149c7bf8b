"""Run with `pytest tests/tuning/search/test_warm_start.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dirtune.config import TrialConfig
from dirtune.errors import InputError
from dirtune.tuning.folder.records import TrialOutcome
from tests.tuning.simulated_sweep import STUDY, Killed, SimulatedSweep, of_arm, omega

PLAIN = {"trials": 4, "sampler": "random"}


def with_warm_start(**warm_start: Any) -> dict[str, Any]:
    return {"search": {**PLAIN, "warm_start": warm_start}, "seeds": [0]}


def omegas(found: SimulatedSweep, changes: dict[str, Any], arm: str = "conr") -> list[float]:
    return [omega(job.config) for job in of_arm(found.sweep(concurrent=1, **changes), arm)]


def test_presets_are_tried_first_and_within_the_budget(tmp_path: Path) -> None:
    arms = {**STUDY["arms"], "conr": {"terms": {"conr": {"omega": 2.5}}}}
    found = omegas(SimulatedSweep(tmp_path), {**with_warm_start(presets=True), "arms": arms})
    assert found[0] == 2.5
    assert len(set(found)) == 4


def test_the_best_settings_of_an_earlier_study_are_tried_first(tmp_path: Path) -> None:
    earlier = SimulatedSweep(tmp_path, name="earlier")
    seen = omegas(earlier, {"search": {**PLAIN, "trials": 6}, "seeds": [0]})
    best = sorted(seen, key=lambda value: abs(value - 4))
    found = omegas(SimulatedSweep(tmp_path), with_warm_start(study="earlier", best=2))
    assert found[:2] == best[:2]
    assert len(found) == 4


def test_presets_come_before_the_earlier_study(tmp_path: Path) -> None:
    SimulatedSweep(tmp_path, name="earlier").sweep(search=PLAIN, seeds=[0])
    found = omegas(SimulatedSweep(tmp_path), with_warm_start(study="earlier", best=1, presets=True))
    # ConR's default
    assert found[0] == 1.0
    assert len(found) == 4


def test_one_configuration_with_many_seeds_is_tried_once(tmp_path: Path) -> None:
    arms = {"vanilla": {}, "conr": {"terms": {"conr": {"omega": 3.0}}}}
    SimulatedSweep(tmp_path, name="earlier").sweep(arms=arms, space={}, search={}, seeds=[0, 1, 2, 3], reference="conr")
    found = omegas(SimulatedSweep(tmp_path), with_warm_start(study="earlier", best=3))
    assert found.count(3.0) == 1
    assert found[0] == 3.0


@pytest.mark.slow
def test_settings_outside_the_space_are_not_tried(tmp_path: Path) -> None:
    narrow = {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 4.0}}
    earlier = SimulatedSweep(tmp_path, name="earlier")
    seen = omegas(earlier, {"search": {**PLAIN, "trials": 20}, "seeds": [0]})
    inside = [value for value in sorted(seen, key=lambda v: abs(v - 4)) if value <= 4.0]
    assert 2 < len(inside) < 20
    changes = {**with_warm_start(study="earlier", best=2), "space": narrow}
    assert omegas(SimulatedSweep(tmp_path), changes)[:2] == inside[:2]


def test_a_search_killed_after_its_first_trial_continues_with_the_second(tmp_path: Path) -> None:
    changes = {**with_warm_start(study="earlier", best=3), "arms": {"conr": {"terms": {"conr": {}}}}}
    SimulatedSweep(tmp_path, name="earlier").sweep(search=PLAIN, seeds=[0])
    killed = SimulatedSweep(tmp_path)
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=1, **changes)
    killed.sweep(concurrent=1, **changes)
    undisturbed = SimulatedSweep(tmp_path / "other")
    undisturbed.results = killed.results
    undisturbed.sweep(concurrent=1, **changes)
    assert killed.read_trials() == undisturbed.read_trials()


@pytest.mark.slow
def test_all_samplers_begin_with_the_first_settings(tmp_path: Path) -> None:
    space = {"model.projection_dim": {"distribution": "choice", "values": [8, 16, 32, 64]}}
    arms = {"conr": {"model": {"projection_dim": 32}}}
    for sampler in ("tpe", "random", "gp", "qmc", "grid"):
        search = {"trials": 9, "sampler": sampler, "warm_start": {"presets": True}}
        jobs = SimulatedSweep(tmp_path / sampler).sweep(concurrent=1, arms=arms, space=space, search=search, seeds=[0])
        dims = [job.config.model.projection_dim for job in jobs]
        assert dims[0] == 32
        assert sorted(dims) == [8, 16, 32, 64]


@pytest.mark.parametrize(
    ("warm_start", "message"),
    [
        ({"study": "earlyer"}, "search.warm_start.study: no such study has been swept, got 'earlyer'"),
        ({"study": "tiny"}, "search.warm_start.study: must be another study, got 'tiny'"),
        ({"study": "earlier"}, "has no complete trial within the space of an arm of the same name"),
    ],
)
def test_an_unusable_earlier_study_is_refused(tmp_path: Path, warm_start: dict[str, Any], message: str) -> None:
    def fail(config: TrialConfig) -> TrialOutcome:
        return TrialOutcome(status="failed", objective=None)

    SimulatedSweep(tmp_path, fail, name="earlier").sweep(search=PLAIN, seeds=[0])
    with pytest.raises(InputError) as caught:
        SimulatedSweep(tmp_path).sweep(**with_warm_start(**warm_start))
    assert message in str(caught.value)
