"""Run with `pytest tests/study/test_mutated_studies.py`: a changed study is resolved, or refused by a short message at once."""

from __future__ import annotations

import random
import time
import traceback
from functools import cache
from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.io.yamlfile import dump_yaml, parse_yaml
from dirtune.study.files import list_shipped_studies
from dirtune.study.resolve import resolve
from dirtune.tuning.folder.jobs import JobMaker
from tests.study.mutations import mutate, mutate_text

LONGEST_MESSAGE = 2000
SECONDS = 5.0


@cache
def _read_studies() -> dict[str, tuple[str, Any]]:
    texts = {name: file.read_yaml() for name, file in list_shipped_studies().items()}
    return {name: (text, parse_yaml(text, where=name)) for name, text in texts.items()}


def _resolve(seed: int) -> str:
    """Resolve a mutated study, and return what came out of it."""
    drawn = random.Random(seed)
    text, plain = _read_studies()[drawn.choice(sorted(_read_studies()))]
    changes = drawn.choice((1, 1, 2, 4, 12))
    try:
        raw = (
            parse_yaml(mutate_text(text, drawn, changes), where="s") if seed % 5 == 0 else mutate(plain, drawn, changes)
        )
        study = resolve(raw, where="s")
        # What is valid can be written, and its trials can be listed.
        assert parse_yaml(dump_yaml(raw), where="s") is not None
        study.to_plain()
        if len(study.arms) * len(study.possible_seeds) < 1000:
            JobMaker(study=study, fingerprint="0").list_possible_trial_arms()
    except InputError as error:
        message = str(error)
    else:
        return "resolved"
    assert 0 < len(message) <= LONGEST_MESSAGE, message[:200]
    return "refused"


def _find_failures(seeds: range) -> tuple[dict[str, int], list[str]]:
    outcomes, failures = {"refused": 0, "resolved": 0}, list[str]()
    for seed in seeds:
        begin = time.process_time()
        try:
            outcomes[_resolve(seed)] += 1
        except Exception:
            failures.append(f"seed {seed}: {traceback.format_exc(limit=-3)}")
        if (seconds := time.process_time() - begin) > SECONDS:
            failures.append(f"seed {seed}: {seconds:.1f} s")
    return outcomes, failures


def test_a_mutated_study_is_resolved_or_refused_by_a_short_message_at_once() -> None:
    outcomes, failures = _find_failures(range(150))
    assert not failures, "\n".join(failures[:5])
    # Mutations that are all refused for one reason would find nothing.
    assert min(outcomes.values()) > 10


@pytest.mark.soak
def test_many_mutated_studies() -> None:
    outcomes, failures = _find_failures(range(1000, 3000))
    assert not failures, "\n".join(failures[:10])
    assert min(outcomes.values()) > 100
