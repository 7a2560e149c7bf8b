"""A pretended CUDA device: real numbers, computed on the CPU, for tests of what only a GPU would show.

Every storage is marked as on the host or on the device. A computation that mixes the two raises `DeviceMismatch`, where CUDA
would raise; every point at which the host waits for the device is recorded with its place in the source. Not seen: what
happens inside of a C++ kernel, cuDNN and its numbers, autocast's rules for CUDA, NCCL, streams, speed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad, rnn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
HOST = torch.device("cpu")
GIB = 2**30

# The host needs the result of these, or its size, before it goes on.
WAITING = {
    "_linalg_check_errors",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
# Their batch sizes belong on the host, and what their backward pass fills has no mark.
WITH_HOST_SIZES = {
    "index_add",
    "_pad_packed_sequence",
    "lstm",
    "_pack_padded_sequence",
    "_pack_padded_sequence_backward",
    "_thnn_fused_lstm_cell",
}
# These accept numbers of the host only as Python numbers, not as a tensor without dimensions.
STRICT = {"cat", "stack", "index_select", "gather", "index_copy_", "index_add_"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
FACTORIES = {
    "arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm", "tensor",
    "zeros", "new_empty", "new_full", "new_ones", "new_tensor", "new_zeros", "empty_like", "full_like", "ones_like",
    "rand_like", "randn_like", "zeros_like",
}  # fmt: off


class DeviceMismatch(RuntimeError):
    """A computation with tensors of the host and of the device, or a tensor that is not where it is needed."""


@dataclass(frozen=True)
class Wait:
    """A point at which the host waits for the device."""

    operation: str
    place: str
    """File and line of the package's innermost frame, or of torch if there is none."""


@dataclass
class Device:
    """What happened on the pretended device."""

    waits: list[Wait] = field(default_factory=list)
    is_recording: bool = True

    def record(self, operation: str) -> None:
        if self.is_recording:
            self.waits.append(Wait(operation, find_place()))

    @contextmanager
    def watch(self) -> Iterator[list[Wait]]:
        """Give the list of the waits until the end of the block."""
        before, self.waits = self.waits, []
        try:
            yield self.waits
        finally:
            self.waits = before


def find_place() -> str:
    frame, outside = sys._getframe(2), "?"
    while frame is not None:
        file = frame.f_code.co_filename
        if "/dirtune/" in file and "/site-packages/" not in file:
            return f"{file.rsplit('/dirtune/', 1)[1]}:{frame.f_lineno}"
        if outside == "?" and "/torch/optim/" in file:
            outside = f"torch/optim/{file.rsplit('/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return outside


def is_on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and getattr(value.untyped_storage(), "pretended_device", HOST) == CUDA


def place_on(value: Tensor, device: torch.device, *, pinned: bool = False) -> Tensor:
    # A storage keeps its Python object, and so these marks, for as long as it lives.
    storage = value.untyped_storage()
    storage.pretended_device, storage.is_pretended_pinned = device, pinned
    return value


class _Move(torch.autograd.Function):
    """A copy between host and device that carries the gradient back."""

    @staticmethod
    def forward(context: Any, value: Tensor, device: torch.device) -> Tensor:
        context.back = CUDA if is_on_device(value) else HOST
        return place_on(value.clone(), device)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return place_on(gradients[0].clone(), context.back), None


class _Computations(TorchDispatchMode):
    """Marks results of computations, and raises for those that mix devices."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(map(is_on_device, tensors))
        if on_device:
            self._check(name, args, tensors)
        if name == "copy_" and len({is_on_device(each) for each in tensors}) > 1:
            self.device.record("copy_")
        result = func(*args, **kwargs)
        if on_device and name != "copy_":
            known = {each.untyped_storage()._cdata for each in tensors}
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                    place_on(leaf, CUDA)
            if name == "_pack_padded_sequence":
                place_on(result[1], HOST)
        return result

    def _check(self, name: str, args: Sequence[Any], tensors: list[Tensor]) -> None:
        if name in WAITING:
            self.device.record(name)
        if name in INDEXING:
            self._check_indexing(name, args)
        elif name not in WITH_HOST_SIZES and name != "copy_":
            strict = name in STRICT
            wrong = [each for each in tensors if not is_on_device(each) and (each.dim() or strict)]
            if wrong:
                raise DeviceMismatch(f"{name}: {tuple(wrong[0].shape)} is on the host, at {find_place()}")

    def _check_indexing(self, name: str, args: Sequence[Any]) -> None:
        indexed, indices, *values = args
        indices = [each for each in indices if isinstance(each, Tensor)]
        if not is_on_device(indexed):
            raise DeviceMismatch(f"{name}: indices or values of a host tensor are on the device, at {find_place()}")
        value = values[0] if values else None
        if isinstance(value, Tensor) and value.dim() and not is_on_device(value):
            raise DeviceMismatch(f"{name}: the values are on the host, at {find_place()}")
        for each in indices:
            if not is_on_device(each):
                self.device.record(f"{name} by host indices")
            # One value under a mask is filled in without a look at the mask.
            elif each.dtype == torch.bool and (value is None or value.numel() > 1):
                self.device.record(f"{name} by mask")


class _Interface(TorchFunctionMode):
    """Answers for the device where code asks for it, and moves tensors."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first = args[0] if args else None
        if func == Tensor.device.__get__:
            return CUDA if is_on_device(first) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return is_on_device(first)
        if func == Tensor.is_cpu.__get__:
            return not is_on_device(first)
        if func in (Tensor.backward, torch.autograd.backward):
            # The mode is off inside of a function that it has taken over; a loss's own backward must see it.
            with self:
                return _run_backward(*args, **kwargs)
        if func is torch.autograd.grad:
            with self:
                return _compute_gradients(*args, **kwargs)
        if name in ("numpy", "__array__") and is_on_device(first):
            raise DeviceMismatch(f"{name}() of a tensor of the device, at {find_place()}")
        if name == "tolist" and is_on_device(first):
            self.device.record("tolist")
        if name == "cpu" and isinstance(first, Tensor):
            return self._move(first, HOST, non_blocking=False)
        if name == "cuda" and isinstance(first, Tensor):
            return self._move(first, CUDA, non_blocking=kwargs.get("non_blocking", False))
        if name == "to" and isinstance(first, Tensor):
            return self._to(func, first, args[1:], kwargs)
        if name in FACTORIES:
            return self._make(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _make(self, func: Callable[..., Tensor], name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        asked = kwargs.pop("device", None)
        device = None if asked is None else torch.device(asked)
        generator = kwargs.get("generator")
        if device is not None and device.type == "cuda" and generator is not None:
            raise DeviceMismatch(f"{name}: a generator of the host for a tensor of the device, at {find_place()}")
        made = func(*args, **kwargs)
        if name == "as_tensor" and isinstance(args[0], Tensor):
            return made if device is None else self._move(made, device, non_blocking=False)
        if device is None:
            if name == "new_tensor" and is_on_device(args[0]):
                self.device.record(name)
                place_on(made, CUDA)
            return made
        if device.type == "cuda" and name in ("tensor", "as_tensor", "new_tensor"):
            self.device.record(name)
        return place_on(made, CUDA if device.type == "cuda" else HOST)

    def _to(self, func: Callable[..., Tensor], value: Tensor, rest: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        target, others = kwargs.pop("device", None), []
        non_blocking = kwargs.pop("non_blocking", False)
        for each in rest:
            if isinstance(each, Tensor):
                target = CUDA if is_on_device(each) else HOST
                others.append(each.dtype)
            elif isinstance(each, str | torch.device):
                target = each
            elif isinstance(each, bool):
                non_blocking = non_blocking or each
            elif each is not None:
                others.append(each)
        converted = func(value, *others, **kwargs) if others or kwargs else value
        if target is None:
            return converted
        device = torch.device(target)
        return self._move(converted, CUDA if device.type == "cuda" else HOST, non_blocking=non_blocking)

    def _move(self, value: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        if is_on_device(value) == (device == CUDA):
            return value
        # To the host, such a copy goes to pinned memory that torch allocates.
        pinned = device == HOST or getattr(value.untyped_storage(), "is_pretended_pinned", False)
        if not (pinned and non_blocking):
            self.device.record("copy to the device" if device == CUDA else "copy to the host")
        moved: Tensor = _Move.apply(value, device)
        return moved


def _run_backward(
    losses: Tensor | Sequence[Tensor],
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Sequence[Tensor] | None = None,
) -> None:
    loss = losses if isinstance(losses, Tensor) else losses[0]
    gradient = torch.ones_like(loss) if gradient is None else gradient
    torch.autograd.graph._engine_run_backward(
        (loss,),
        (gradient,),
        bool(retain_graph or create_graph),
        create_graph,
        tuple(inputs or ()),
        allow_unreachable=True,
        accumulate_grad=True,
    )


def _compute_gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    *,
    retain_graph: bool | None = None,
    allow_unused: bool | None = None,
    **defaults: Any,
) -> Any:
    # Code gives no gradients of the outputs.
    ones = tuple(torch.ones_like(each) for each in outputs)
    keep, unused = bool(retain_graph), bool(allow_unused)
    return torch.autograd.graph._engine_run_backward(
        tuple(outputs), ones, keep, False, tuple(inputs), allow_unreachable=unused, accumulate_grad=False
    )


def _pin_memory(value: Tensor) -> Tensor:
    if is_on_device(value):
        raise DeviceMismatch(f"pin_memory() of a tensor of the device, at {find_place()}")
    return place_on(value.clone(), HOST, pinned=True)


class _Packing:
    """Functions of packed sequences, whose lengths stay on the host."""

    def __init__(self, usual: Any, device: Device) -> None:
        self.usual, self.device = usual, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.usual, name)

    def _pad_packed_sequence(self, data: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        # It fills the result step by step, which is no wait.
        self.device.is_recording = False
        try:
            padded, lengths = self.usual._pad_packed_sequence(data, *rest)
        finally:
            self.device.is_recording = True
        return place_on(padded, CUDA if is_on_device(data) else HOST), place_on(lengths, HOST)


def _group_by_device(usual: Callable[..., Any], tensors: Any, **named: Any) -> Any:
    is_there = is_on_device(tensors[0][0])
    return {(CUDA if is_there else key[0], key[1]): value for key, value in usual(tensors, **named).items()}


class _Stream:
    """A stream that has always ended its work."""

    def record_event(self) -> _Stream:
        return self

    def synchronize(self) -> None:
        pass


class _Properties:
    total_memory, major, minor, name = 80 * GIB, 8, 0, "pretended"


@contextmanager
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """Pretend that this process has one CUDA device, until the end of the block."""
    device, autocast = Device(), torch.autocast
    for name, answer in {
        "reset_peak_memory_stats": None,
        "mem_get_info": (70 * GIB, 80 * GIB),
        "max_memory_allocated": GIB,
        "memory_reserved": GIB,
        "get_device_properties": _Properties,
        "get_device_name": "pretended",
        "set_per_process_memory_fraction": None,
        "empty_cache": None,
        "synchronize": None,
        "current_stream": _Stream(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    monkeypatch.setattr(torch, "autocast", lambda kind, *rest, **named: autocast("cpu", *rest, **named))
    # Not in a mode: those are of one thread, and threads prefetch.
    monkeypatch.setattr(Tensor, "pin_memory", _pin_memory)
    monkeypatch.setattr(rnn, "_VF", _Packing(rnn._VF, device))
    group = clip_grad._group_tensors_by_device_and_dtype
    monkeypatch.setattr(clip_grad, "_group_tensors_by_device_and_dtype", partial(_group_by_device, group))
    monkeypatch.setattr(torch.nn.LSTM, "flatten_parameters", lambda self: None)
    with monkeypatch.context() as patch, _Interface(device), _Computations(device):
        patch.setattr(torch, "load", _make_load(torch.load))
        yield device


def _make_load(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_pretended(file: Any, map_location: Any = None, **named: Any) -> Any:
        found = load(file, map_location="cpu", **named)
        if map_location is not None and torch.device(map_location).type == "cuda":
            for leaf in tree_leaves(found):
                if isinstance(leaf, Tensor):
                    place_on(leaf, CUDA)
        return found

    return load_pretended
