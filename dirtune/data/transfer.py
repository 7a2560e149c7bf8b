"""Copies from the host to the device that do not make the host wait for the device."""

from functools import cache

import torch
from torch import Tensor


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
