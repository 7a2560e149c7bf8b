"""Run with `pytest tests/test_process.py`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from contextlib import suppress

import pytest

from dirtune.process import defer_first_signal, remember_interrupt, restore_handlers, set_environment, silence_loggers


def test_an_interrupt_that_a_library_caught_is_raised_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    with remember_interrupt() as raise_if_interrupted:
        raise_if_interrupted()
        # As a callback of a library does
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_raised_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), remember_interrupt():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_interrupts_are_not_remembered() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def check() -> None:
        with remember_interrupt() as raise_if_interrupted:
            raise_if_interrupted()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_handler_that_a_library_left_is_removed() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with restore_handlers(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: None)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_the_first_signal_is_returned_and_any_second_one_raises() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with defer_first_signal(signal.SIGINT, signal.SIGTERM) as get_signal:
        assert get_signal() is None
        signal.raise_signal(signal.SIGTERM)
        assert get_signal() is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert get_signal() is signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_no_signal_is_deferred() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def check() -> None:
        with defer_first_signal(signal.SIGTERM) as get_signal:
            seen.append((get_signal(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_variables_are_set_or_removed_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRTUNE_THERE", "before")
    monkeypatch.setenv("DIRTUNE_HIDDEN", "seen")
    monkeypatch.delenv("DIRTUNE_NEW", raising=False)
    before = dict(os.environ)

    settings = {"DIRTUNE_THERE": "now", "DIRTUNE_HIDDEN": None, "DIRTUNE_NEW": "1"}
    with suppress(InterruptedError), set_environment(settings):
        assert {name: os.environ.get(name) for name in settings} == settings
        # Whoever removes it meanwhile does no harm
        del os.environ["DIRTUNE_NEW"]
        raise InterruptedError

    assert dict(os.environ) == before


def test_loggers_are_silenced_below_critical_and_restored(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("dirtune-test-talkative")
    logger.setLevel(logging.INFO)

    with silence_loggers(logger.name, "dirtune-test-other"):
        logger.error("unheard")
        logger.critical("heard")
    logger.info("heard again")

    assert [record.message for record in caplog.records] == ["heard", "heard again"]
    assert logging.getLogger("dirtune-test-other").level == logging.NOTSET
