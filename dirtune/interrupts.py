"""Ctrl-C that is not lost, although a library catches the exception in a callback, or leaves its own handler behind.

`noticed_interrupts` is for work that is given up at once, `first_is_noticed` for work that ends in good order when it is
asked to, and at once when it is asked again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noticed_interrupts() -> Iterator[Callable[[], None]]:
    """Gives a function that raises `KeyboardInterrupt` if Ctrl-C was pressed since, whoever has caught it meanwhile.

    Ctrl-C raises at once as before. Outside of the main thread, which alone may handle signals, nothing is noticed.
    """
    pressed, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def raise_if_pressed() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    def notice(number: int, frame: FrameType | None) -> None:
        pressed.set()
        if callable(before):
            before(number, frame)

    with handlers_put_back(signal.SIGINT):
        if _may_handle():
            signal.signal(signal.SIGINT, notice)
        yield raise_if_pressed


@contextmanager
def first_is_noticed(*signals: signal.Signals) -> Iterator[Callable[[], signal.Signals | None]]:
    """The first of these signals is only noticed, and told by the function that this gives; the second raises.

    What the second raises is `KeyboardInterrupt`, whichever of the signals it is. Outside of the main thread, which alone may
    handle signals, nothing is noticed.
    """
    noticed: list[signal.Signals] = []

    def notice(number: int, frame: FrameType | None) -> None:
        if noticed:
            raise KeyboardInterrupt
        noticed.append(signal.Signals(number))

    with handlers_put_back(*signals):
        for each in signals if _may_handle() else ():
            signal.signal(each, notice)
        yield lambda: noticed[0] if noticed else None


@contextmanager
def handlers_put_back(*signals: signal.Signals) -> Iterator[None]:
    """Afterwards the handlers of these signals are those from before, whatever was installed meanwhile."""
    if not _may_handle():
        yield
        return
    before = {each: signal.getsignal(each) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _may_handle() -> bool:
    return threading.current_thread() is threading.main_thread()
