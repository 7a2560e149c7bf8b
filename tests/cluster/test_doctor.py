"""Run with `pytest tests/cluster/test_doctor.py`; one test starts a cluster of two nodes in a process of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import GetTimeoutError, RayTaskError

from dirtune.cluster.checks import NodeReport, has_problem
from dirtune.cluster.doctor import (
    check_authentication,
    check_dirtune_version,
    check_failures,
    format_node_error,
    name_nodes,
)
from dirtune.manifest import MANIFEST
from dirtune.tuning.plan.capacity import Node
from tests.cluster.test_checks import make_machine

SCRIPT = """
import json, os, sys
from dataclasses import asdict
import ray
from ray.cluster_utils import Cluster
from dirtune.cluster.doctor import doctor
from dirtune.tuning.plan.capacity import list_available_nodes

roots = {"data": sys.argv[1], "results": sys.argv[2]}
alone = doctor(**roots)
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
cluster.add_node(num_cpus=2)
joined = doctor(cluster.address, **roots)
print(json.dumps([[asdict(each) for each in found] for found in (alone, joined)]), ray.is_initialized(), sep="\\n")
cluster.add_node(num_cpus=3, num_gpus=2)
os.environ["RAY_ADDRESS"] = cluster.address
print(json.dumps(sorted(list_available_nodes())), ray.is_initialized(), sep="\\n")
cluster.shutdown()
"""


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "data" / "digits").mkdir(parents=True)
    (tmp_path / "data" / "digits" / MANIFEST).write_text("{}")
    return tmp_path / "data", tmp_path / "results"


@pytest.mark.ray
def test_this_machine_or_every_node_of_a_cluster_is_measured_and_probes_the_roots(
    roots: tuple[Path, Path],
) -> None:
    data, results = roots
    plain = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(data), str(results)],
        env={**plain, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *_, line, is_joined, nodes, is_still_joined = done.stdout.splitlines()
    alone, joined = ([tuple(each.values()) for each in found] for found in json.loads(line))
    cpus = f"{os.cpu_count()} on 1 node"
    assert ("cluster", "none; a sweep starts one on this machine", "ok", "") in alone
    assert ("CPUs", cpus, "ok", "") in alone
    assert ("CPUs", "3 on 2 nodes", "ok", "") in joined
    assert ("clock", "no difference between nodes", "ok", "") in joined
    assert any(value.endswith("authentication disabled") for _, value, *_ in joined)
    # The two processes have added up a tensor
    (network,) = (each for each in joined if each[0] == "group network")
    assert re.fullmatch(r"gloo over 2 nodes, \d+\.\d GB/s", network[1])
    assert network[2] == "ok"
    assert not [each for each in alone if each[0] == "group network"]
    for found in (alone, joined):
        assert ("data root", f"{data}: digits", "ok", "") in found
        assert ("results root", f"{results}: written and read by every node", "ok", "") in found
        assert not [each for each in found if each[0] == "no answer"]
    assert not results.exists()
    assert json.loads(nodes) == [[1.0, 0.0], [2.0, 0.0], [3.0, 2.0]]
    assert (is_joined, is_still_joined) == ("False", "False")


def test_a_cluster_without_a_token_is_a_warning_unless_it_listens_on_loopback() -> None:
    assert check_authentication("127.0.0.1:6379", "disabled").state == "ok"
    assert check_authentication("10.0.0.1:6379", "token").state == "ok"
    found = check_authentication("10.0.0.1:6379", "disabled")
    assert (found.state, found.value) == ("warning", "10.0.0.1:6379, authentication disabled")
    assert "RAY_AUTH_MODE=token" in found.advice


def test_nodes_that_share_a_host_are_named_with_their_ids() -> None:
    nodes = [
        {"NodeID": "aaaaaaaa", "NodeManagerHostname": "one"},
        {"NodeID": "bbbbbbbb", "NodeManagerHostname": "one"},
        {"NodeID": "cccccccc", "NodeManagerHostname": "two"},
    ]
    assert list(name_nodes(nodes).values()) == ["one (aaaaaa)", "one (bbbbbb)", "two"]


def test_a_node_that_was_not_measured_is_a_problem_with_its_reason() -> None:
    missing = ModuleNotFoundError("No module named 'dirtune'")
    error = RayTaskError("examined", f"Traceback\n  somewhere\n{missing!r}", missing)
    assert format_node_error(error).endswith("No module named 'dirtune'\")")
    assert format_node_error(GetTimeoutError()) == "nothing within 120 s"
    found = check_failures({"b": format_node_error(GetTimeoutError())})
    assert (found.state, found.value) == ("problem", "b: nothing within 120 s")
    assert has_problem([found])


@pytest.mark.parametrize(("submitted", "is_same"), [("0.1.0", True), ("0.1.0+abc.def", True), ("0.2.0", False)])
def test_the_cluster_must_have_the_version_of_dirtune_that_validated_the_study(
    submitted: str, *, is_same: bool
) -> None:
    versions = {**make_machine().versions, "dirtune": "0.1.0+123"}
    report = NodeReport(name=socket.gethostname(), node=Node(1), machine=make_machine(versions=versions))
    found = list(check_dirtune_version(submitted, [report]))
    assert [each.state for each in found] == ([] if is_same else ["problem"])
    assert all(socket.gethostname() in each.value and submitted in each.value for each in found)
