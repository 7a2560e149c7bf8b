"""Checks that the nodes of a cluster, or this machine alone, can run a sweep: one result per requirement.

Pure: measured values in, results out, without Ray. Every threshold is a constant with its reason.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dirtune.cluster.gpu_health import GpuHealth
from dirtune.cluster.machine import Machine, Space, get_lowest_driver
from dirtune.training.device import AMPERE
from dirtune.tuning.folder.lock import LOST_SECONDS
from dirtune.tuning.plan.capacity import Node

GIB = 2**30
MIN_SHARED_MEMORY = GIB
"""Ray keeps its object store in shared memory and moves to the slower disk what does not fit. Docker's default is 64 MB."""
MIN_DISK = 10 * GIB
FULL_DISK = 0.95
"""Used share of a disk above which Ray writes no more objects to it (`local_fs_capacity_threshold`)."""
MIN_OPEN_FILES = 4096
"""Every worker of a cluster is a connection."""
MAX_CLOCK_SKEW = 5.0
"""Seconds. A warning above it; a problem above half of `LOST_SECONDS`, after which a heartbeat counts as lost."""

State = Literal["ok", "warning", "problem"]

# Faults of a GPU by the texts of torch and CUDA, and what cures them
_GPU_ADVICE = (
    (r"no kernel image|not compatible with", "install a torch that is built for the capability of its GPUs"),
    (r"ECC|hardware error", "reset the GPU (`nvidia-smi --gpu-reset -i N`) or restart the node"),
    (r"busy or unavailable", "end the process that occupies it, or allow several (`nvidia-smi -c DEFAULT`)"),
    (r"out of memory", "end the processes that fill its memory, which `nvidia-smi` lists"),
    (r"differs from the CPU", "it computes wrong numbers: have it replaced"),
    (
        r"no result within|launch timed out",
        "the GPU hangs: reset it (`nvidia-smi --gpu-reset -i N`) or restart the node",
    ),
    (
        r"driver|no GPU|initialization",
        "install or reload the NVIDIA driver; start a container with its GPUs (`--gpus all`)",
    ),
)

BEYOND_REPAIR = "memory that cannot be repaired"
WAITS_FOR_RESET = "a repair waits for a reset"
UNCORRECTABLE = "memory errors that could not be corrected since the driver was loaded"
PROHIBITED = "compute mode Prohibited"
EXCLUSIVE = "compute mode Exclusive_Process"
_HEALTH_ADVICE = {
    BEYOND_REPAIR: "have it replaced, and leave it out until then (ray start --num-gpus, CUDA_VISIBLE_DEVICES)",
    WAITS_FOR_RESET: "end what runs on it, then `nvidia-smi --gpu-reset -i N` or restart the node: the error would come again",
    UNCORRECTABLE: "trials may have failed there; if the number grows, reset the GPU or leave it out",
    PROHIBITED: "`nvidia-smi -i N -c DEFAULT`: no process may use it",
    EXCLUSIVE: "`nvidia-smi -i N -c DEFAULT` for trials that share a GPU (gpus below 1): only one process may use it",
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of one check."""

    subject: str
    value: str
    state: State = "ok"
    advice: str = ""
    """Empty if nothing is to be done."""


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """Measurements of one node."""

    name: str
    """Name of its host, with the start of the node's id if several nodes share a host."""
    node: Node
    """CPUs and GPUs that Ray schedules."""
    machine: Machine
    clock_skew: float = 0.0
    """Lower bound of the difference between its clock and the driver's, in seconds."""


def has_problem(checks: Iterable[Check]) -> bool:
    """Return True if a sweep cannot run before something is fixed."""
    return any(each.state == "problem" for each in checks)


def check_nodes(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Run every check of the nodes of a cluster, or of this machine alone."""
    yield from check_versions(reports)
    yield from check_gpu_function(reports)
    yield from check_gpu_health(reports)
    yield from check_compiler(reports)
    yield from check_half_precision(reports)
    for check in CHECKS:
        yield check(reports)


def check_versions(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check that dirtune, Python, Ray and torch are the same on every node, or trials would differ by their node."""
    for name in ("dirtune", "Python", "Ray", "torch"):
        versions = {each.name: each.machine.versions[name] for each in reports}
        value = group_by_value(versions)
        # A package that no node has is the same everywhere, and still missing.
        is_same = len(set(versions.values())) <= 1
        if is_same and value != "not installed":
            yield Check(subject=name, value=value)
        else:
            advice = f"install one version of {name} on every node"
            yield Check(subject=name, value=value, state="problem", advice=advice)


def check_cpus(reports: Sequence[NodeReport]) -> Check:
    """Check that Ray schedules CPUs."""
    total = sum(each.node.cpus for each in reports)
    value = f"{total:g} on {len(reports)} {'node' if len(reports) == 1 else 'nodes'}"
    if total:
        return Check(subject="CPUs", value=value)
    # Not a problem: an autoscaler may start nodes, and a sweep that expects none is an error at its start.
    advice = (
        "add a node with CPUs, or give the nodes that an autoscaler may start (sweep --expect): every trial needs one"
    )
    return Check(subject="CPUs", value=value, state="warning", advice=advice)


def check_gpus(reports: Sequence[NodeReport]) -> Check:
    """Check that Ray schedules every GPU that the driver has."""
    value = f"{sum(each.node.gpus for each in reports):g}"
    # Ray schedules as many GPUs as `ray start` was given, whatever the machine has.
    unused = [each.name for each in reports if each.machine.gpus > each.node.gpus]
    if not unused:
        return Check(subject="GPUs", value=value)
    advice = "the driver has more GPUs than Ray; start Ray with --num-gpus to use them"
    return Check(subject="GPUs", value=f"{value}; more on {list_names(unused)}", state="warning", advice=advice)


def check_gpu_build(reports: Sequence[NodeReport]) -> Check:
    """Check that torch is built with CUDA, or with ROCm for GPUs of AMD, on nodes with GPUs."""
    builds = {each.name: _name_gpu_build(each.machine) for each in reports}
    value = group_by_value(builds)
    without = [each.name for each in reports if _has_gpus(each) and builds[each.name] == "none"]
    if not without:
        return Check(subject="GPU build", value=value)
    advice = f"install a torch with CUDA, or ROCm for AMD, on {list_names(without)}, whose GPUs stay unused"
    return Check(subject="GPU build", value=value, state="problem", advice=advice)


def _name_gpu_build(machine: Machine) -> str:
    if machine.rocm is not None:
        return f"ROCm {machine.rocm}"
    return "none" if machine.cuda is None else f"CUDA {machine.cuda}"


def check_gpu_function(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check that the driver is recent enough for torch's CUDA, and that every GPU computes; nothing without GPUs."""
    reports = [each for each in reports if _has_gpus(each)]
    if not reports:
        return
    if of_cuda := [each for each in reports if each.machine.rocm is None]:
        yield _check_nvidia_driver(of_cuda)
    faults = {each.name: each.machine.gpu_fault for each in reports if each.machine.gpu_fault}
    if faults:
        repairs = dict.fromkeys(get_gpu_advice(each.machine) for each in reports if each.name in faults)
        advice = f"trials would fail there: {'; '.join(repairs)}; or leave its GPUs out (ray start --num-gpus, CUDA_VISIBLE_DEVICES)"
        yield Check(subject="GPU test", value=group_by_value(faults), state="problem", advice=advice)
    else:
        tested = {each.name: each.machine.gpu_test or "not run" for each in reports}
        yield Check(subject="GPU test", value=group_by_value(tested))


def _check_nvidia_driver(reports: Sequence[NodeReport]) -> Check:
    lowest = {each.name: get_lowest_driver(each.machine.cuda or "") for each in reports}
    value = group_by_value({each.name: each.machine.driver or "none" for each in reports})
    old = [each.name for each in reports if int((each.machine.driver or "0").split(".")[0]) < (lowest[each.name] or 0)]
    if not old:
        return Check(subject="NVIDIA driver", value=value)
    advice = f"install NVIDIA driver {lowest[old[0]]} or later on {list_names(old)}: CUDA {reports[0].machine.cuda} of torch needs it"
    return Check(subject="NVIDIA driver", value=value, state="problem", advice=advice)


def get_gpu_advice(machine: Machine) -> str:
    """Return what cures the fault of a machine's GPU."""
    if machine.rocm is not None:
        return "repair it (`rocm-smi` shows its state)"
    fault = machine.gpu_fault or ""
    return next((advice for pattern, advice in _GPU_ADVICE if re.search(pattern, fault, re.IGNORECASE)), "repair it")


def check_gpu_health(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check that the NVIDIA driver counts no memory errors and lets trials use every GPU; nothing where it is not known."""
    gpus = [(f"GPU {gpu.number} of {each.name}", gpu) for each in reports for gpu in each.machine.gpu_health]
    found: dict[tuple[State, str], list[str]] = {}
    for name, gpu in gpus:
        for state, fault in find_health_faults(gpu):
            found.setdefault((state, fault), []).append(name)
    if gpus and not found:
        yield Check(subject="GPU health", value=f"{len(gpus)} without a fault")
    for (state, fault), names in found.items():
        value = f"{fault}: {list_names(names)}"
        yield Check(subject="GPU health", value=value, state=state, advice=_HEALTH_ADVICE[fault])


def find_health_faults(gpu: GpuHealth) -> Iterator[tuple[State, str]]:
    """Yield state and name of each fault of a GPU."""
    if gpu.is_beyond_repair:
        yield "problem", BEYOND_REPAIR
    elif gpu.waits_for_reset or gpu.action:
        yield "warning", WAITS_FOR_RESET
    elif gpu.uncorrectable:
        yield "warning", UNCORRECTABLE
    if gpu.compute_mode == "Prohibited":
        yield "problem", PROHIBITED
    elif "Exclusive" in gpu.compute_mode:
        yield "warning", EXCLUSIVE


def check_compiler(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check that Triton can compile on nodes with GPUs; nothing without GPUs."""
    reports = [each for each in reports if _has_gpus(each)]
    without = [each.name for each in reports if each.machine.compiler is None]
    if without:
        advice = f"install gcc and Python's headers (such as python3-dev) on {list_names(without)}: trials with recipe.compile would fail"
        yield Check(subject="C compiler", value=f"none on {list_names(without)}", state="warning", advice=advice)
    elif reports:
        yield Check(
            subject="C compiler", value=group_by_value({each.name: str(each.machine.compiler) for each in reports})
        )


def check_half_precision(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Warn of GPUs that do not compute in bfloat16; nothing if all do."""
    without = [each.name for each in reports if any(major < AMPERE for major in _list_capabilities(each))]
    if without:
        value = f"emulated on {list_names(without)}, whose GPUs have a capability below {AMPERE}.0"
        advice = "leave recipe.precision at float32 for these GPUs, or set fp16: bf16 would be slow there"
        yield Check(subject="bf16", value=value, state="warning", advice=advice)


def check_collectives(reports: Sequence[NodeReport]) -> Check:
    """Check the backends for trials of several workers: gloo on CPUs, NCCL on GPUs."""
    value = group_by_value({each.name: ", ".join(each.machine.collectives) or "none" for each in reports})
    without = {
        "nccl": [each.name for each in reports if _has_gpus(each) and "nccl" not in each.machine.collectives],
        "gloo": [each.name for each in reports if "gloo" not in each.machine.collectives],
    }
    advice = "; ".join(
        f"trials of several workers need {backend}, which torch lacks on {list_names(nodes)}: install its official build"
        for backend, nodes in without.items()
        if nodes
    )
    # Without gloo only trials of several workers on CPUs fail, which a study need not have.
    state: State = "problem" if without["nccl"] else "warning" if without["gloo"] else "ok"
    return Check(subject="collectives", value=value, state=state, advice=advice)


def check_shared_memory(reports: Sequence[NodeReport]) -> Check:
    """Check that /dev/shm has room for Ray's object store."""
    node, space = _find_least_free(reports, lambda machine: machine.shared_memory or Space(0, 0))
    value = f"{_format_space(space)} on {node}"
    if space.free >= MIN_SHARED_MEMORY:
        return Check(subject="shared memory", value=value)
    advice = "give a container more (`docker run --shm-size=8g`): Ray would keep the data set on disk"
    return Check(subject="shared memory", value=value, state="warning", advice=advice)


def check_disk(reports: Sequence[NodeReport]) -> Check:
    """Check the disk of Ray's session folder, to which objects move that do not fit into memory."""
    node, space = _find_least_free(reports, lambda machine: machine.disk)
    value = f"{_format_space(space)} on {node}"
    if space.free < (1 - FULL_DISK) * space.total:
        advice = f"free some: Ray writes no objects to a disk that is {FULL_DISK:.0%} full"
        return Check(subject="disk", value=value, state="problem", advice=advice)
    if space.free < MIN_DISK:
        advice = "free some, or start Ray with --temp-dir on a larger disk"
        return Check(subject="disk", value=value, state="warning", advice=advice)
    return Check(subject="disk", value=value)


def check_open_files(reports: Sequence[NodeReport]) -> Check:
    """Check the maximum number of open files of a process."""
    least = min(reports, key=lambda each: each.machine.open_files)
    value = f"{least.machine.open_files:,} on {least.name}"
    if least.machine.open_files >= MIN_OPEN_FILES:
        return Check(subject="open files", value=value)
    advice = "`ulimit -n 65536` before `ray start`"
    return Check(subject="open files", value=value, state="warning", advice=advice)


def check_clocks(reports: Sequence[NodeReport]) -> Check:
    """Check that the clocks agree: a driver's lock expires by the clocks of other hosts."""
    worst = max(reports, key=lambda each: each.clock_skew)
    if worst.clock_skew < MAX_CLOCK_SKEW:
        return Check(subject="clock", value="no difference between nodes")
    value = f"{worst.name} is at least {worst.clock_skew:.0f} s off"
    state: State = "problem" if worst.clock_skew > LOST_SECONDS / 2 else "warning"
    advice = "set the clocks by NTP (`timedatectl set-ntp true`)"
    return Check(subject="clock", value=value, state=state, advice=advice)


CHECKS: tuple[Callable[[Sequence[NodeReport]], Check], ...] = (
    check_cpus,
    check_gpus,
    check_gpu_build,
    check_collectives,
    check_shared_memory,
    check_disk,
    check_open_files,
    check_clocks,
)


def group_by_value(values: Mapping[str, str]) -> str:
    """Return the value that all nodes share, or every value with its nodes."""
    nodes: dict[str, list[str]] = {}
    for node, value in values.items():
        nodes.setdefault(value, []).append(node)
    if len(nodes) <= 1:
        return next(iter(nodes), "")
    return "; ".join(f"{value} on {', '.join(names)}" for value, names in nodes.items())


def list_names(nodes: Sequence[str]) -> str:
    """Return the names of the first four nodes and the number of the others."""
    names, rest = ", ".join(nodes[:4]), len(nodes) - 4
    return f"{names} and {rest} more" if rest > 0 else names


def _list_capabilities(report: NodeReport) -> list[int]:
    """Return the major capabilities of a node's GPUs, as its test prints them; nothing for ROCm, whose numbers are others."""
    if report.machine.rocm is not None:
        return []
    return [int(major) for major in re.findall(r"capability (\d+)\.", report.machine.gpu_test or "")]


def _has_gpus(report: NodeReport) -> bool:
    return bool(report.node.gpus or report.machine.gpus)


def _find_least_free(reports: Sequence[NodeReport], get_space: Callable[[Machine], Space]) -> tuple[str, Space]:
    spaces = [(each.name, get_space(each.machine)) for each in reports]
    return min(spaces, key=lambda pair: pair[1].free)


def _format_space(space: Space) -> str:
    return f"{space.free / GIB:.1f} of {space.total / GIB:.1f} GiB free"
