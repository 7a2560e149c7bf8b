"""State of this process, most of it changed for a while: signal handlers, environment variables, log levels, its end."""

import atexit
import ctypes
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Parameters of glibc's mallopt (malloc.h)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def leave_objects_at_exit() -> None:
    """Let this process end without a search for unused objects, which takes seconds after torch and Ray were imported."""
    atexit.register(gc.freeze)


def keep_freed_memory() -> None:
    """Let this process reuse its freed memory for the next batches; no effect without glibc.

    glibc returns blocks above 32 MB to the kernel at once, and 64 images of 224 x 224 pixels in float32 are 38 MB: every
    batch is then allocated from fresh pages. Filling such a batch took 330 us per image, and 37 us in reused memory; the
    activations of a model on the CPU gain as much, and so do photos of many sizes that are read one after another.
    Trade-off: up to 2 GB of freed memory stay with the process.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_MMAP_THRESHOLD, 2**30)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def remember_interrupt() -> Iterator[Callable[[], None]]:
    """Yield a function that raises `KeyboardInterrupt` if Ctrl-C was pressed since, even if a library caught it.

    Ctrl-C itself raises at once as before. Outside the main thread, which alone may handle signals, nothing is remembered.
    """
    # A library may catch KeyboardInterrupt and continue, so that the exception alone can get lost.
    pressed, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def raise_if_pressed() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    def notice(number: int, frame: FrameType | None) -> None:
        pressed.set()
        # SIG_DFL and SIG_IGN are numbers, and None is a handler that was not installed by Python.
        if callable(before):
            before(number, frame)

    with restore_handlers(signal.SIGINT):
        if _can_handle_signals():
            signal.signal(signal.SIGINT, notice)
        yield raise_if_pressed


@contextmanager
def defer_first_signal(*signals: signal.Signals) -> Iterator[Callable[[], signal.Signals | None]]:
    """Yield a function that returns the first of these signals that came, or None; the second one raises.

    The second one raises `KeyboardInterrupt`, whichever signal it is. Outside the main thread, which alone may handle
    signals, nothing is deferred.
    """
    received: list[signal.Signals] = []

    def notice(number: int, frame: FrameType | None) -> None:
        # The way out if the orderly stop takes too long or hangs.
        if received:
            raise KeyboardInterrupt
        # Nothing else: a handler may interrupt any bytecode, also one that holds a lock.
        received.append(signal.Signals(number))

    with restore_handlers(*signals):
        for each in signals if _can_handle_signals() else ():
            signal.signal(each, notice)
        yield lambda: received[0] if received else None


@contextmanager
def restore_handlers(*signals: signal.Signals) -> Iterator[None]:
    """Restore the handlers of these signals on exit, whatever a library installed meanwhile."""
    if not _can_handle_signals():
        yield
        return
    before = {each: signal.getsignal(each) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def set_environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables, or remove those whose value is None; restore all of them on exit."""
    before = {name: os.environ.get(name) for name in settings}
    _apply_environment(settings)
    try:
        yield
    finally:
        _apply_environment(before)


@contextmanager
def replace_attributes(owner: Any, **values: Any) -> Iterator[None]:
    """Set attributes of an object, such as a module that has no setting for it; restore them on exit."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def silence_loggers(*names: str) -> Iterator[None]:
    """Set the level of these loggers to critical; restore it on exit."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _apply_environment(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _can_handle_signals() -> bool:
    return threading.current_thread() is threading.main_thread()
