from __future__ import annotations

import math
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.searches import list_ended_trials, read_search_history
from dirtune.results.records.studies import open_studies, read_study
from tests.results.figures.stores import SPACE, write_compared_arms, write_search


def test_trials_come_in_the_order_of_their_end(tmp_path: Path) -> None:
    storage = open_studies(write_search(tmp_path))["study"]

    found = list_ended_trials(storage, read_study(storage))

    assert [trial.trial_id for trial in found] == [f"t{i:02d}" for i in range(14, -1, -1)]
    assert [trial.status for trial in found[:4]] == ["pruned", "pruned", "failed", "complete"]
    assert found[4].settings.keys() == SPACE.keys()
    assert found[4].objective == pytest.approx(found[4].settings["terms.conr.omega"])


def test_without_a_time_they_come_by_name_and_a_missing_objective_is_nan(tmp_path: Path) -> None:
    storage = open_studies(write_compared_arms(tmp_path))["study"]

    found = list_ended_trials(storage, read_study(storage))

    assert [trial.trial_id for trial in found] == sorted(trial.trial_id for trial in found)
    assert all(trial.settings == {} and not math.isnan(trial.objective) for trial in found)


def test_the_arm_with_the_most_settings_is_the_default(tmp_path: Path) -> None:
    root = write_search(tmp_path)

    assert read_search_history(root, "study").arm == "conr"
    other = read_search_history(root, "study", "accon")
    assert (other.others, other.trials) == (("conr",), ())


def test_what_is_not_searched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no arm with settings to search"):
        read_search_history(write_compared_arms(tmp_path / "a"), "study")
    with pytest.raises(InputError, match="unknown searched arm, got 'vanilla'"):
        read_search_history(write_search(tmp_path / "b"), "study", "vanilla")
