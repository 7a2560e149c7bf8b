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
from dirtune.data.session import find_socket_fault
from dirtune.data.session import ray_session as session
from dirtune.progress import show_progress

pytestmark = pytest.mark.ray


def test_a_running_ray_is_used_and_kept_running(ray_session: None) -> None:
    import ray

    before = ray.get_runtime_context().get_node_id()
    with session():
        assert ray.get_runtime_context().get_node_id() == before
    assert ray.is_initialized()


def test_the_level_of_the_data_logger_is_restored_after_an_error(ray_session: None) -> None:
    logger = logging.getLogger("ray.data")
    outside = logger.level
    logger.setLevel(17)
    try:
        with pytest.raises(RuntimeError, match="inside at level 50"), session():
            raise RuntimeError(f"inside at level {logger.level}")
        assert logger.level == 17
    finally:
        logger.setLevel(outside)


def test_a_session_writes_neither_bars_nor_escape_codes(
    ray_session: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.data

    registered = []
    monkeypatch.setattr("atexit.unregister", registered.append)
    before = ray.data.DataContext.get_current().enable_progress_bars
    with session():
        assert ray.data.range(3).map(lambda row: row).materialize().count() == 3
        with show_progress("reading", 3) as advance:
            advance(3)
    assert ray.data.DataContext.get_current().enable_progress_bars == before
    assert capfd.readouterr() == ("", "")
    # Otherwise it would write an escape code at the end of the process.
    assert [each.__module__ for each in registered] == ["colorama.initialise"]  # codespell:ignore


def test_an_inner_session_does_not_end_the_outer_one(ray_session: None) -> None:
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


def test_the_cluster_at_ray_address_is_used_and_outlives_the_process(ray_session: None) -> None:
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


LOCAL = """
import json, os, signal, subprocess, sys, time, urllib.error, urllib.request
import ray
from dirtune.data.connect import HANDSHAKE
from dirtune.data.session import ray_session

def get_status(request):
    try:
        return urllib.request.urlopen(request, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None

with ray_session():
    node = ray._private.worker._global_node
    address, agent = ray.get_runtime_context().gcs_address, node.dashboard_agent_listen_port
    without_token = {"PATH": "", "HOME": "/nonexistent"}
    command = [sys.executable, "-c", HANDSHAKE, address]
    handshake = subprocess.run(command, env=without_token, capture_output=True).returncode
    jobs = f"http://{node.node_ip_address}:{agent}/api/job_agent/jobs/"
    print(json.dumps([node.webui_url, handshake, get_status(jobs), node.metrics_export_port]))
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.killpg(0, signal.SIGTERM)
    # A process of Ray that had got the signal would be gone.
    time.sleep(1)
    print(json.dumps([sorted(node.all_processes), node.dead_processes()]))
print(ray.is_initialized())
"""


def test_without_a_ray_a_quiet_local_one_requires_a_token_and_ends_with_the_session(tmp_path: Path) -> None:
    """No dashboard and no port of metrics; its control port and the port of its agent, which would accept jobs, refuse clients without a token.

    A signal to the process group, such as that of `timeout`, does not end it.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL],
        capture_output=True,
        text=True,
        check=True,
        env={**plain, "HOME": str(tmp_path)},
        start_new_session=True,
    )
    inside, processes, after = done.stdout.splitlines()
    webui_url, handshake, status, metrics_port = json.loads(inside)
    assert (webui_url, handshake, metrics_port) == (None, REFUSED, -1)
    # 401: another Ray of this machine has the agent's port
    assert status in {None, 401}
    assert json.loads(processes) == [["gcs_server", "raylet"], []]
    assert after == "False"
    assert done.stderr == ""


def test_a_ray_that_does_not_start_is_a_one_line_error(tmp_path: Path) -> None:
    """The path of a socket has at most 107 characters, and Ray's sockets are in its temporary folder."""
    command = [sys.executable, "-m", "dirtune.cli", "ingest", "digits", "--data", str(tmp_path / "data")]
    plain = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**plain, "RAY_TMPDIR": str(tmp_path / ("x" * 100))}
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dirtune: Ray: does not start: the path of its folder (RAY_TMPDIR) has ")
    assert done.stderr.endswith("set RAY_TMPDIR=/tmp\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_whose_path_sockets_cannot_have_is_found_before_ray_starts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(other, raising=False)
    assert find_socket_fault() is None
    monkeypatch.setenv(name, "/x" * 60)
    assert f"({name}) has 120 characters" in str(find_socket_fault())
    for folder, fault in {
        "/tmp/ü": "has letters that are not ASCII",
        "tmp": "is 'tmp', which is no absolute path",
    }.items():
        monkeypatch.setenv(name, folder)
        assert find_socket_fault() == f"the path of its folder ({name}) {fault}; set RAY_TMPDIR=/tmp"
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert find_socket_fault() is None
