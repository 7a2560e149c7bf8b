"""Run with `pytest tests/data/test_session.py`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from dirtune.data.session import ray_session as session

pytestmark = pytest.mark.ray


def test_a_running_ray_is_joined_and_left_running(ray_session: None) -> None:
    import ray

    before = ray.get_runtime_context().get_node_id()
    with session():
        assert ray.get_runtime_context().get_node_id() == before
    assert ray.is_initialized()


def test_the_level_of_the_data_logger_comes_back_also_after_an_error(ray_session: None) -> None:
    logger = logging.getLogger("ray.data")
    outside = logger.level
    logger.setLevel(17)
    try:
        with pytest.raises(RuntimeError, match="inside at level 50"), session():
            raise RuntimeError(f"inside at level {logger.level}")
        assert logger.level == 17
    finally:
        logger.setLevel(outside)


def test_sessions_nest_and_the_inner_one_ends_nothing(ray_session: None) -> None:
    import ray

    with session():
        with session():
            pass
        assert ray.get(ray.put(3)) == 3


SCRIPT = """
import ray
from dirtune.data.session import ray_session
with ray_session():
    print(ray.get_runtime_context().get_node_id(), int(ray.cluster_resources()["CPU"]))
print(ray.is_initialized())
"""


def test_the_ray_at_ray_address_is_joined_and_outlives_the_process(ray_session: None) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True,
        env={**os.environ, "RAY_ADDRESS": address},
    )  # fmt: skip
    node = ray.get_runtime_context().get_node_id()
    assert done.stdout.split() == [node, "2", "False"]
    assert ray.get(ray.put(3)) == 3


def test_without_a_ray_a_quiet_one_is_started_and_ended() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split()[-1] == "False"
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""
