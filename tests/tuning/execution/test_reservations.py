"""What dead groups keep, on a local Ray: `pytest tests/tuning/execution/test_reservations.py`."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from dirtune.tuning.execution.reservations import Reservations

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

SHARE = {"CPU": 0.125}


@ray.remote(num_cpus=0)
class Controller:
    """Reserves what a group of two ranks needs, as Ray Train's controller does."""

    def reserve(self) -> str:
        group = placement_group([SHARE] * 2)
        assert group.wait(60)
        return group.id.hex()


def reserved_by_a_dead_one() -> str:
    controller: Any = Controller.remote()
    name: str = ray.get(controller.reserve.remote())
    ray.kill(controller)
    return name


def state(name: str) -> str:
    return str(placement_group_table()[name]["state"])


def wait_for_removal(name: str) -> None:
    deadline = time.monotonic() + 60
    while state(name) != "REMOVED":
        assert time.monotonic() < deadline, f"{name} is kept"
        time.sleep(0.1)


def test_what_a_dead_group_keeps_is_given_back_and_what_a_living_one_holds_is_not() -> None:
    groups = Reservations(SHARE, 2)
    living, dead = reserved_by_a_dead_one(), reserved_by_a_dead_one()
    groups.start("a", "worker a")
    groups.start("b", "worker b")
    groups.report("a", living)
    groups.report("b", dead)
    # The next trial of a worker, which has not reported yet
    groups.start("c", "worker a")
    groups.lose("b")
    wait_for_removal(dead)
    assert state(living) == "CREATED"
    groups.lose("c")
    wait_for_removal(living)


def test_a_group_that_died_before_it_reported_is_found() -> None:
    groups = Reservations(SHARE, 2)
    groups.start("a", "worker")
    groups.report("a", None)
    unknown = reserved_by_a_dead_one()
    groups.lose("a")
    wait_for_removal(unknown)


def test_the_reservations_of_others_are_left_alone(request: pytest.FixtureRequest) -> None:
    earlier = Reservations(SHARE, 2)
    before = reserved_by_a_dead_one()
    groups = Reservations(SHARE, 2)
    named, larger = placement_group([SHARE] * 2, name="mine"), placement_group([SHARE] * 3)
    # Also of a test that fails: nobody else gives them back
    for group in (named, larger):
        request.addfinalizer(partial(ray.util.remove_placement_group, group))
    assert named.wait(60)
    assert larger.wait(60)
    last = reserved_by_a_dead_one()
    groups.give_back_all()
    wait_for_removal(last)
    assert {state(name) for name in (before, named.id.hex(), larger.id.hex())} == {"CREATED"}
    earlier.give_back_all()
    wait_for_removal(before)
