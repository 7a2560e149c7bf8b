"""Run with `pytest tests/tuning/search/test_secondary_objectives.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from dirtune.config import TrialConfig
from dirtune.errors import InputError
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures.pareto import build_pareto
from dirtune.study.resolve import resolve
from dirtune.tuning.plan.checks import check_study
from tests.tuning.simulated_sweep import MANIFEST, STUDY, Killed, SimulatedSweep, error_of, of_arm, omega
from tests.tuning.sweeps import load_search

FEW = {"metric": "mae", "region": "few"}


def few(config: TrialConfig) -> float:
    """Return an error that is smallest at omega 8, so that no configuration is best for all and for rare labels."""
    return abs(omega(config) - 8.0)


def changed(**search: Any) -> dict[str, Any]:
    return {"secondary": [FEW], "search": {**STUDY["search"], "trials": 6, **search}}


def load_trials(found: SimulatedSweep, arm: str) -> list[optuna.trial.FrozenTrial]:
    return load_search(Path(found.folder.path()), arm).trials


def test_optuna_gets_all_objectives_of_a_trial(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path, few=few)
    jobs = [job for job in of_arm(found.sweep(**changed()), "conr") if job.role == "search"]
    values = [(error_of(job.config), few(job.config)) for job in jobs]
    assert [tuple(trial.values) for trial in load_trials(found, "conr")] == values


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.soak), "random"])
def test_a_search_of_several_objectives_survives_a_kill(tmp_path: Path, sampler: str) -> None:
    undisturbed = SimulatedSweep(tmp_path / "undisturbed", few=few)
    killed = SimulatedSweep(tmp_path / "killed", few=few)
    changes = {**changed(sampler=sampler), "arms": {"conr": {"terms": {"conr": {}}}}}
    undisturbed.sweep(concurrent=1, **changes)
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=4, **changes)
    killed.sweep(concurrent=1, **changes)
    assert killed.read_trials() == undisturbed.read_trials()
    values = [[trial.values for trial in load_trials(each, "conr")] for each in (killed, undisturbed)]
    assert values[0] == values[1]


def test_the_first_objective_selects(tmp_path: Path) -> None:
    jobs = of_arm(SimulatedSweep(tmp_path, few=few).sweep(**changed()), "conr")
    tried = [job for job in jobs if job.role == "search"]
    best = min(tried, key=lambda job: error_of(job.config))
    assert {omega(job.config) for job in jobs if job.role == "evaluation"} == {omega(best.config)}


def test_a_trial_with_an_undefined_objective_fails_in_optuna(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path, few=lambda config: float("nan"))
    found.sweep(**changed())
    assert {trial.state for trial in load_trials(found, "conr")} == {TrialState.FAIL}


def test_other_objectives_make_another_search(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path, few=few)
    found.sweep(**{**changed(), "secondary": []})
    assert len(found.find_reuse(**changed()).orphaned) == 2 * (6 + 2)
    found.sweep(**changed())
    assert {len(trial.values) for trial in load_trials(found, "conr")} == {2}


def test_a_metric_that_the_data_lack_is_refused() -> None:
    study = resolve({**STUDY, "secondary": [{"metric": "angular_error", "region": "all"}]}, where="t")
    with pytest.raises(InputError) as caught:
        check_study(study, MANIFEST)
    assert "secondary.0.metric: the data set has no such metric, got 'angular_error'" in str(caught.value)


def test_the_figure_of_the_front_shows_the_objectives_of_every_trial(tmp_path: Path) -> None:
    jobs = SimulatedSweep(tmp_path, few=few).sweep(**changed())
    request = PlotRequest(root=tmp_path, study="tiny", split="val")
    data = build_pareto(request)
    assert sorted((point.x, point.y) for point in data.points) == sorted(
        (error_of(job.config), few(job.config)) for job in jobs
    )
    assert "all" in data.x_label
    assert "few" in data.y_label
    by_arm = build_pareto(replace(request, each="arm", x="few", y="many"))
    assert len(by_arm.points) == 3
