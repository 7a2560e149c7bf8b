"""Run with `pytest tests/test_progress.py`."""

from __future__ import annotations

import re
import time

import pytest

from dirtune import progress
from dirtune.progress import show_progress


def test_long_work_has_dated_lines_in_a_pipe_and_short_work_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with show_progress("short", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(progress, "SECONDS_BEFORE", 0.0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.01)
    text = ""
    with show_progress("long", 4000, done=1000) as advance:
        advance(500)
        while text.count("\n") < 3:
            text += capsys.readouterr().err
            time.sleep(0.01)
    lines = text.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  long: 1,[05]00 of 4,000", line) for line in lines), lines


def test_a_terminal_has_a_bar_that_is_gone_afterwards(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SECONDS_BEFORE", 0.0)
    text = ""
    with show_progress("long", 4):
        while "long" not in text:
            text += capsys.readouterr().err
            time.sleep(0.01)
    assert "\x1b[2K" in text + capsys.readouterr().err
