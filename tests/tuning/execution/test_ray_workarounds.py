"""Resources that Ray would keep, on a local Ray: run with `pytest tests/tuning/execution/test_ray_workarounds.py`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.air.execution.resources import ResourceRequest
from ray.tune.execution import class_cache, tune_controller
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from dirtune.process import set_environment
from dirtune.tuning.execution.ray_workarounds import (
    IDLE_SECONDS,
    SETTLING_SECONDS,
    GroupReservations,
    IdleWorkers,
    SettledPlacementGroups,
    use_settled_placement_groups,
    without_callback_statistics,
    without_worker_environment,
)
from dirtune.tuning.execution.tune_run import TUNE_SETTINGS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

SMALL = ResourceRequest([{"CPU": 0.125}])


@pytest.fixture
def groups() -> Iterator[SettledPlacementGroups]:
    groups = SettledPlacementGroups(update_interval_s=0.0)
    yield groups
    groups.clear()


def list_living_groups() -> set[str]:
    return {name for name, group in placement_group_table().items() if group["state"] != "REMOVED"}


def wait_until_ready(groups: SettledPlacementGroups) -> None:
    deadline = time.monotonic() + 60
    while not groups.has_resources_ready(SMALL):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_removed(groups: SettledPlacementGroups, before: set[str]) -> None:
    deadline = time.monotonic() + 60
    while list_living_groups() != before:
        assert time.monotonic() < deadline
        groups.update_state()
        time.sleep(0.01)


def test_requests_that_are_canceled_at_once_cost_the_cluster_nothing(groups: SettledPlacementGroups) -> None:
    """Removed at once, as Tune does it, about one of ten is lost; `ray_session` checks that all CPUs come back."""
    before = list_living_groups()
    for _ in range(50):
        groups.request_resources(SMALL)
        groups.cancel_resource_request(SMALL)
        groups.update_state()
    wait_until_removed(groups, before)


def test_requests_that_are_cleared_at_once_are_released_in_the_end(groups: SettledPlacementGroups) -> None:
    before = list_living_groups()
    for _ in range(20):
        for _ in range(4):
            groups.request_resources(SMALL)
        groups.clear()
    wait_until_removed(groups, before)


def test_idle_workers_are_kept_for_a_moment_or_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, now = IdleWorkers(), [0.0]
    monkeypatch.setattr("dirtune.tuning.execution.ray_workarounds.time.monotonic", lambda: now[0])
    first, second, third = object(), object(), object()
    assert all(workers.cache_object("cpu", each) for each in (first, second, third))
    assert list(workers.flush_cached_objects()) == []
    now[0] = IDLE_SECONDS + 1
    # One is needed by a trial that is staged.
    workers.increase_max("cpu")
    assert list(workers.flush_cached_objects()) == [first, second]
    assert workers.pop_cached_object("cpu") is third
    assert workers.cache_object("cpu", third)
    assert list(workers.flush_cached_objects(force_all=True)) == [third]
    assert workers.num_cached_objects == 0


def test_tune_imports_no_tracker_to_count_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the workaround it does, or this test holds nothing."""
    integrations = ["ray.air.integrations.mlflow", "ray.air.integrations.wandb"]

    def run() -> set[str]:
        for name in integrations:
            # Another test may have imported it
            monkeypatch.delitem(sys.modules, name, raising=False)
        with set_environment(TUNE_SETTINGS):
            assert tune.run(lambda config: {"loss": 0.0}, callbacks=[tune.Callback()], verbose=0).trials
        return {name for name in integrations if name in sys.modules}

    with without_callback_statistics():
        assert run() == set()
    assert run() == set(integrations)


class Probe:
    """Returns when its process started, in seconds since the start of the machine, and what is in its environment."""

    def probe(self) -> tuple[float, bool, str | None]:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2]
        started = int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")
        return started, "PL_DISABLE_FORK" in os.environ, os.environ.get("AWS_SESSION_TOKEN")


def run_probe() -> tuple[float, bool, str | None]:
    actor = class_cache._ActorClassCache().get(Probe).options(num_cpus=0.125).remote()
    found: tuple[float, bool, str | None] = ray.get(actor.probe.remote())
    ray.kill(actor)
    return found


def test_a_worker_takes_a_process_that_ray_has_started_unless_it_gets_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its process is there when it has ended.
    ray.get(ray.remote(lambda: 0).options(num_cpus=0.125).remote())
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with without_worker_environment():
        started, *environment = run_probe()
    assert environment == [False, None]
    assert started < before
    monkeypatch.setenv("AWS_SESSION_TOKEN", "mine")
    with without_worker_environment():
        assert run_probe()[1:] == (True, "mine")


def test_the_next_request_takes_a_canceled_one(groups: SettledPlacementGroups) -> None:
    before = list_living_groups()
    groups.request_resources(SMALL)
    (requested,) = list_living_groups() - before
    groups.cancel_resource_request(SMALL)
    groups.request_resources(SMALL)
    wait_until_ready(groups)
    assert list_living_groups() - before == {requested}
    acquired = groups.acquire_resources(SMALL)
    assert acquired is not None
    groups.free_resources(acquired)
    wait_until_removed(groups, before)


def test_a_pending_request_keeps_its_group_when_another_one_is_canceled(groups: SettledPlacementGroups) -> None:
    before = list_living_groups()
    groups.request_resources(SMALL)
    groups.request_resources(SMALL)
    groups.cancel_resource_request(SMALL)
    wait_until_ready(groups)
    acquired = groups.acquire_resources(SMALL)
    assert acquired is not None
    deadline = time.monotonic() + 60
    while len(list_living_groups() - before) > 1:
        assert time.monotonic() < deadline
        groups.update_state()
        time.sleep(0.01)
    groups.free_resources(acquired)
    wait_until_removed(groups, before)


def test_a_canceled_request_without_free_resources_is_removed(
    groups: SettledPlacementGroups, request: pytest.FixtureRequest
) -> None:
    full = placement_group([{"CPU": 2}])
    request.addfinalizer(partial(remove_placement_group, full))
    assert full.wait(60)
    before = list_living_groups()
    groups.request_resources(SMALL)
    groups.cancel_resource_request(SMALL)
    groups.update_state()
    assert len(list_living_groups() - before) == 1
    time.sleep(SETTLING_SECONDS)
    wait_until_removed(groups, before)


def test_tune_uses_settled_placement_groups_inside_the_block_and_leaves_none_behind() -> None:
    own, before = tune_controller.PlacementGroupResourceManager, list_living_groups()
    with use_settled_placement_groups():
        groups = tune_controller.PlacementGroupResourceManager()
        assert isinstance(groups, SettledPlacementGroups)
        groups.request_resources(SMALL)
    wait_until_removed(groups, before)
    assert tune_controller.PlacementGroupResourceManager is own
    assert ray.is_initialized()


SHARE = {"CPU": 0.125}


@ray.remote(num_cpus=0)
class Controller:
    """Reserves what a group of two ranks needs, as Ray Train's controller does."""

    def reserve(self) -> str:
        group = placement_group([SHARE] * 2)
        assert group.wait(60)
        return group.id.hex()


def make_reservation_of_dead_group() -> str:
    controller: Any = Controller.remote()
    name: str = ray.get(controller.reserve.remote())
    ray.kill(controller)
    return name


def get_state(name: str) -> str:
    return str(placement_group_table()[name]["state"])


def wait_for_removal(name: str) -> None:
    deadline = time.monotonic() + 60
    while get_state(name) != "REMOVED":
        assert time.monotonic() < deadline, f"{name} is kept"
        time.sleep(0.1)


def test_the_reservation_of_a_dead_group_is_released_and_that_of_a_living_one_is_kept() -> None:
    groups = GroupReservations(SHARE, 2)
    living, dead = make_reservation_of_dead_group(), make_reservation_of_dead_group()
    groups.start("a", "worker a")
    groups.start("b", "worker b")
    groups.report("a", living)
    groups.report("b", dead)
    # The next trial of a worker, which has not reported yet
    groups.start("c", "worker a")
    groups.release("b")
    wait_for_removal(dead)
    assert get_state(living) == "CREATED"
    groups.release("c")
    wait_for_removal(living)


def test_the_reservation_of_a_group_that_died_before_it_reported_is_released() -> None:
    groups = GroupReservations(SHARE, 2)
    groups.start("a", "worker")
    groups.report("a", None)
    unknown = make_reservation_of_dead_group()
    groups.release("a")
    wait_for_removal(unknown)


def test_placement_groups_of_others_are_kept(request: pytest.FixtureRequest) -> None:
    earlier = GroupReservations(SHARE, 2)
    before = make_reservation_of_dead_group()
    groups = GroupReservations(SHARE, 2)
    named, larger = placement_group([SHARE] * 2, name="mine"), placement_group([SHARE] * 3)
    # Released even if the test fails, since nothing else would
    for group in (named, larger):
        request.addfinalizer(partial(ray.util.remove_placement_group, group))
    assert named.wait(60)
    assert larger.wait(60)
    last = make_reservation_of_dead_group()
    groups.release_all()
    wait_for_removal(last)
    assert {get_state(name) for name in (before, named.id.hex(), larger.id.hex())} == {"CREATED"}
    earlier.release_all()
    wait_for_removal(before)
