"""Test of the network between the nodes of a cluster: processes on different nodes add up a tensor, on GPUs by NCCL.

Trials of several workers do the same in every step. Where their processes do not reach each other, the first step never ends, which
is found here within a minute.
"""

import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dirtune.cluster.checks import Check, list_names
from dirtune.tuning.plan.capacity import Node

START_TIMEOUT = 120.0
"""Seconds for the processes of all nodes to start, and for a GPU of each to be free."""
TEST_TIMEOUT = 120.0
SUBJECT = "group network"

_PROGRAM = Path(__file__).with_name("collective_test.py")


class Member:
    """Actor on one node that runs a member of the group in a process of its own."""

    def get_address(self) -> tuple[str, int]:
        """Return the address of this node and a free port of it."""
        with closing(socket.socket()) as listener:
            listener.bind(("", 0))
            return ray.util.get_node_ip_address(), listener.getsockname()[1]

    def reduce(self, backend: str, host: str, port: int, rank: int, world: int) -> tuple[str, str]:
        """Return the output of the member's process and, if it failed, the reason."""
        return run_member(backend, host, port, rank, world)


def run_member(backend: str, host: str, port: int, rank: int, world: int) -> tuple[str, str]:
    """Run a member of the group; return its output and, if it failed, the reason."""
    command = [sys.executable, "-P", str(_PROGRAM), backend, host, str(port), str(rank), str(world)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=TEST_TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return "", f"no result within {TEST_TIMEOUT:.0f} s"
    if not ended.returncode:
        return ended.stdout.strip(), ""
    lines = [line.strip() for line in ended.stderr.splitlines() if re.match(r"[\w.]+(Error|Exception)?: ", line)]
    return "", lines[-1] if lines else f"the process ended with code {ended.returncode}"


def choose_members(nodes: Mapping[str, Node]) -> tuple[str, list[str]]:
    """Return the backend and the node of each member: a GPU of each node that has one, two of a single node, else a CPU of each."""
    with_gpus = [name for name, node in nodes.items() if node.gpus >= 1]
    if len(with_gpus) > 1:
        return "nccl", with_gpus
    if with_gpus:
        return "nccl", with_gpus * 2 if nodes[with_gpus[0]].gpus >= 2 else []
    return "gloo", list(nodes) if len(nodes) > 1 else []


def check_group_network(nodes: Mapping[str, Node], names: Mapping[str, str]) -> Check | None:
    """Add up a tensor over the nodes of the cluster that this process is connected to; None if there is one member only.

    Args:
        nodes: CPUs and GPUs of each node, by id.
        names: names of the nodes, by id.
    """
    backend, places = choose_members(nodes)
    if not places:
        return None
    members: list[Any] = [
        ray.remote(Member)
        .options(
            num_cpus=0,
            num_gpus=1 if backend == "nccl" else 0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place, soft=False),
        )
        .remote()
        for place in places
    ]
    try:
        addresses = [each.get_address.remote() for each in members]
        started, waiting = ray.wait(addresses, num_returns=len(addresses), timeout=START_TIMEOUT)
        if waiting:
            late = [names[place] for place, each in zip(places, addresses, strict=True) if each not in started]
            missing = "no GPU was free" if backend == "nccl" else "no process started"
            value = f"not tested: {missing} within {START_TIMEOUT:.0f} s on {list_names(late)}"
            return Check(subject=SUBJECT, value=value)
        host, port = ray.get(addresses[0])
        world = len(members)
        results = [each.reduce.remote(backend, host, port, rank, world) for rank, each in enumerate(members)]
        found = dict(
            zip([f"{names[place]}, {number}" for number, place in enumerate(places)], ray.get(results), strict=True)
        )
    except ray.exceptions.RayError as error:
        found = {"a node": ("", str(error).strip().splitlines()[-1])}
    finally:
        for each in members:
            ray.kill(each)
    return judge(backend, places, names, found)


def judge(backend: str, places: list[str], names: Mapping[str, str], found: Mapping[str, tuple[str, str]]) -> Check:
    """Return the check from what the members returned."""
    where = (
        f"{backend} over {len(places)} nodes"
        if len(set(places)) > 1
        else f"{backend} over 2 GPUs of {names[places[0]]}"
    )
    faults = {name.rsplit(",", 1)[0]: fault for name, (_, fault) in found.items() if fault}
    if not faults:
        return Check(subject=SUBJECT, value=f"{where}, {next(iter(found.values()))[0]}")
    first, reason = next(iter(faults.items()))
    advice = (
        "trials of several workers would fail or hang; others run. Name the network interface that the nodes share in "
        f"{'NCCL' if backend == 'nccl' else 'GLOO'}_SOCKET_IFNAME on every node before `ray start`, and open the ports between them"
        f"{'; NCCL_DEBUG=INFO says more' if backend == 'nccl' else ''}"
    )
    value = f"{where}: {reason} on {first}{f' and {len(faults) - 1} more' if len(faults) > 1 else ''}"
    # A study whose trials have one worker each does not need it.
    return Check(subject=SUBJECT, value=value, state="warning", advice=advice)
