"""`dirtune doctor`: is this machine, or every node of a cluster, fit for a sweep?

One small task pinned to each node measures it and tries the roots; it asks for no CPU, so that it runs beside a sweep.
What was found is judged in `dirtune.cluster.assessment`, without Ray.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dirtune.cluster.assessment import Member, judged
from dirtune.cluster.checks import Observation, named
from dirtune.cluster.machine import Machine, measured
from dirtune.cluster.roots import Answer, Probe, answer, data_root, probing, results_root
from dirtune.data.connect import authentication, joined
from dirtune.io.storage import Storage
from dirtune.tuning.plan.capacity import Node

ANSWER_SECONDS = 120.0
"""Longest wait for all nodes: a node's first task unpacks the job's files and imports torch."""
LOOPBACK = ("127.", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the nodes of a cluster have answered."""

    members: tuple[Member, ...]
    answers: Mapping[str, Answer]
    """By node id."""
    names: Mapping[str, str]
    """Of all nodes, by id."""
    silent: Mapping[str, str]
    """Why a node, by its name, has not answered."""


def doctor(
    address: str | None = None,
    *,
    data: str | Path | None = None,
    results: str | Path | None = None,
    dirtune: str | None = None,
) -> tuple[Observation, ...]:
    """Everything that a sweep depends on: versions, address, nodes, GPUs, memory, disk, limits, clocks, roots.

    Args:
        address: `host:port` of a cluster, or `auto`; none: of `RAY_ADDRESS`, or no cluster, but this machine alone.
        data: root of the data sets, to be seen by every node; none: not looked at.
        results: root of the results, to be written and read by every node; none: not looked at.
        dirtune: the version that a study was sent from; another one is a problem.

    Raises:
        InputError: there is no cluster at the address, or it refuses this process.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    roots = Probe.of(None if data is None else Storage.at(data), None if results is None else Storage.at(results))
    with contextlib.ExitStack() as stack:
        if address is not None:
            stack.enter_context(joined(address))
        own_fault = stack.enter_context(probing(roots))
        found = _of_cluster(roots) if ray.is_initialized() else _of_this_machine(roots)
        return tuple(_observations(found, roots, own_fault, dirtune))


def _observations(found: Found, roots: Probe, own_fault: str | None, dirtune: str | None) -> Iterator[Observation]:
    yield _address()
    if found.silent:
        yield unanswered(found.silent)
    if found.members:
        yield from judged(found.members)
    if dirtune is not None:
        yield from sent_from(dirtune, found.members)
    if roots.data is not None:
        yield data_root(roots, found.answers, names=found.names)
    if roots.results is not None:
        yield results_root(roots, own_fault, found.answers, names=found.names)


def unanswered(silent: Mapping[str, str]) -> Observation:
    """The nodes that could not be examined."""
    advice = "look at these nodes' logs below /tmp/ray/session_latest/logs; dirtune must be installed there"
    value = "; ".join(f"{node}: {why}" for node, why in silent.items())
    return Observation(subject="no answer", value=value, state="problem", advice=advice)


def sent_from(wanted: str, members: Sequence[Member]) -> Iterator[Observation]:
    """That the cluster's own dirtune is the one that a study was checked with; what follows a + tells the checkout only."""
    other = {each.name: each.machine.versions["dirtune"] for each in members}
    wrong = [name for name, found in other.items() if found.split("+")[0] != wanted.split("+")[0]]
    if wrong:
        advice = f"install dirtune {wanted} there, or submit without --installed"
        value = f"{wanted} here, another one on {named(wrong)}"
        yield Observation(subject="dirtune sent", value=value, state="problem", advice=advice)


def access(address: str, mode: str) -> Observation:
    """Who may use the cluster: whoever reaches the ports of one without a token runs code on it."""
    value = f"{address}, authentication {mode}"
    if mode == "token" or address.startswith(LOOPBACK):
        return Observation(subject="cluster", value=value)
    advice = (
        "start every node, and this command, with RAY_AUTH_MODE=token: without it whoever reaches the ports runs code"
    )
    return Observation(subject="cluster", value=value, state="warning", advice=advice)


def _address() -> Observation:
    if not ray.is_initialized():
        return Observation(subject="cluster", value="none; a sweep starts one on this machine")
    return access(str(ray.get_runtime_context().gcs_address), authentication())


def _of_this_machine(roots: Probe) -> Found:
    name, node = socket.gethostname(), Node(os.cpu_count() or 1, torch.cuda.device_count())
    machine = measured(tempfile.gettempdir())
    return Found(
        members=(Member(name=name, node=node, machine=machine),),
        answers={"this": answer(roots, "this")},
        names={"this": name},
        silent={},
    )


def _of_cluster(roots: Probe) -> Found:
    alive = [node for node in ray.nodes() if node["Alive"]]
    names = names_of(alive)
    asked = {
        node["NodeID"]: _on(node["NodeID"], _examined).remote(roots, node["NodeID"], _session(node)) for node in alive
    }
    answers, members, silent = {}, [], {}
    until = time.monotonic() + ANSWER_SECONDS
    for node in alive:
        id_, name, had = node["NodeID"], names[node["NodeID"]], node["Resources"]
        try:
            found, answers[id_] = ray.get(asked[id_], timeout=max(0.0, until - time.monotonic()))
        except (RayError, GetTimeoutError) as error:
            silent[name] = reason(error)
            continue
        gives = Node(had.get("CPU", 0.0), had.get("GPU", 0.0))
        members.append(Member(name=name, node=gives, machine=found, skew=_skew(id_)))
    return Found(members=tuple(members), answers=answers, names=names, silent=silent)


def _on(node: str, function: Callable[..., Any]) -> Any:
    """The function as a task of one node, beside whatever runs there."""
    pinned = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=pinned)


def _examined(roots: Probe, node: str, session: str) -> tuple[Machine, Answer]:
    return measured(session), answer(roots, node)


def _skew(node: str) -> float:
    """Seconds by which a node's clock lies outside of the time that asking for it has taken."""
    before = time.time()
    try:
        there = ray.get(_on(node, _clock).remote(), timeout=ANSWER_SECONDS)
    except (RayError, GetTimeoutError):
        return 0.0
    return float(max(before - there, there - time.time(), 0.0))


def _clock() -> float:
    # As a function of Python: Ray takes no other for a task
    return time.time()


def _session(node: Mapping[str, Any]) -> str:
    """The folder of Ray's session on a node, from where it keeps its socket."""
    return str(Path(node["ObjectStoreSocketName"]).parents[1])


def names_of(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Nodes by id: the name of the host, and where several share one the start of the id as well."""
    hosts = Counter(node["NodeManagerHostname"] for node in nodes)
    return {
        node["NodeID"]: node["NodeManagerHostname"]
        + (f" ({node['NodeID'][:6]})" if hosts[node["NodeManagerHostname"]] > 1 else "")
        for node in nodes
    }


def reason(error: Exception) -> str:
    """Why a node has not answered, in a line."""
    if isinstance(error, GetTimeoutError):
        return f"nothing within {ANSWER_SECONDS:.0f} s"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
