"""Number of concurrent trials: `pytest tests/tuning/execution/test_concurrency.py`; nodes that join and leave are in `benchmarks/nodes.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dirtune.study.resolve import load_study
from dirtune.tuning.execution import concurrency
from dirtune.tuning.execution.concurrency import Concurrency

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_the_trials_at_once_follow_the_nodes_which_are_queried_every_few_seconds(
    study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Concurrency(load_study(study_file()), (), 5)
    # The CPUs of the tests' Ray
    assert found.update() == 2
    found.count = 7
    assert found.update() == 7
    monkeypatch.setattr(concurrency, "QUERY_SECONDS", 0.0)
    assert found.update() == 2


def test_the_trials_at_once_are_limited_by_the_study_and_at_least_one(
    study_file: Callable[..., str],
) -> None:
    assert Concurrency(load_study(study_file(resources={"concurrent": 1})), (), 1).update() == 1
    assert Concurrency(load_study(study_file(resources={"cpus": 64})), (), 4).update() == 1
