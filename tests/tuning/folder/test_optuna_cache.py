"""Run with `pytest tests/tuning/folder/test_optuna_cache.py`."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from dirtune.tuning.folder.optuna_cache import SingleWriterStorage

SPACE = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "depth": IntDistribution(1, 8),
    "loss": CategoricalDistribution(("l1", "mse", None)),
}


def open_study(storage: str | BaseStorage, sampler: str, directions: int = 1) -> optuna.Study:
    study = optuna.create_study(
        storage=storage, study_name="search", load_if_exists=True, directions=["minimize"] * directions
    )
    set_sampler(study, sampler, 0)
    return study


def set_sampler(study: optuna.Study, name: str, seed: int) -> None:
    study.sampler = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=4, multivariate=True, constant_liar=True),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=3, scramble=True, warn_independent_sampling=False),
    }[name]()


def drive(study: optuna.Study, sampler: str, first: int, count: int) -> list[dict[str, object]]:
    """Ask, report and tell as a driver with four workers; return the proposals."""
    running: list[optuna.Trial] = []
    proposals, several = [], len(study.directions) > 1
    for number in range(first, first + count):
        set_sampler(study, sampler, number)
        trial = study.ask(SPACE)
        trial.set_user_attr("trial_id", f"id-{number}")
        proposals.append(trial.params)
        running.append(trial)
        if len(running) < 4:
            continue
        ended = running.pop(number % 3)
        value = abs(ended.params["depth"] - 4) + ended.params["rate"]
        for step in (1, 2, 2) if not several else ():
            ended.report(value / step, step)
        state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[(number % 7) // 3]
        if several and state == TrialState.PRUNED:
            state = TrialState.FAIL
        values = None if state != TrialState.COMPLETE else [value] * len(study.directions)
        study.tell(ended, values, state=state)
    return proposals


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore:The reported value is ignored")
@pytest.mark.parametrize(("sampler", "directions"), [("tpe", 1), ("tpe", 2), ("random", 1), ("qmc", 1)])
def test_proposals_and_the_database_are_those_of_optunas_own_storage(
    tmp_path: Path, sampler: str, directions: int
) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("usual", "single")]
    usual = open_study(urls[0], sampler, directions)
    for study in (usual, single := open_study(SingleWriterStorage(urls[1]), sampler, directions)):
        study.enqueue_trial({"rate": 0.5, "depth": 2, "loss": None}, skip_if_exists=True)
    assert drive(usual, sampler, 0, 12) == drive(single, sampler, 0, 12)
    assert single.trials == open_study(urls[1], sampler, directions).trials
    # A driver that resumes: its running trials are known, and it goes on with the same proposals.
    usual, single = (
        open_study(urls[0], sampler, directions),
        open_study(SingleWriterStorage(urls[1]), sampler, directions),
    )
    assert drive(usual, sampler, 12, 4) == drive(single, sampler, 12, 4)
    assert single.trials == open_study(urls[1], sampler, directions).trials
    found, expected = ([vars(each) for each in study.trials] for study in (single, usual))
    for one, other in zip(found, expected, strict=True):
        assert {k: v for k, v in one.items() if "datetime" not in k} == {
            k: v for k, v in other.items() if "datetime" not in k
        }


def test_a_trial_that_was_given_does_not_change_and_a_known_id_alone_finds_its_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    trial = open_study(url, "random").ask(SPACE)
    storage = SingleWriterStorage(url)
    before = storage.get_trial(trial._trial_id)
    storage.set_trial_user_attr(trial._trial_id, "trial_id", "a")
    storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
    assert (before.user_attrs, before.intermediate_values) == ({}, {})
    assert storage.get_trial(trial._trial_id) == RDBStorage(url).get_trial(trial._trial_id)
    assert storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, "late", 1)
    assert "late" not in storage.get_trial(trial._trial_id).user_attrs
    study = storage.get_study_id_from_name("search")
    storage.delete_study(study)
    assert storage.get_all_studies() == []
