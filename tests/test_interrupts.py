"""Ctrl-C that a library swallows."""

from __future__ import annotations

import contextlib
import signal
import threading

import pytest

from dirtune.interrupts import first_is_noticed, handlers_put_back, noticed_interrupts


def test_an_interrupt_that_somebody_caught_is_raised_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noticed_interrupts() as raise_if_interrupted:
        raise_if_interrupted()
        with contextlib.suppress(KeyboardInterrupt):  # as a callback of a library does
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_raised_at_once_as_without() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), noticed_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_of_the_main_thread_nothing_is_changed() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def look() -> None:
        with noticed_interrupts() as raise_if_interrupted:
            raise_if_interrupted()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_handler_that_somebody_left_is_taken_away() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with handlers_put_back(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: None)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_the_first_signal_is_told_and_the_second_raises_whichever_it_is() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with first_is_noticed(signal.SIGINT, signal.SIGTERM) as signalled:
        assert signalled() is None
        signal.raise_signal(signal.SIGTERM)
        assert signalled() is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signalled() is signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_of_the_main_thread_no_signal_is_noticed() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with first_is_noticed(signal.SIGTERM) as signalled:
            seen.append((signalled(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
