"""What the machines of a cluster mean for a sweep: one observation for each thing it depends on, whatever their number.

Pure: plain values in, observations out. Thresholds stand at the top, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dirtune.cluster.checks import Observation, State, by_value, named
from dirtune.cluster.machine import Machine, Space
from dirtune.tuning.folder.lock import LOST_SECONDS
from dirtune.tuning.plan.capacity import Node

GIB = 2**30
LEAST_SHARED_MEMORY = GIB
"""Ray's object store lies there; what does not fit goes to the disk, which is slow. Docker gives 64 MB unasked."""
LEAST_DISK = 10 * GIB
FULL = 0.95
"""The share of a disk from which on Ray writes no more objects to it (`local_fs_capacity_threshold`)."""
LEAST_OPEN_FILES = 4096
NOTED_SECONDS = 5.0
"""From `LOST_SECONDS` on a driver that lives is taken for dead, so half of it is a problem; this is only odd."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A machine of a cluster: what it gives to Ray, what was found on it, how far its clock is from the driver's."""

    name: str
    """Of its host; where several nodes share one, with the start of the node's id."""
    node: Node
    machine: Machine
    skew: float = 0.0
    """Seconds, at least."""


def judged(members: Sequence[Member]) -> Iterator[Observation]:
    """Every observation about the machines of a cluster, or about this one alone."""
    yield from versions(members)
    for judge in JUDGES:
        yield judge(members)


def versions(members: Sequence[Member]) -> Iterator[Observation]:
    """dirtune, Python, Ray and torch are the same everywhere, or trials differ by the node they ran on."""
    for name in ("dirtune", "Python", "Ray", "torch"):
        found = {each.name: each.machine.versions[name] for each in members}
        value = by_value(found)
        is_one = len(set(found.values())) <= 1
        if is_one and value != "not installed":
            yield Observation(subject=name, value=value)
        else:
            advice = f"install one version of {name} on every node"
            yield Observation(subject=name, value=value, state="problem", advice=advice)


def processors(members: Sequence[Member]) -> Observation:
    """CPUs that Ray gives away."""
    total = sum(each.node.cpus for each in members)
    value = f"{total:g} on {len(members)} {'node' if len(members) == 1 else 'nodes'}"
    if total:
        return Observation(subject="CPUs", value=value)
    # No problem of its own: an autoscaler may start nodes, and a sweep that expects none refuses to begin.
    advice = (
        "add a node with CPUs, or name those that an autoscaler may start (sweep --expect): every trial asks for one"
    )
    return Observation(subject="CPUs", value=value, state="warning", advice=advice)


def accelerators(members: Sequence[Member]) -> Observation:
    """GPUs that Ray gives away, and those that it does not know of."""
    value = f"{sum(each.node.gpus for each in members):g}"
    unknown = [each.name for each in members if each.machine.gpus > each.node.gpus]
    if not unknown:
        return Observation(subject="GPUs", value=value)
    advice = "the driver knows more GPUs than Ray; start Ray with --num-gpus to use them"
    value = f"{value}; more on {named(unknown)}"
    return Observation(subject="GPUs", value=value, state="warning", advice=advice)


def cuda(members: Sequence[Member]) -> Observation:
    """The CUDA that torch is built for, where there are GPUs."""
    value = by_value({each.name: each.machine.cuda or "none" for each in members})
    without = [each.name for each in members if _has_gpus(each) and not each.machine.cuda]
    if not without:
        return Observation(subject="CUDA build", value=value)
    advice = f"install a torch with CUDA on {named(without)}, whose GPUs stay unused"
    return Observation(subject="CUDA build", value=value, state="problem", advice=advice)


def collectives(members: Sequence[Member]) -> Observation:
    """The ways in which the ranks of a distributed trial talk: gloo on CPUs, NCCL on GPUs."""
    value = by_value({e.name: ", ".join(e.machine.collectives) or "none" for e in members})
    lacking = {
        "nccl": [e.name for e in members if _has_gpus(e) and "nccl" not in e.machine.collectives],
        "gloo": [e.name for e in members if "gloo" not in e.machine.collectives],
    }
    advice = "; ".join(
        f"trials of several workers need {name}, which torch lacks on {named(hosts)}: install its official build"
        for name, hosts in lacking.items()
        if hosts
    )
    state: State = "problem" if lacking["nccl"] else "warning" if lacking["gloo"] else "ok"
    return Observation(subject="collectives", value=value, state=state, advice=advice)


def shared_memory(members: Sequence[Member]) -> Observation:
    """/dev/shm, where Ray's object store lies."""
    host, found = _least(members, lambda machine: machine.shared_memory or Space(0, 0))
    value = f"{_size(found)} on {host}"
    if found.free >= LEAST_SHARED_MEMORY:
        return Observation(subject="shared memory", value=value)
    advice = "give a container more (`docker run --shm-size=8g`): Ray would keep the data set on disk"
    return Observation(subject="shared memory", value=value, state="warning", advice=advice)


def disk(members: Sequence[Member]) -> Observation:
    """The disk of Ray's session, which takes what memory does not hold."""
    host, found = _least(members, lambda machine: machine.disk)
    value = f"{_size(found)} on {host}"
    if found.free < (1 - FULL) * found.total:
        advice = f"free some: Ray writes no objects to a disk that is {FULL:.0%} full"
        return Observation(subject="disk", value=value, state="problem", advice=advice)
    if found.free < LEAST_DISK:
        advice = "free some, or start Ray with --temp-dir on a larger disk"
        return Observation(subject="disk", value=value, state="warning", advice=advice)
    return Observation(subject="disk", value=value)


def open_files(members: Sequence[Member]) -> Observation:
    """Files that a process may have open; every worker of a cluster is a connection."""
    found = min(members, key=lambda each: each.machine.open_files)
    value = f"{found.machine.open_files:,} on {found.name}"
    if found.machine.open_files >= LEAST_OPEN_FILES:
        return Observation(subject="open files", value=value)
    advice = "`ulimit -n 65536` before `ray start`"
    return Observation(subject="open files", value=value, state="warning", advice=advice)


def clock(members: Sequence[Member]) -> Observation:
    """How far the clocks are apart; by them a driver that lives is told from one that is dead."""
    worst = max(members, key=lambda each: each.skew)
    if worst.skew < NOTED_SECONDS:
        return Observation(subject="clock", value="no difference between nodes")
    value = f"{worst.name} is at least {worst.skew:.0f} s off"
    state: State = "problem" if worst.skew > LOST_SECONDS / 2 else "warning"
    advice = "set the clocks by NTP (`timedatectl set-ntp true`)"
    return Observation(subject="clock", value=value, state=state, advice=advice)


JUDGES: tuple[Callable[[Sequence[Member]], Observation], ...] = (
    processors,
    accelerators,
    cuda,
    collectives,
    shared_memory,
    disk,
    open_files,
    clock,
)


def _has_gpus(member: Member) -> bool:
    return bool(member.node.gpus or member.machine.gpus)


def _least(members: Sequence[Member], space_of: Callable[[Machine], Space]) -> tuple[str, Space]:
    found = [(each.name, space_of(each.machine)) for each in members]
    return min(found, key=lambda pair: pair[1].free)


def _size(found: Space) -> str:
    return f"{found.free / GIB:.1f} of {found.total / GIB:.1f} GiB free"
