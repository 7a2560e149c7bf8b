from __future__ import annotations

import math
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.searches import EndedTrial
from dirtune.results.figures.history import build_history, draw_history, make_arm_history
from dirtune.results.records.studies import StudyInfo
from tests.results.figures.stores import KEYS, make_request, write_compared_arms, write_many_arms, write_search
from tests.results.record_factory import write_study


def ended(objective: float, status: str = "complete") -> EndedTrial:
    return EndedTrial(trial_id="t", arm="a", status=status, objective=objective, settings={})


@pytest.mark.parametrize(("metric", "best"), [("mae", [math.nan, 5, 5, 3, 3]), ("pearson", [math.nan, 5, 6, 6, 6])])
def test_best_so_far_is_that_of_the_complete_trials(metric: str, best: list[float]) -> None:
    trials = [ended(1.0, "pruned"), ended(5.0), ended(6.0), ended(3.0), ended(math.nan)]

    found = make_arm_history("a", trials, StudyInfo(name="study", metric=metric))

    assert found.best == pytest.approx(best, nan_ok=True)
    assert found.complete == ((2, 5.0), (3, 6.0), (4, 3.0))
    assert found.pruned == ((1, 1.0),)


def test_trials_are_in_the_order_of_their_end(tmp_path: Path) -> None:
    data = build_history(make_request(write_search(tmp_path)))

    # The others have nothing yet
    (arm,) = data.arms
    assert [position for position, _ in arm.pruned] == [1, 2]
    # 3 has failed
    assert [position for position, _ in arm.complete] == list(range(4, 16))
    assert "1 failed" in data.caption
    assert data.label == "validation MAE [degrees], all"


def test_a_step_line_dots_and_crosses_are_drawn_for_every_arm(tmp_path: Path) -> None:
    data = build_history(make_request(write_search(tmp_path)))

    (axes,) = draw_history(data).axes

    (line,) = axes.lines
    assert line.get_label() == "conr"
    assert line.get_drawstyle() == "steps-post"
    assert line.get_ydata() == pytest.approx(data.arms[0].best, nan_ok=True)
    assert [len(dots.get_offsets()) for dots in axes.collections] == [12, 2]


def test_arms_beyond_the_maximum_are_dropped_by_a_stated_rule(tmp_path: Path) -> None:
    data = build_history(make_request(write_many_arms(tmp_path, 36)))

    assert [int(arm.arm[-2:]) for arm in data.arms] == [0, *range(29, 36)]
    assert "8 of 36 arms are shown" in data.caption


def test_requested_arms_are_shown(tmp_path: Path) -> None:
    data = build_history(make_request(write_compared_arms(tmp_path), arms=("conr", "l*")))

    assert [arm.arm for arm in data.arms] == ["conr", "lds"]


def test_without_an_objective_there_is_nothing_to_draw(tmp_path: Path) -> None:
    write_study(tmp_path, [], **KEYS)
    with pytest.raises(InputError, match="has no trial with a validation objective yet"):
        build_history(make_request(tmp_path))
