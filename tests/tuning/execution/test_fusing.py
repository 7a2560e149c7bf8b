"""How many trials go side by side: `pytest tests/tuning/execution/test_fusing.py`."""

from __future__ import annotations

import pytest

from dirtune.tuning.execution.fusing import MOST, SAFE_SHARE, Fusing


def test_a_number_is_kept_whatever_is_learnt() -> None:
    fusing = Fusing(3)
    fusing.learn(3, 0.99)
    assert fusing.most == 3


@pytest.mark.parametrize(
    ("taken", "most"),
    [
        ({}, 1),
        ({1: 0.3}, 2),
        ({1: 0.9}, 1),
        # More than its part
        ({1: 2.0}, 1),
        ({1: 0.001}, MOST),
        # 0.2 of the first 0.3 are data and libraries: two take 0.4, and the third finds room.
        ({1: 0.3, 2: 0.4}, 3),
        ({1: 0.3, 2: 0.8}, 1),
    ],
)
def test_the_first_ones_show_how_many_fit(taken: dict[int, float], most: int) -> None:
    fusing = Fusing("auto")
    for trials, share in taken.items():
        fusing.learn(trials, share)
    assert fusing.most == most


def test_of_trials_that_take_more_and_less_the_one_that_takes_more_counts() -> None:
    fusing = Fusing("auto")
    for share in (0.1, SAFE_SHARE / 4, 0.05):
        fusing.learn(1, share)
    assert fusing.most == 4
