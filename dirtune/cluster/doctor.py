"""`dirtune doctor`: checks that this machine, or every node of a cluster, can run a sweep.

One small task pinned to each node measures it and probes the roots. It requests no CPU, so that it also runs during a
sweep. `dirtune.cluster.checks` rates the measurements, without Ray.
"""

import contextlib
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dirtune.cluster import roots
from dirtune.cluster.checks import Check, NodeReport, check_nodes, list_names
from dirtune.cluster.collectives import check_group_network
from dirtune.cluster.machine import Machine, measure_machine
from dirtune.data.connect import connect_to_cluster, get_auth_mode
from dirtune.data.session import find_socket_fault
from dirtune.io.storage import Storage
from dirtune.tuning.plan.capacity import Node

NODE_TIMEOUT = 120.0
"""Seconds for all nodes together: the first task of a node unpacks the job's files and imports torch."""
# Addresses that no other machine reaches
LOOPBACK = ("127.", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ClusterReport:
    """Measurements of all nodes of a cluster, or of this machine alone."""

    nodes: tuple[NodeReport, ...]
    probes: Mapping[str, roots.ProbeResult]
    """By node id."""
    names: Mapping[str, str]
    """Names of all nodes, by id."""
    failures: Mapping[str, str]
    """Reasons why nodes, by name, were not measured."""
    scheduled: Mapping[str, Node] = field(default_factory=dict)
    """CPUs and GPUs of the measured nodes, by id."""


def doctor(
    address: str | None = None,
    *,
    data: str | Path | None = None,
    results: str | Path | None = None,
    dirtune: str | None = None,
) -> tuple[Check, ...]:
    """Check everything that a sweep depends on: versions, address, nodes, GPUs, memory, disk, limits, clocks, roots.

    Args:
        address: `host:port` of a cluster, or `auto`. None means RAY_ADDRESS or, without that, this machine alone.
        data: root of the data sets, which every node must read; not checked if None.
        results: root of the results, which every node must read and write; not checked if None.
        dirtune: the version that submitted a study; another version on a node is a problem.

    Raises:
        InputError: there is no cluster at the address, or it refuses this process.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    probe = roots.RootProbe.create(*(None if each is None else Storage.open(each) for each in (data, results)))
    with contextlib.ExitStack() as stack:
        if address is not None:
            stack.enter_context(connect_to_cluster(address))
        # The driver's file exists while the nodes probe the root, and until their files are checked.
        driver_fault = stack.enter_context(roots.write_driver_file(probe))
        report = measure_cluster(probe) if ray.is_initialized() else measure_this_machine(probe)
        if ray.is_initialized():
            checks = [check_authentication(str(ray.get_runtime_context().gcs_address), get_auth_mode())]
        else:
            checks = [Check(subject="cluster", value="none; a sweep starts one on this machine")]
            if fault := find_socket_fault():
                checks.append(Check(subject="sockets", value=fault, state="problem", advice="set RAY_TMPDIR=/tmp"))
        if report.failures:
            checks.append(check_failures(report.failures))
        if report.nodes:
            checks += check_nodes(report.nodes)
            if ray.is_initialized() and (check := check_group_network(report.scheduled, report.names)) is not None:
                checks.append(check)
        if dirtune is not None:
            checks += check_dirtune_version(dirtune, report.nodes)
        if probe.data is not None:
            checks.append(roots.check_data_root(probe, report.probes, names=report.names))
        if probe.results is not None:
            checks.append(roots.check_results_root(probe, driver_fault, report.probes, names=report.names))
        return tuple(checks)


def check_failures(failures: Mapping[str, str]) -> Check:
    """Return the problem that nodes were not measured, with the reason of each."""
    advice = "read these nodes' logs in /tmp/ray/session_latest/logs; dirtune must be installed there"
    value = "; ".join(f"{node}: {reason}" for node, reason in failures.items())
    return Check(subject="no answer", value=value, state="problem", advice=advice)


def check_dirtune_version(expected: str, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check that the cluster has the version of dirtune that validated the study."""
    versions = {each.name: each.machine.versions["dirtune"] for each in reports}
    # The part after "+" identifies the checkout, which an installed package does not have.
    wrong = [name for name, version in versions.items() if version.split("+")[0] != expected.split("+")[0]]
    if wrong:
        advice = f"install dirtune {expected} there, or submit without --installed"
        value = f"{expected} here, another version on {list_names(wrong)}"
        yield Check(subject="submitted dirtune", value=value, state="problem", advice=advice)


def check_authentication(address: str, mode: str) -> Check:
    """Check that a cluster requires a token: without one, any process that reaches its ports can run code on it."""
    value = f"{address}, authentication {mode}"
    if mode == "token" or address.startswith(LOOPBACK):
        return Check(subject="cluster", value=value)
    advice = "start every node, and this command, with RAY_AUTH_MODE=token: without it anyone who reaches the ports runs code"
    return Check(subject="cluster", value=value, state="warning", advice=advice)


def measure_this_machine(probe: roots.RootProbe) -> ClusterReport:
    """Measure this machine, as a cluster of one node."""
    name, node = socket.gethostname(), Node(os.cpu_count() or 1, torch.cuda.device_count())
    machine = measure_machine(tempfile.gettempdir())
    return ClusterReport(
        nodes=(NodeReport(name=name, node=node, machine=machine),),
        probes={"this": roots.run_probe(probe, "this")},
        names={"this": name},
        failures={},
    )


def measure_cluster(probe: roots.RootProbe) -> ClusterReport:
    """Measure every node of the cluster that this process is connected to."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    names = name_nodes(alive)
    tasks = {}
    for node in alive:
        id_ = node["NodeID"]
        # Ray keeps its socket in the session folder, at sockets/plasma_store.
        session = str(Path(node["ObjectStoreSocketName"]).parents[1])
        # All tasks start before the first result is awaited.
        tasks[id_] = _pin(_measure_node, id_).remote(probe, id_, session)
    probes, reports, failures, scheduled = {}, [], {}, {}
    deadline = time.monotonic() + NODE_TIMEOUT
    for node in alive:
        id_, name, resources = node["NodeID"], names[node["NodeID"]], node["Resources"]
        try:
            # All nodes share one deadline: a cluster with many silent nodes must not add up their timeouts.
            machine, probes[id_] = ray.get(tasks[id_], timeout=max(0.0, deadline - time.monotonic()))
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            failures[name] = format_node_error(error)
            continue
        scheduled[id_] = Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
        skew = _measure_clock_skew(id_)
        reports.append(NodeReport(name=name, node=scheduled[id_], machine=machine, clock_skew=skew))
    return ClusterReport(nodes=tuple(reports), probes=probes, names=names, failures=failures, scheduled=scheduled)


def _pin(function: Callable[..., Any], node: str) -> Any:
    """Return a function as a task of one node, which runs even if all CPUs of the node are busy."""
    pinned = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=pinned)


def _measure_node(probe: roots.RootProbe, node: str, session: str) -> tuple[Machine, roots.ProbeResult]:
    return measure_machine(session), roots.run_probe(probe, node)


def _measure_clock_skew(node: str) -> float:
    """Return the seconds by which a node's clock is outside of the interval that its call took here."""
    before = time.time()
    try:
        there = ray.get(_pin(_read_clock, node).remote(), timeout=NODE_TIMEOUT)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
        return 0.0
    return float(max(before - there, there - time.time(), 0.0))


def _read_clock() -> float:
    # Ray accepts no built-in function such as time.time as a task.
    return time.time()


def name_nodes(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return host names by node id, with the start of the id if several nodes share a host."""
    hosts = Counter(node["NodeManagerHostname"] for node in nodes)
    return {
        node["NodeID"]: node["NodeManagerHostname"]
        + (f" ({node['NodeID'][:6]})" if hosts[node["NodeManagerHostname"]] > 1 else "")
        for node in nodes
    }


def format_node_error(error: Exception) -> str:
    """Return in one line why a node was not measured."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return f"nothing within {NODE_TIMEOUT:.0f} s"
    # The last line of a Ray error is the exception of the task, after its traceback.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
