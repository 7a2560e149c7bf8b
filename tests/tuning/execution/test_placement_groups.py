"""Requests that are withdrawn at once, on a local Ray: `pytest tests/tuning/execution/test_placement_groups.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest
import ray
from ray.air.execution.resources import ResourceRequest
from ray.tune.execution import tune_controller
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from dirtune.tuning.execution.placement_groups import SETTLING_SECONDS, SettledPlacementGroups, settled_placement_groups

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

SMALL = ResourceRequest([{"CPU": 0.125}])


@pytest.fixture
def groups() -> Iterator[SettledPlacementGroups]:
    groups = SettledPlacementGroups(update_interval_s=0.0)
    yield groups
    groups.clear()


def living() -> set[str]:
    return {name for name, group in placement_group_table().items() if group["state"] != "REMOVED"}


def wait_until_ready(groups: SettledPlacementGroups) -> None:
    deadline = time.monotonic() + 60
    while not groups.has_resources_ready(SMALL):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_gone(groups: SettledPlacementGroups, before: set[str]) -> None:
    deadline = time.monotonic() + 60
    while living() != before:
        assert time.monotonic() < deadline
        groups.update_state()
        time.sleep(0.01)


def test_requests_that_are_withdrawn_at_once_cost_the_cluster_nothing(groups: SettledPlacementGroups) -> None:
    """Removed at once, as Tune does it, about one of ten is lost; `ray_session` looks whether all CPUs come back."""
    before = living()
    for _ in range(50):
        groups.request_resources(SMALL)
        groups.cancel_resource_request(SMALL)
        groups.update_state()
    wait_until_gone(groups, before)


def test_all_that_is_asked_for_and_given_up_at_once_comes_back_at_the_end(groups: SettledPlacementGroups) -> None:
    before = living()
    for _ in range(20):
        for _ in range(4):
            groups.request_resources(SMALL)
        groups.clear()
    wait_until_gone(groups, before)


def test_the_next_request_takes_what_was_withdrawn(groups: SettledPlacementGroups) -> None:
    before = living()
    groups.request_resources(SMALL)
    (asked_for,) = living() - before
    groups.cancel_resource_request(SMALL)
    groups.request_resources(SMALL)
    wait_until_ready(groups)
    assert living() - before == {asked_for}
    acquired = groups.acquire_resources(SMALL)
    assert acquired is not None
    groups.free_resources(acquired)
    wait_until_gone(groups, before)


def test_who_still_waits_is_not_robbed_for_one_who_does_not(groups: SettledPlacementGroups) -> None:
    before = living()
    groups.request_resources(SMALL)
    groups.request_resources(SMALL)
    groups.cancel_resource_request(SMALL)
    wait_until_ready(groups)
    acquired = groups.acquire_resources(SMALL)
    assert acquired is not None
    deadline = time.monotonic() + 60
    while len(living() - before) > 1:
        assert time.monotonic() < deadline
        groups.update_state()
        time.sleep(0.01)
    groups.free_resources(acquired)
    wait_until_gone(groups, before)


def test_a_withdrawn_request_without_a_place_does_not_stay(
    groups: SettledPlacementGroups, request: pytest.FixtureRequest
) -> None:
    full = placement_group([{"CPU": 2}])
    request.addfinalizer(partial(remove_placement_group, full))
    assert full.wait(60)
    before = living()
    groups.request_resources(SMALL)
    groups.cancel_resource_request(SMALL)
    groups.update_state()
    assert len(living() - before) == 1
    time.sleep(SETTLING_SECONDS)
    wait_until_gone(groups, before)


def test_tune_uses_them_while_a_sweep_lasts_and_its_own_afterwards() -> None:
    own = tune_controller.PlacementGroupResourceManager
    with settled_placement_groups():
        assert tune_controller.PlacementGroupResourceManager is SettledPlacementGroups
    assert tune_controller.PlacementGroupResourceManager is own
    assert ray.is_initialized()
