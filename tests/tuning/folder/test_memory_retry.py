"""How far a trial's micro-batches are halved: `pytest tests/tuning/folder/test_memory_retry.py`; in a sweep: `test_memory_sweep`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dirtune.config import TrialConfig
from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.study.resolve import Resources
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.memory_retry import DECISION, as_decided, forget, halve
from tests.training.conftest import configuration

__all__ = ["configuration"]

TOO_LARGE = OutOfMemory("out of memory at epoch 2, step 1: a batch", 2)
THRICE = Resources(memory_retries=3)


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path / "study")


def job_with(configuration: Callable[..., TrialConfig], **recipe: int) -> TrialJob:
    config = configuration(recipe=recipe)
    return TrialJob(study="s", arm="a", trial_id="t", config=config)


@pytest.mark.parametrize(
    ("recipe", "workers", "expected"),
    [
        # As often as it may
        ({"batch_size": 64}, 1, [2, 4, 8]),
        ({"batch_size": 64, "accumulation": 4}, 1, [8, 16, 32]),
        # Two rows at a time are the least
        ({"batch_size": 8}, 1, [2, 4]),
        # On each worker
        ({"batch_size": 8}, 2, [2]),
        # 18 are less than half of 45, and divide 90
        ({"batch_size": 90}, 1, [2, 5, 10]),
        ({"batch_size": 7}, 1, []),
        ({"batch_size": 3}, 1, []),
    ],
)
def test_a_trial_is_halved_until_the_limit_or_two_rows(
    configuration: Callable[..., TrialConfig],
    folder: Storage,
    recipe: dict[str, int],
    workers: int,
    expected: list[int],
) -> None:
    resources = Resources(memory_retries=3, workers=workers)
    job: TrialJob | None = job_with(configuration, **recipe)
    found = []
    while job is not None:
        job = halve(folder, job, TOO_LARGE, resources)
        found += [] if job is None else [job.accumulation]
    assert found == expected


def test_nothing_is_halved_unless_the_study_asks_for_it(
    configuration: Callable[..., TrialConfig], folder: Storage
) -> None:
    job = job_with(configuration)
    assert halve(folder, job, TOO_LARGE, Resources()) is None
    assert as_decided(folder, job) == job


def test_who_resumes_begins_where_a_trial_had_come_to_and_knows_why(
    configuration: Callable[..., TrialConfig], folder: Storage
) -> None:
    planned = job_with(configuration, batch_size=64)
    once = halve(folder, planned, TOO_LARGE, THRICE)
    assert once is not None
    assert as_decided(folder, planned) == once == replace(planned, accumulation=2)
    twice = halve(folder, once, OutOfMemory("again", 1), THRICE)
    assert as_decided(folder, planned) == twice == replace(planned, accumulation=4)
    kept = json.loads(folder.read(f"trials/t/{DECISION}"))
    assert kept == {"accumulation": 4, "because": [str(TOO_LARGE), "again"]}
    assert as_decided(folder, replace(planned, trial_id="other")).accumulation is None


def test_a_halved_trial_starts_anew(configuration: Callable[..., TrialConfig], folder: Storage) -> None:
    for name in ("checkpoint/state.pt", "progress.json", "config.json"):
        folder.write(f"trials/t/{name}", b"{}")
    halve(folder, job_with(configuration), TOO_LARGE, THRICE)
    assert not folder.exists("trials/t/checkpoint")
    assert not folder.exists("trials/t/progress.json")
    assert folder.exists("trials/t/config.json")


def test_what_is_forgotten_begins_as_planned_and_what_was_never_halved_goes_on(
    configuration: Callable[..., TrialConfig], folder: Storage
) -> None:
    job = job_with(configuration)
    halve(folder, job, TOO_LARGE, THRICE)
    for trial_id in ("t", "other"):
        folder.write(f"trials/{trial_id}/checkpoint/state.pt", b"state")
        forget(folder, trial_id)
    assert as_decided(folder, job) == job
    assert not folder.exists("trials/t/checkpoint")
    assert folder.exists("trials/other/checkpoint/state.pt")
