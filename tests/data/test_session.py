"""Run with `pytest tests/data/test_session.py`."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dirtune.data.connect import REFUSED
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
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "RAY_ADDRESS": address},
    )
    node = ray.get_runtime_context().get_node_id()
    assert done.stdout.split() == [node, "2", "False"]
    assert ray.get(ray.put(3)) == 3


OWN = """
import json, subprocess, sys, urllib.error, urllib.request
import ray
from dirtune.data.connect import HANDSHAKE
from dirtune.data.session import ray_session

def answers_to(request):
    try:
        return urllib.request.urlopen(request, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:  # another Ray of this machine has the agent's port
        return 401

with ray_session():
    node = ray._private.worker._global_node
    address, agent = ray.get_runtime_context().gcs_address, node.dashboard_agent_listen_port
    stranger = {"PATH": "", "HOME": "/nonexistent"}
    command = [sys.executable, "-c", HANDSHAKE, address]
    hello = subprocess.run(command, env=stranger, capture_output=True).returncode
    jobs = f"http://{node.node_ip_address}:{agent}/api/job_agent/jobs/"
    print(json.dumps([node.webui_url, hello, answers_to(jobs)]))
"""


def test_a_ray_of_our_own_has_no_dashboard_and_lets_no_stranger_in(tmp_path: Path) -> None:
    """Its dashboard, its control port and the port of its agent, by which jobs would come."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", OWN], capture_output=True, text=True, check=True, env={**plain, "HOME": str(tmp_path)}
    )
    assert json.loads(done.stdout.splitlines()[-1]) == ["", REFUSED, 401]


def test_without_a_ray_a_quiet_one_is_started_and_ended() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[-1] == "False"
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_a_ray_that_does_not_start_is_one_sentence(tmp_path: Path) -> None:
    """The name of a socket may not be longer than 107 characters, and Ray's lie in its temporary folder."""
    command = [sys.executable, "-m", "dirtune.cli", "ingest", "digits", "--data", str(tmp_path / "data")]
    plain = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**plain, "RAY_TMPDIR": str(tmp_path / ("x" * 100))}
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dirtune: Ray: does not start: ")
    assert done.stderr.endswith("(`dirtune doctor` examines the cause)\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
