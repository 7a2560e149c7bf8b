"""Faults of a GPU or of its driver: named with their place, and GPUs that fail again are held, so that no trial gets them.

A process whose CUDA context has failed can compute nothing any more; it ends with the fault (`dirtune.tuning.execution.trainable`),
and its trial resumes on another worker.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dirtune.errors import DEVICE_FAULT, TrialFailure
from dirtune.training.batch_limit import is_out_of_memory

FAULTS_TO_SET_ASIDE = 2
"""Faults of one GPU, without an epoch on it between them, after which it gets no more trials."""

_OF_CODE = re.compile(
    "device-side assert|CUDNN_STATUS_(NOT_SUPPORTED|BAD_PARAM)|CUBLAS_STATUS_(NOT_SUPPORTED|INVALID_VALUE)",
    re.IGNORECASE,
)


class GpuPlace(NamedTuple):
    """One GPU of the cluster."""

    node: str
    """Ray's id of its node; empty without Ray."""
    host: str
    gpu: str
    """Its number on the node."""

    def __str__(self) -> str:
        return f"GPU {self.gpu} of {self.host}"


class DeviceFault(TrialFailure):
    """A GPU or its driver failed; the process that used it cannot go on."""

    def __init__(self, place: GpuPlace, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(f"{place}: {reason}")

    def __reduce__(self) -> tuple[type["DeviceFault"], tuple[GpuPlace, str]]:
        return type(self), (self.place, self.reason)

    @property
    def is_of_code(self) -> bool:
        """True if any GPU would fail: for an index that is out of range, or what a library does not compute."""
        return _OF_CODE.search(self.reason) is not None


def is_device_fault(error: BaseException) -> bool:
    """Return True if an error is one of the GPU or its driver, and not of a lack of memory."""
    kinds = (RuntimeError, AssertionError)
    return isinstance(error, kinds) and DEVICE_FAULT.search(str(error)) is not None and not is_out_of_memory(error)


@contextmanager
def name_device_faults(*, has_gpu: bool) -> Iterator[None]:
    """Convert a fault of this worker's GPU to one that names its place.

    Raises:
        DeviceFault: the GPU or its driver failed.
    """
    try:
        yield
    except Exception as error:
        if not has_gpu or not is_device_fault(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise DeviceFault(get_place(), lines[0] if lines else type(error).__name__) from error


def check_device(device: torch.device) -> None:
    """Run a small computation on a GPU and wait for it, so that a trial never starts on one that does not work.

    Raises:
        RuntimeError: from torch, if it cannot use the GPU.
    """
    if device.type == "cuda":
        torch.ones(8, device=device).add_(1.0)
        torch.cuda.synchronize(device)


def get_place() -> GpuPlace:
    """Return the place of this process's GPU."""
    host, node, ids = socket.gethostname(), "", list[str]()
    if ray.is_initialized():
        context = ray.get_runtime_context()
        node, ids = context.get_node_id(), context.get_accelerator_ids().get("GPU", [])
    return GpuPlace(node, host, ids[0] if ids else os.environ.get("CUDA_VISIBLE_DEVICES") or "0")


@dataclass
class GpuHolds:
    """GPUs that are held until the end of a sweep.

    Ray places an actor on a node, not on a GPU of it. So one actor after another is started until one has the GPU; those that have
    another one are kept until then, since the next would get the same.
    """

    _actors: dict[GpuPlace, list[Any]] = field(default_factory=dict)
    _answers: dict[GpuPlace, Any] = field(default_factory=dict)
    """What the last actor of each GPU that is not held yet will answer."""

    def hold(self, place: GpuPlace) -> None:
        """Begin to hold a GPU, which succeeds once the last worker has left it."""
        strategy = NodeAffinitySchedulingStrategy(place.node, soft=False)
        actor = ray.remote(num_cpus=0, num_gpus=1)(_Holder).options(scheduling_strategy=strategy).remote()
        self._actors.setdefault(place, []).append(actor)
        self._answers[place] = actor.get_gpus.remote()

    def update(self) -> None:
        """Look at the answers that have arrived; return at once."""
        for place, answer in list(self._answers.items()):
            if not ray.wait([answer], timeout=0)[0]:
                continue
            del self._answers[place]
            try:
                is_held = place.gpu in ray.get(answer)
            except ray.exceptions.RayError:
                # The node has left, and its GPUs with it.
                is_held = True
            if is_held:
                *others, holder = self._actors[place]
                self._actors[place] = [holder]
                for actor in others:
                    ray.kill(actor)
            else:
                self.hold(place)

    def release_all(self) -> None:
        """Release all held GPUs."""
        for actors in self._actors.values():
            for actor in actors:
                ray.kill(actor)
        self._actors.clear()
        self._answers.clear()


class _Holder:
    """Actor that only occupies a GPU."""

    def get_gpus(self) -> list[str]:
        gpus: list[str] = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return gpus
