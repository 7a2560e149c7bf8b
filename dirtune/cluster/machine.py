"""What one machine has: versions, CUDA, ways for ranks to talk, memory, disk, limits. Measured on it, judged elsewhere."""

from __future__ import annotations

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
DRIVER = Path("/proc/driver/nvidia/gpus")


class Space(NamedTuple):
    """Bytes of a file system."""

    free: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Plain values that were read on one machine."""

    versions: dict[str, str]
    """Of dirtune, Python, Ray, torch."""
    cuda: str | None
    """That torch is built for; none: torch computes on CPUs only."""
    gpus: int
    """That the NVIDIA driver knows, whether Ray gives them away or not."""
    collectives: tuple[str, ...]
    """Of gloo and nccl those that torch is built with."""
    shared_memory: Space | None
    """None: there is no /dev/shm."""
    disk: Space
    """Where Ray keeps its session."""
    open_files: int
    """Files that a process may have open."""


def measured(session: str | Path) -> Machine:
    """This machine; `session` is a folder on the disk that Ray writes to."""
    return Machine(
        versions=_versions(),
        cuda=torch.version.cuda,
        gpus=gpus_of_driver(),
        collectives=_collectives(),
        shared_memory=space(SHARED_MEMORY),
        disk=space(Path(session)) or Space(0, 0),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def gpus_of_driver(folder: Path = DRIVER) -> int:
    """GPUs by the driver's own account: Ray hides them from a task that has not asked for any, and CUDA with them."""
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def space(folder: Path) -> Space | None:
    """Free and total bytes of the file system of a folder; none if it does not exist."""
    if not folder.exists():
        return None
    found = shutil.disk_usage(folder)
    return Space(found.free, found.total)


def _versions() -> dict[str, str]:
    packages = {"dirtune": "dirtune", "Ray": "ray", "torch": "torch"}
    return {"Python": platform.python_version()} | {name: _version(package) for name, package in packages.items()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _collectives() -> tuple[str, ...]:
    if not torch.distributed.is_available():
        return ()
    built = {"gloo": torch.distributed.is_gloo_available(), "nccl": torch.distributed.is_nccl_available()}
    return tuple(name for name, is_there in built.items() if is_there)
