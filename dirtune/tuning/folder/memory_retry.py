"""Trials that run out of memory and go on with half the rows at a time: how far down, and where that is kept.

A batch stays what it is, and so does every step of the optimiser: it is cut into more micro-batches (`recipe.accumulation`).
What looks at several samples then sees fewer of them at once: batch normalisation, terms that compare pairs, dropout's
draws. So nothing is halved unless the study asks for it (`resources.memory_retries`), the trial starts anew, so that all its
epochs are of one kind, and its record and the tables say so.

The trial keeps its identity: it is the trial that was planned, paired with those of its seed. What was decided is kept in its
folder, written before anything is run by it, so that whoever resumes the sweep begins where it had come to.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.study.resolve import Resources
from dirtune.training.trial import TrialJob, tidy, trial_folder

DECISION = "memory.json"


def as_decided(folder: Storage, job: TrialJob) -> TrialJob:
    """The job with the micro-batches that it had come to, in this sweep or in an earlier one.

    Args:
        folder: the study's.
    """
    decided = _decision(folder, job.trial_id)
    return job if decided is None else replace(job, accumulation=decided["accumulation"])


def halve(folder: Storage, job: TrialJob, error: OutOfMemory, resources: Resources) -> TrialJob | None:
    """Decide that a trial is run again with at most half the rows at a time, from its start.

    Returns:
        The job as it is run next; none: it has been halved as often as the study allows, or a worker would see fewer
        than two rows.
    """
    before = _decision(folder, job.trial_id) or {"because": []}
    recipe = job.as_run.recipe.halved(least=2 * resources.workers)
    if recipe is None or len(before["because"]) >= resources.memory_retries:
        return None
    # First: killed in between, the trial runs out of memory once more
    tidy(folder, job.trial_id)
    decided = {"accumulation": recipe.accumulation, "because": [*before["because"], str(error)]}
    content = json.dumps(decided, indent=1).encode()
    trial_folder(folder, job.trial_id).write(DECISION, content)
    return replace(job, accumulation=recipe.accumulation)


def forget(folder: Storage, trial_id: str) -> None:
    """Let a trial begin as it was planned; what it had trained with smaller micro-batches is removed, too."""
    if _decision(folder, trial_id) is not None:
        tidy(folder, trial_id)
        trial_folder(folder, trial_id).remove(DECISION)


def _decision(folder: Storage, trial_id: str) -> dict[str, Any] | None:
    home = trial_folder(folder, trial_id)
    if not home.exists(DECISION):
        return None
    decided: dict[str, Any] = json.loads(home.read(DECISION))
    return decided
