from __future__ import annotations

import logging
import os
from contextlib import suppress

import pytest

from dirtune.surroundings import environment, silent


def test_variables_are_set_or_hidden_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRTUNE_THERE", "before")
    monkeypatch.setenv("DIRTUNE_HIDDEN", "seen")
    monkeypatch.delenv("DIRTUNE_NEW", raising=False)
    before = dict(os.environ)

    settings = {"DIRTUNE_THERE": "now", "DIRTUNE_HIDDEN": None, "DIRTUNE_NEW": "1"}
    with suppress(InterruptedError), environment(settings):
        assert {name: os.environ.get(name) for name in settings} == settings
        del os.environ["DIRTUNE_NEW"]  # whoever removes it meanwhile does no harm
        raise InterruptedError

    assert dict(os.environ) == before


def test_loggers_say_only_what_is_critical_and_then_what_they_said_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("dirtune-test-talkative")
    logger.setLevel(logging.INFO)

    with silent(logger.name, "dirtune-test-other"):
        logger.error("unheard")
        logger.critical("heard")
    logger.info("heard again")

    assert [record.message for record in caplog.records] == ["heard", "heard again"]
    assert logging.getLogger("dirtune-test-other").level == logging.NOTSET
