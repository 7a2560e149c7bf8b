"""A pretended CUDA device: real numbers, computed on the CPU, for tests of what only a GPU would show.

Every storage is marked as on the host or on the device. A computation that mixes the two raises `DeviceMismatch`, where CUDA
would raise; every point at which the host waits for the device is recorded with its place in the source. What CUDA leaves
unsaid raises `StreamMisuse`: memory of the device that is used on a stream which does not wait for the one that wrote it, or which
the allocator does not know of, and pinned memory that is filled anew while a copy reads it. Not seen: what happens inside of a
C++ kernel, cuDNN and its numbers, autocast's rules for CUDA, NCCL, speed.
"""

from __future__ import annotations

import ctypes
import sys
import threading
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

from dirtune import transfer

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


class StreamMisuse(RuntimeError):
    """Work of two streams, or of a stream and the host, on one memory, of which nothing says which is first."""


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
        HOST_WORK.wait_stream(_streams[-1])
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


_all_streams: list[Stream] = []


class Stream:
    """Work in the order in which the device does it, and how much of the work of others is done before what comes next."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.issued = 0
        self.preceding: dict[Stream, int] = {}
        _all_streams.append(self)

    def record_event(self) -> Event:
        return Event({**self.preceding, self: self.issued})

    def wait_event(self, event: Event) -> None:
        for stream, number in event.preceding.items():
            self.preceding[stream] = max(number, self.preceding.get(stream, 0))

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        self.record_event().synchronize()


@dataclass
class Event:
    """A point in the work of a stream, with all that is done before it."""

    preceding: dict[Stream, int]

    def synchronize(self) -> None:
        # A thread may wait: the training does not wait for it.
        if threading.current_thread() is threading.main_thread():
            HOST_WORK.wait_event(self)
            if _watching:
                _watching[-1].record("synchronize")


HOST_WORK = Stream()
"""What the host has waited for; what it asks for next begins after that on every stream."""
_streams = [Stream()]
"""The default stream, and those of `torch.cuda.stream` around the present place."""
_watching: list[Device] = []


@contextmanager
def _use_stream(stream: Stream) -> Iterator[None]:
    _streams.append(stream)
    try:
        yield
    finally:
        _streams.pop()


@dataclass
class _Copy:
    """A copy from pinned memory that the host has not waited for."""

    stream: Stream
    number: int
    content: bytes


@dataclass
class _Memory:
    """What is known of a storage; it keeps its Python object, and so this, for as long as it lives."""

    device: torch.device
    is_pinned: bool
    stream: Stream
    """On which it was allocated, and whose later work gets it when it is released."""
    writer: Stream
    number: int
    """Of the last work that wrote it, in its stream."""
    recorded: set[Stream] = field(default_factory=set)
    copies: list[_Copy] = field(default_factory=list)


def get_memory(value: Tensor) -> _Memory | None:
    return getattr(value.untyped_storage(), "pretended", None)


def is_on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and (memory := get_memory(value)) is not None and memory.device == CUDA


def place_on(value: Tensor, device: torch.device, *, pinned: bool = False) -> Tensor:
    stream = _streams[-1]
    value.untyped_storage().pretended = _Memory(device, pinned, stream, stream, stream.issued)
    return value


def check_order(value: Tensor) -> None:
    """Raise if the memory of a tensor of the device must not be used now on the current stream."""
    stream, memory = _streams[-1], get_memory(value)
    assert memory is not None
    known = max(each.preceding.get(memory.writer, 0) for each in (stream, HOST_WORK))
    if memory.writer is not stream and known < memory.number:
        raise StreamMisuse(f"used before the stream that writes it was waited for, at {find_place()}")
    if memory.stream is not stream and stream not in memory.recorded:
        raise StreamMisuse(f"used on a stream that is not recorded (`record_stream`), at {find_place()}")


def start_copy(value: Tensor) -> None:
    """Register a copy from pinned memory on the current stream; raise if one before it has read, or will read, other content."""
    stream, memory, storage = _streams[-1], get_memory(value), value.untyped_storage()
    assert memory is not None
    content = ctypes.string_at(storage.data_ptr(), storage.nbytes())
    memory.copies = [copy for copy in memory.copies if HOST_WORK.preceding.get(copy.stream, 0) < copy.number]
    if any(copy.content != content for copy in memory.copies):
        raise StreamMisuse(f"pinned memory was filled anew while a copy reads it, at {find_place()}")
    memory.copies.append(_Copy(stream, stream.issued, content))


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
            for each in tensors:
                if is_on_device(each):
                    check_order(each)
            _streams[-1].issued += 1
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
        if on_device and func._schema.is_mutable:
            for memory in filter(None, map(get_memory, tensors)):
                memory.writer, memory.number = _streams[-1], _streams[-1].issued
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
        memory = get_memory(value)
        is_pinned = memory is not None and memory.is_pinned
        _streams[-1].issued += 1
        if not ((is_pinned or device == HOST) and non_blocking):
            self.device.record("copy to the device" if device == CUDA else "copy to the host")
        elif is_pinned:
            start_copy(value)
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


def _make_pinned(empty: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def make(*size: Any, pin_memory: bool = False, **named: Any) -> Tensor:
        made = empty(*size, **named)
        return place_on(made, HOST, pinned=True) if pin_memory else made

    return make


def _synchronize(device: Any = None) -> None:
    for stream in _all_streams:
        stream.synchronize()


def _record_stream(value: Tensor, stream: Stream) -> None:
    memory = get_memory(value)
    assert memory is not None
    memory.recorded.add(stream)


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
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", _use_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _streams[-1])
    monkeypatch.setattr(torch.cuda, "synchronize", _synchronize)
    monkeypatch.setattr(torch, "autocast", lambda kind, *rest, **named: autocast("cpu", *rest, **named))
    # Not in a mode: those are of one thread, and threads prefetch.
    monkeypatch.setattr(Tensor, "pin_memory", _pin_memory)
    monkeypatch.setattr(Tensor, "record_stream", _record_stream)
    monkeypatch.setattr(torch, "empty", _make_pinned(torch.empty))
    monkeypatch.setattr(rnn, "_VF", _Packing(rnn._VF, device))
    group = clip_grad._group_tensors_by_device_and_dtype
    monkeypatch.setattr(clip_grad, "_group_tensors_by_device_and_dtype", partial(_group_by_device, group))
    monkeypatch.setattr(torch.nn.LSTM, "flatten_parameters", lambda self: None)
    with monkeypatch.context() as patch, _Interface(device), _Computations(device):
        patch.setattr(torch, "load", _make_load(torch.load))
        # What a process keeps of one device is not that of another.
        kept = (transfer.make_constant, transfer.get_copy_stream)
        for each in kept:
            each.cache_clear()
        _watching.append(device)
        try:
            yield device
        finally:
            _watching.pop()
            for each in kept:
                each.cache_clear()


def _make_load(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_pretended(file: Any, map_location: Any = None, **named: Any) -> Any:
        found = load(file, map_location="cpu", **named)
        if map_location is not None and torch.device(map_location).type == "cuda":
            for leaf in tree_leaves(found):
                if isinstance(leaf, Tensor):
                    place_on(leaf, CUDA)
        return found

    return load_pretended
