"""Run with `pytest tests/tuning/search/test_samplers.py`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import pytest

from dirtune.nested import get_leaf
from dirtune.study.search_settings import Search
from dirtune.study.space import Choice, Integer
from dirtune.tuning.search.samplers import list_values
from tests.tuning.simulated_sweep import STUDY, Killed, SimulatedSweep, of_arm

FINITE = {
    "model.projection_dim": {"distribution": "choice", "values": [8, 16, 32]},
    "recipe.batch_size": {"distribution": "int", "low": 5, "high": 8},
}
SAMPLERS = get_args(Search.model_fields["sampler"].annotation)
# Two of them in every run of the tests
EVERY_SAMPLER = [
    sampler if sampler in {"tpe", "random"} else pytest.param(sampler, marks=pytest.mark.soak) for sampler in SAMPLERS
]


def changed(sampler: str, *, trials: int, seed: int = 0) -> dict[str, Any]:
    arms = {
        "vanilla": {"model": {"projection_dim": 64}},
        "conr": {"model": {"projection_dim": 8}, "terms": {"conr": {}}, "recipe": {"batch_size": 5}},
    }
    space = {path: {**knob, "arms": ["conr"]} for path, knob in FINITE.items()}
    if sampler != "grid":
        space |= STUDY["space"]
    search = {"trials": trials, "sampler": sampler, "seed": seed}
    return {"arms": arms, "space": space, "search": search, "seeds": [0]}


def sweep_settings(found: SimulatedSweep, changes: dict[str, Any]) -> list[tuple[Any, ...]]:
    jobs = of_arm(found.sweep(concurrent=1, **changes), "conr")
    return [tuple(get_leaf(job.config.to_plain(), path) for path in (*FINITE, "terms.conr.omega")) for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_a_killed_search_ends_like_an_undisturbed_one(tmp_path: Path, sampler: str) -> None:
    changes = changed(sampler, trials=12)
    undisturbed, killed = SimulatedSweep(tmp_path / "undisturbed"), SimulatedSweep(tmp_path / "killed")
    whole = sweep_settings(undisturbed, changes)
    assert len(set(whole)) == len(whole) == 12
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=11, **changes)
    sweep_settings(killed, changes)
    assert killed.read_trials() == undisturbed.read_trials()


@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_the_seed_of_the_search_determines_its_settings(tmp_path: Path, sampler: str) -> None:
    first, again, other = (
        sweep_settings(SimulatedSweep(tmp_path / name), changed(sampler, trials=3, seed=seed))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again != other


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.soak)])
def test_a_model_proposes_after_the_startup_trials(tmp_path: Path, sampler: str) -> None:
    searches = {
        name: {**changed(sampler, trials=6)["search"], **more}
        for name, more in (("default", {}), ("late", {"startup": 4}), ("never", {"startup": 6}))
    }
    found = {
        name: sweep_settings(SimulatedSweep(tmp_path / name), {**changed(sampler, trials=6), "search": search})
        for name, search in searches.items()
    }
    assert found["default"][:2] == found["never"][:2]
    assert found["default"][2] != found["never"][2]
    assert found["late"][:4] == found["never"][:4]
    assert found["late"][4] != found["never"][4]


@pytest.mark.parametrize(("trials", "expected"), [(1, 1), (10, 4), (20, 7), (30, 10), (300, 10)])
def test_a_third_of_the_budget_but_at_most_ten_trials_are_startup_trials(trials: int, expected: int) -> None:
    assert Search(trials=trials).startup_trials == expected
    assert Search(trials=trials, startup=2).startup_trials == 2


def test_a_grid_tries_every_configuration_once(tmp_path: Path) -> None:
    found = sweep_settings(SimulatedSweep(tmp_path), changed("grid", trials=99))
    every = itertools.product(FINITE["model.projection_dim"]["values"], range(5, 9))
    assert sorted(settings[:2] for settings in found) == sorted(every)


def test_a_quasi_random_search_covers_more_bins_than_a_random_one(tmp_path: Path) -> None:
    space = STUDY["space"]
    arms = {"vanilla": {}, "conr": {"terms": {"conr": {}}}}
    bins = {}
    for sampler in ("qmc", "random"):
        search = {"trials": 9, "sampler": sampler}
        jobs = SimulatedSweep(tmp_path / sampler).sweep(concurrent=1, arms=arms, space=space, search=search, seeds=[0])
        omegas = [get_leaf(job.config.to_plain(), "terms.conr.omega") for job in of_arm(jobs, "conr")]
        # The first configuration is drawn before Optuna knows the space.
        bins[sampler] = len({int((value - 0.5) / 8.5 * 8) for value in omegas[1:]})
    assert bins["qmc"] == 8 > bins["random"]


def test_all_values_of_a_finite_distribution_are_listed() -> None:
    assert tuple(list_values(Choice(distribution="choice", values=(None, "a", 3)))) == (None, "a", 3)
    assert tuple(list_values(Integer(distribution="int", low=2, high=4))) == (2, 3, 4)
