"""How many trials run at once: `pytest tests/tuning/execution/test_concurrency.py`; nodes that come and go are in `benchmarks/nodes.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dirtune.study.resolve import load_study
from dirtune.tuning.execution import concurrency as slots
from dirtune.tuning.execution.concurrency import Slots

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_the_trials_at_once_are_those_that_the_nodes_hold_now_and_not_asked_for_every_moment(
    study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Slots(load_study(study_file()), (), 5)
    # The CPUs of the tests' Ray
    assert found.now() == 2
    found.number = 7
    assert found.now() == 7
    monkeypatch.setattr(slots, "LOOK_SECONDS", 0.0)
    assert found.now() == 2


def test_no_more_than_the_study_allows_and_one_that_waits_where_no_node_holds_a_trial(
    study_file: Callable[..., str],
) -> None:
    assert Slots(load_study(study_file(resources={"concurrent": 1})), (), 1).now() == 1
    assert Slots(load_study(study_file(resources={"cpus": 64})), (), 4).now() == 1
