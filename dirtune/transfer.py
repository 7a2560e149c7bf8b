"""Copies from the host to the device that do not make the host wait for the device."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dirtune.batch import Inputs

COPIES_AHEAD = 2
"""Streamed batches that a GPU copies while it computes with the one before them."""


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the host on a device.

    A GPU copies from pinned memory in the order of its own work; from other memory the host would wait for all its earlier work.
    """
    if device.type != "cuda":
        return values.to(device)
    # torch reuses pinned memory as soon as the copy from it is done.
    return values.pin_memory().to(device, non_blocking=True)


@cache
def make_constant(values: tuple[float | tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a constant on a device, copied there once in a process; it must not be changed."""
    # A tensor that is made in inference mode could not take part in a training step later.
    with torch.inference_mode(mode=False):
        return to_device(torch.tensor(values, dtype=dtype), device)


def make_buffer(shape: tuple[int, ...], element: str, device: torch.device) -> Tensor:
    """Return memory of the host to fill with a batch for a device, by the NumPy name of its type; for a GPU it is pinned.

    It is filled once: torch takes pinned memory that is released for the next buffer when all copies from it are done.
    """
    if device.type != "cuda":
        return torch.from_numpy(np.empty(shape, element))
    return torch.empty(shape, dtype=getattr(torch, element), pin_memory=True)


def copy_ahead(batches: Iterable[Inputs], device: torch.device) -> Iterator[Inputs]:
    """Yield batches of `make_buffer` on their device; a GPU copies the next ones on a stream of its own while it computes."""
    if device.type != "cuda":
        yield from batches
        return
    stream = get_copy_stream(device)
    copies: deque[tuple[Inputs, torch.cuda.Event]] = deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        copies.append((copied, stream.record_event()))
        if len(copies) > COPIES_AHEAD:
            yield _receive(*copies.popleft(), device)
    while copies:
        yield _receive(*copies.popleft(), device)


@cache
def get_copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of all copies of batches; one, because torch keeps the released memory of each stream apart."""
    return torch.cuda.Stream(device)


def _receive(inputs: Inputs, copied: torch.cuda.Event, device: torch.device) -> Inputs:
    """Let the GPU, not the host, wait for the copies of a batch before it computes with it."""
    stream = torch.cuda.current_stream(device)
    stream.wait_event(copied)
    for value in inputs.values():
        # Its memory is of the stream of the copies, which would otherwise reuse it before the computation is done.
        value.record_stream(stream)
    return inputs
