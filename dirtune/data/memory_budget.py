"""How much memory the inputs of a data set may take in one worker, and the memory that a process has freed.

Budgets are values that the caller passes in. What is not said is measured once, when a worker starts: 40 % of what is free
at that moment, divided by the workers that share it, because a model, its gradients and its activations need the rest.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from pathlib import Path

import torch
from pydantic import Field

from dirtune.frozen import Frozen

FREE_SHARE = 0.4
"""Inputs may take this share of the memory that is free when a worker starts."""

_MEMORY = Path("/proc/meminfo")
# A container's own limit
_GROUP = Path("/sys/fs/cgroup")
# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


class Residency(Frozen):
    """What one worker may hold of its data set's inputs. Ids, labels and bins are always held."""

    device_bytes: int = Field(ge=0)
    """Decoded inputs on the worker's device; splits are taken in as long as they fit, the smallest first."""
    host_bytes: int = Field(ge=0)
    """Inputs as they are stored, in memory of the process; only where no object store holds them (`dirtune train`)."""
    threads: int = Field(default=1, ge=1)
    """Threads that read and decode ahead of the training what is not on the device."""


def measured(device: torch.device, *, sharers: int = 1, threads: int = 1) -> Residency:
    """The budget of one of `sharers` workers that start on this device (a GPU) or on this node (the CPU) together."""
    host = int(FREE_SHARE * free_memory(torch.device("cpu")) / sharers)
    on_gpu = device.type == "cuda"
    on_device = int(FREE_SHARE * free_memory(device) / sharers) if on_gpu else host
    return Residency(device_bytes=on_device, host_bytes=host, threads=threads)


def sharers(*, cpus: int, gpus: float) -> int:
    """How many workers that need this much can start together on one GPU, or on this node if they need none."""
    if gpus:
        # 1 // 0.2 is 4
        return max(1, int(1 / gpus + 1e-9))
    return max(1, (os.cpu_count() or 1) // cpus)


def free_memory(device: torch.device) -> int:
    """Bytes that a GPU, or this node or container, could still give to processes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    in_group = _free_of_group()
    return _free_of_node() if in_group is None else min(_free_of_node(), in_group)


def peak_memory(device: torch.device) -> int:
    """Most bytes that torch has had in use on a GPU since that was last reset, or that this process has had ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def keep_freed_memory() -> None:
    """Let this process keep what it frees for its next batches; without glibc nothing happens.

    glibc gives blocks above 32 MB back to the kernel at once, and 64 images of 224 x 224 pixels in float32 are 38 MB: every
    batch is then made of fresh pages. Filling such a batch took 330 us per image, and 37 us of kept memory; the
    activations of a model on the CPU gain alike. Trade-off: up to 2 GB of freed memory stay with the process.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_MMAP_THRESHOLD, 2**30)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def give_freed_memory_back() -> None:
    """Return what this process has freed and kept: of the GPU to its other users, of the host to the kernel.

    After memory has run out: what one thread has freed and keeps would be missing to whoever asks for it elsewhere.
    """
    gc.collect()
    # Without a GPU nothing happens
    torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _free_of_node() -> int:
    # Not Linux: what is free is unknown
    if not _MEMORY.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fields = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _free_of_group() -> int | None:
    limit, used = _GROUP / "memory.max", _GROUP / "memory.current"
    if not limit.exists() or limit.read_text().strip() == "max":
        return None
    return max(0, int(limit.read_text()) - int(used.read_text()))
