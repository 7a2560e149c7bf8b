"""Run with `pytest tests/study/test_search_settings.py`."""

from __future__ import annotations

from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.study.search_settings import Asha, Median, Search


def search(**settings: Any) -> Search:
    return read(Search, settings, where="t", prefix="search")


def test_a_scheduler_without_a_name_is_asha() -> None:
    assert search(scheduler={"grace_epochs": 4}).scheduler == Asha(grace_epochs=4)
    assert search(scheduler={"name": "median", "min_trials": 5}).scheduler == Median(min_trials=5)
    assert search().scheduler is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scheduler": {"name": "hyperband"}},
            "search.scheduler.name: unknown name, got 'hyperband'; known: asha, median",
        ),
        ({"scheduler": "asha"}, "search.scheduler: "),
        ({"scheduler": {"name": "median", "reduction_factor": 2}}, "unknown key, got 'reduction_factor'"),
        ({"sampler": "cma"}, "search.sampler: should be 'tpe', 'random', 'gp', 'qmc' or 'grid'"),
        ({"warm_start": {"best": 0}}, "search.warm_start.best: should be greater than or equal to 1"),
        ({"tuning_seed": -1}, "search.tuning_seed: should be greater than or equal to 0"),
    ],
)
def test_invalid_search_settings_are_reported_with_their_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        search(**settings)
    assert message in str(caught.value)
