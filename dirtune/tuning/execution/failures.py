"""Why a trial failed, as one of four classes, which decide what is worth another try; and the record of it.

| class            | what happened                                                             | another try           |
|------------------|---------------------------------------------------------------------------|-----------------------|
| `nan`            | a term of the loss was not finite                                         | from the start        |
| `out_of_memory`  | of the GPU or of the host; where Ray's memory monitor ended the worker, too | from its checkpoint |
| `infrastructure` | a process or node died, a disk or the network failed                      | from its checkpoint   |
| `code`           | anything else that was raised                                             | from the start        |

What is left of an exception that has crossed processes is its type, its text and what Ray has wrapped around it. So a
class is told from types where there are some, and from the text where libraries raise a bare `RuntimeError`.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from datetime import datetime

import torch.distributed as dist
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

# Which have no public name: what Ray Train says of a rank that it cannot reach, and the base of all that it says itself.
from ray.train.v2._internal.exceptions import RayTrainError, WorkerHealthCheckFailedError

from dirtune.errors import NonFiniteLoss, OutOfMemory
from dirtune.results.records.schema import ErrorClass, TrialRecord
from dirtune.training.memory import NO_MEMORY, batch_text, is_out_of_memory, suggest_accumulation
from dirtune.training.trial import Progress, TrialJob

FROM_THE_START: frozenset[ErrorClass] = frozenset({"nan", "code"})
"""Classes whose other try begins anew: of the others, what had been trained before is as good as ever."""

_NO_PEER = re.compile(r"connection (closed|reset|refused)", re.IGNORECASE)


class CodeError(Exception):
    """What a trial raised, as text: an exception of somebody's own class may not exist in the driver."""

    def __init__(self, said: str, traceback: str) -> None:
        super().__init__(said, traceback)
        self.said, self.traceback = said, traceback

    @classmethod
    def of(cls, error: BaseException) -> CodeError:
        """With the traceback; of a group, with what its ranks said, which Ray's own text cuts short."""
        causes = [cause for cause in _causes(error) if _class_of(cause) == "code"]
        lines = dict.fromkeys(f"{type(cause).__name__}: {cause}" for cause in causes)
        frames = "".join(traceback.format_exception(error))
        said = next(iter(lines)).splitlines()[0]
        return cls(said, frames if causes == [error] else "\n".join([frames, *lines]))

    def __str__(self) -> str:
        return self.traceback


def error_class(error: BaseException) -> ErrorClass:
    """The class of what ended a trial; of several ranks' errors the one that explains the others."""
    found = {_class_of(each) for each in _causes(error)}
    # A rank that dies takes its peers with it, and they say of themselves only what they saw.
    order: tuple[ErrorClass, ...] = ("nan", "out_of_memory", "infrastructure", "code")
    return next(each for each in order if each in found)


def final_failure(error: BaseException) -> CodeError | OutOfMemory | None:
    """What ended a trial in a form that travels, if the same would end it on another worker; none: another may do better."""
    if error_class(error) == "code":
        return CodeError.of(error)
    found = next((each for each in _causes(error) if isinstance(each, OutOfMemory)), None)
    # Anew: what was raised holds the frames it came through, and these the tensors that there was no memory beside.
    return None if found is None else OutOfMemory(found.message, found.epoch)


def memory_failure(
    error: BaseException, job: TrialJob, progress: Progress | None, *, workers: int = 1
) -> OutOfMemory | None:
    """That a batch of a trial was too large for the memory, in one sentence; none: it failed otherwise, or elsewhere.

    A worker that the node's memory monitor has killed cannot say in which step: it is the epoch after its last one.
    """
    for cause in _causes(error):
        if isinstance(cause, OutOfMemory):
            return cause
        if isinstance(cause, RayError) and _class_of(cause) == "out_of_memory":
            epoch, recipe = (progress.trial["epochs_run"] if progress else 0) + 1, job.config.recipe
            batch = batch_text(recipe, rows=recipe.batch_size, views=recipe.views.count)
            killed = "the worker was killed because its node ran low on memory"
            advice = suggest_accumulation(recipe, workers=workers)
            return OutOfMemory(f"out of memory in epoch {epoch}: {batch}; {killed}; {advice}", epoch)
    return None


def failed_record(
    job: TrialJob,
    progress: Progress | None,
    error: BaseException,
    *,
    fingerprint: str,
    begun: datetime,
    workers: int = 1,
) -> TrialRecord:
    """The record of a trial whose worker died or raised.

    Args:
        progress: what the trial had left; none: it ended before its first epoch did.
        fingerprint: of the data.
        begun: when the trial was handed out.
        workers: ranks that trained the trial.
    """
    so_far = progress or _before_the_first_epoch(job, fingerprint, begun)
    too_large = memory_failure(error, job, progress, workers=workers)
    return so_far.record(
        "failed",
        error=reason(too_large or error),
        error_class=error_class(error),
        error_epoch=None if too_large is None else too_large.epoch,
    )


def reason(error: BaseException) -> str:
    """The first sentence of the last line of an error, which names the exception where it is a remote traceback."""
    text = error.said if isinstance(error, CodeError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].split(". ")[0] if lines else type(error).__name__


def _before_the_first_epoch(job: TrialJob, fingerprint: str, begun: datetime) -> Progress:
    trial = {
        "study": job.study,
        "arm": job.arm,
        "cell": job.cell,
        "trial_id": job.trial_id,
        "role": job.role,
        "replicate": job.replicate,
        "seed": job.config.seed,
        "epochs_planned": job.config.epochs_planned,
        "epochs_run": 0,
        "data": job.config.data.name,
        "data_fingerprint": fingerprint,
        "code_version": job.code_version,
        "started_at": begun.isoformat(),
    }
    return Progress(trial=trial, config=job.config.to_plain())


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What Ray has wrapped: the error of a task, or those of a group's ranks."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        yield from _causes(error.cause)
    elif isinstance(error, WorkerGroupError) and error.worker_failures:
        for failure in error.worker_failures.values():
            yield from _causes(failure)
    elif isinstance(error, ControllerError):
        yield from _causes(error.controller_failure)
    elif isinstance(error, WorkerHealthCheckFailedError):
        yield from _causes(error.health_check_failure)
    else:
        yield error


def _class_of(error: BaseException) -> ErrorClass:
    if isinstance(error, NonFiniteLoss):
        return "nan"
    if isinstance(error, OutOfMemory | OutOfMemoryError) or is_out_of_memory(error):
        return "out_of_memory"
    # Of a process that died
    if isinstance(error, RayError) and NO_MEMORY.search(str(error)):
        return "out_of_memory"
    if isinstance(error, RayActorError) and error.actor_init_failed:
        # Nothing but imports happens there
        return "code"
    if isinstance(error, RayError | RayTrainError | OSError | dist.DistError):
        return "infrastructure"
    return "infrastructure" if _is_bare(error) and _NO_PEER.search(str(error)) else "code"


def _is_bare(error: BaseException) -> bool:
    """Whether only the text tells what it is: torch's, and Ray's about a process that died."""
    return type(error) is RuntimeError or isinstance(error, RayError)
