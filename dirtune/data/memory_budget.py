"""Memory budget of one worker for the inputs of its data set, and the return of freed memory.

Budgets are values that the caller passes in. The default is measured once, when a worker starts: 40 % of the free memory, on a GPU of
the whole memory, divided by the workers that share it, because a model, its gradients and its activations need the rest.
"""

import ctypes
import gc
import os
import resource
from pathlib import Path

import torch
from pydantic import Field

from dirtune.frozen import Frozen

FREE_SHARE = 0.4
"""Inputs may occupy this share of the host's memory that is free when a worker starts, and of a GPU's whole memory."""

_MEMORY_INFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


class MemoryBudget(Frozen):
    """Memory of one worker for the inputs of its data set. Ids, labels and bins are always in memory."""

    device_bytes: int = Field(ge=0)
    """Decoded inputs on the worker's device; splits are loaded as long as they fit, the smallest first."""
    host_bytes: int = Field(ge=0)
    """Inputs as stored, in memory of the process; only without an object store (`dirtune train`)."""
    threads: int = Field(default=1, ge=1)
    """Threads that prefetch and decode the inputs that are not on the device."""


def measure_memory_budget(device: torch.device, *, sharers: int = 1, threads: int = 1) -> MemoryBudget:
    """Return the budget of one of `sharers` workers that start together on a GPU, or on this node for the CPU."""
    host = int(FREE_SHARE * get_free_memory(torch.device("cpu")) / sharers)
    on_gpu = device.type == "cuda"
    # The share of a GPU does not depend on what the workers that started before have taken of it.
    on_device = min(get_free_memory(device), int(FREE_SHARE * get_gpu_memory(device) / sharers)) if on_gpu else host
    return MemoryBudget(device_bytes=on_device, host_bytes=host, threads=threads)


def count_sharers(*, cpus: int, gpus: float) -> int:
    """Return the number of workers with these resources that can start together on one GPU, or on this node without."""
    if gpus:
        # In floats 1 // 0.2 is 4.
        return max(1, int(1 / gpus + 1e-9))
    return max(1, (os.cpu_count() or 1) // cpus)


def get_free_memory(device: torch.device) -> int:
    """Return the bytes that a GPU, or this node or container, has available for processes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if _MEMORY_INFO.exists():
        fields = dict(line.split(":", 1) for line in _MEMORY_INFO.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    else:
        # Other systems than Linux do not report their free memory here.
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    # A container sees the memory of its whole node; its own limit is that of its control group.
    limit = _CGROUP / "memory.max"
    if not limit.exists() or limit.read_text().strip() == "max":
        return free
    return min(free, max(0, int(limit.read_text()) - int((_CGROUP / "memory.current").read_text())))


def get_gpu_memory(device: torch.device) -> int:
    """Return the bytes of a GPU's whole memory."""
    return torch.cuda.mem_get_info(device)[1]


def get_peak_memory(device: torch.device) -> int:
    """Return the peak bytes that torch used on a GPU since the last reset, or that this process ever used on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def return_freed_memory() -> None:
    """Return memory that this process freed but kept: of the GPU to its other users, of the host to the kernel.

    Call it after memory has run out: the kept blocks of one thread are unavailable to all others.
    """
    # Cycles of a failed trial may still hold tensors.
    gc.collect()
    # No effect without a GPU.
    torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
