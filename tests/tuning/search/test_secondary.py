"""Run with `pytest tests/tuning/search/test_secondary.py`."""

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
from dirtune.results.figures.pareto import pareto_data
from dirtune.study.resolve import resolve
from dirtune.tuning.search.secondary import check_secondary
from tests.tuning.pretended import MANIFEST, STUDY, Killed, Pretended, error_of, of_arm, omega

FEW = {"metric": "mae", "region": "few"}


def few(config: TrialConfig) -> float:
    """Best where omega is 8, so that no configuration is best for all and for the rare ones."""
    return abs(omega(config) - 8.0)


def changed(**search: Any) -> dict[str, Any]:
    return {"secondary": [FEW], "search": {**STUDY["search"], "trials": 6, **search}}


def told(found: Pretended, arm: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=f"tiny/{arm}", storage=found.storage).trials


def test_optuna_is_told_all_objectives_of_a_trial(tmp_path: Path) -> None:
    found = Pretended(tmp_path, few=few)
    jobs = [job for job in of_arm(found.sweep(**changed()), "conr") if job.role == "search"]
    values = [(error_of(job.config), few(job.config)) for job in jobs]
    assert [tuple(trial.values) for trial in told(found, "conr")] == values


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_search_of_several_objectives_survives_a_kill(tmp_path: Path, sampler: str) -> None:
    undisturbed = Pretended(tmp_path / "undisturbed", few=few)
    killed = Pretended(tmp_path / "killed", few=few)
    changes = {**changed(sampler=sampler), "arms": {"conr": {"terms": {"conr": {}}}}}
    undisturbed.sweep(concurrent=1, **changes)
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=4, **changes)
    killed.sweep(concurrent=1, **changes)
    assert killed.recorded() == undisturbed.recorded()
    values = [[trial.values for trial in told(each, "conr")] for each in (killed, undisturbed)]
    assert values[0] == values[1]


def test_what_is_selected_is_the_best_by_the_first_objective(tmp_path: Path) -> None:
    jobs = of_arm(Pretended(tmp_path, few=few).sweep(**changed()), "conr")
    tried = [job for job in jobs if job.role == "search"]
    best = min(tried, key=lambda job: error_of(job.config))
    assert {omega(job.config) for job in jobs if job.role == "evaluation"} == {omega(best.config)}


def test_a_trial_without_one_of_the_numbers_is_told_as_failed(tmp_path: Path) -> None:
    found = Pretended(tmp_path, few=lambda config: float("nan"))
    found.sweep(**changed())
    assert {trial.state for trial in told(found, "conr")} == {TrialState.FAIL}


def test_other_objectives_are_another_search(tmp_path: Path) -> None:
    found = Pretended(tmp_path, few=few)
    found.sweep(**{**changed(), "secondary": []})
    assert len(found.extension(**changed()).orphaned) == 2 * (6 + 2)
    found.sweep(**changed())
    assert {len(trial.values) for trial in told(found, "conr")} == {2}


def test_a_metric_that_the_data_lack_is_refused() -> None:
    study = resolve({**STUDY, "secondary": [{"metric": "angular_error", "region": "all"}]}, where="t")
    with pytest.raises(InputError) as caught:
        check_secondary(study, MANIFEST)
    assert "secondary.0.metric: the data set has no such metric, got 'angular_error'" in str(caught.value)


def test_the_figure_of_the_front_shows_the_objectives_of_every_trial(tmp_path: Path) -> None:
    jobs = Pretended(tmp_path, few=few).sweep(**changed())
    request = PlotRequest(root=tmp_path, study="tiny", split="val")
    data = pareto_data(request)
    assert sorted((point.x, point.y) for point in data.points) == sorted(
        (error_of(job.config), few(job.config)) for job in jobs
    )
    assert "all" in data.x_label
    assert "few" in data.y_label
    by_arm = pareto_data(replace(request, each="arm", x="few", y="many"))
    assert len(by_arm.points) == 3
