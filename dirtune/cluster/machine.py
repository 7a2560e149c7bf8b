"""Measurement of one machine: versions, CUDA, collectives, memory, disk, limits. `dirtune.cluster.checks` rates it."""

import platform
import resource
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed

SHARED_MEMORY = Path("/dev/shm")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")


class Space(NamedTuple):
    """Bytes of a file system."""

    free: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Properties of one machine, as plain values that travel between Ray processes."""

    versions: dict[str, str]
    """Versions of dirtune, Python, Ray and torch, or "not installed"."""
    cuda: str | None
    """CUDA version that torch is built with, or None if torch computes on CPUs only."""
    gpus: int
    """GPUs that the NVIDIA driver has, whether Ray schedules them or not."""
    collectives: tuple[str, ...]
    """Backends of torch.distributed, of gloo and nccl."""
    shared_memory: Space | None
    """None if there is no /dev/shm."""
    disk: Space
    """File system of Ray's session folder."""
    open_files: int
    """Maximum number of open files of a process."""


def measure_machine(session: str | Path) -> Machine:
    """Measure this machine.

    Args:
        session: a folder on the disk that Ray writes to.
    """
    versions = {"Python": platform.python_version()}
    for name, package in {"dirtune": "dirtune", "Ray": "ray", "torch": "torch"}.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            versions[name] = "not installed"
    backends = {}
    if torch.distributed.is_available():
        backends = {"gloo": torch.distributed.is_gloo_available(), "nccl": torch.distributed.is_nccl_available()}
    return Machine(
        versions=versions,
        cuda=torch.version.cuda,
        gpus=count_driver_gpus(),
        collectives=tuple(name for name, is_available in backends.items() if is_available),
        shared_memory=measure_space(SHARED_MEMORY),
        # Ray creates the session folder before it runs tasks.
        disk=measure_space(Path(session)) or Space(0, 0),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def count_driver_gpus(folder: Path = NVIDIA_DRIVER) -> int:
    """Return the number of GPUs of the NVIDIA driver."""
    # Not by CUDA: Ray hides the GPUs from a task that has not requested any, by CUDA_VISIBLE_DEVICES.
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def measure_space(folder: Path) -> Space | None:
    """Return free and total bytes of the file system of a folder, or None if the folder does not exist."""
    if not folder.exists():
        return None
    usage = shutil.disk_usage(folder)
    return Space(usage.free, usage.total)
