"""Checks of the tensors that modules are called with, without a copy from the device."""

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from dirtune.errors import Fault, InputError


def check_tensors(where: str, needed: tuple[str, ...], **given: Any) -> None:
    """Raise if one of these is no tensor, or if they are on several devices.

    Args:
        where: name of the module.
        needed: names of those that must not be None.
        given: by the name of the argument; the first one has the device.

    Raises:
        InputError: with the names.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in given.items():
        if isinstance(value, Tensor):
            tensors[name] = value
        elif value is not None or name in needed:
            rule = f"must be a tensor, got {'None' if value is None else f'a {type(value).__name__}'}"
            raise InputError(Fault(where=where, key=name, rule=rule))
    (first, reference), *others = tensors.items()
    for name, value in others:
        if value.device != reference.device:
            rule = f"must be on the device of {first}, {reference.device}"
            raise InputError(Fault(where=where, key=name, rule=rule, got=str(value.device)))


def check_shape(where: str, name: str, value: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise if a tensor is given that has another shape.

    Raises:
        InputError: with both shapes.
    """
    if value is not None and tuple(value.shape) != shape:
        raise InputError(Fault(where=where, key=name, rule=f"must have the shape {shape}", got=tuple(value.shape)))


def check_floating(where: str, name: str, value: Tensor) -> None:
    """Raise if a tensor has whole numbers, through which no gradient flows.

    Raises:
        InputError: with its type.
    """
    if not value.is_floating_point():
        rule = "must be of a floating-point type"
        raise InputError(Fault(where=where, key=name, rule=rule, got=str(value.dtype)))


def check_finite(where: str, name: str, value: Tensor) -> None:
    """Raise if a tensor has a number that is not finite; waits for the device.

    Raises:
        InputError: with the name.
    """
    if not bool(torch.isfinite(value).all()):
        raise InputError(Fault(where=where, key=name, rule="must be finite numbers"))


def check_integer(where: str, name: str, value: object, *, least: int | None = None) -> None:
    """Raise unless a value is None or a whole number, and at least `least`.

    Raises:
        InputError: with the value.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if value is None or (is_integer and (least is None or value >= least)):  # type: ignore[operator]
        return
    rule = "must be a whole number" + ("" if least is None else f" from {least} on")
    raise InputError(Fault(where=where, key=name, rule=rule, got=value))
