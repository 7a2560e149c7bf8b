"""Failures of trials: classified by what a retry has to do, and recorded.

| class            | cause                                                               | a retry starts      |
|------------------|---------------------------------------------------------------------|---------------------|
| `nan`            | a term of the loss was not finite                                   | over                |
| `out_of_memory`  | no memory on the GPU or the host, or killed by Ray's memory monitor | from the checkpoint |
| `infrastructure` | a process, node or GPU failed, or a disk or the network              | from the checkpoint |
| `code`           | any other exception                                                 | over                |

Of an exception that has crossed processes remain its type, its text, and what Ray has wrapped around it. The class follows
from types where there are any, and from the text where libraries raise a bare `RuntimeError`.
"""

import traceback
from collections.abc import Iterator
from datetime import datetime

import torch.distributed as dist
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

# No public names exist for Ray Train's error about an unreachable rank, and for the base class of its own errors.
from ray.train.v2._internal.exceptions import RayTrainError, WorkerHealthCheckFailedError

from dirtune.errors import LOST_PEER, NO_MEMORY, InputError, NonFiniteLoss, OutOfMemory
from dirtune.results.records.schema import ErrorClass, TrialRecord
from dirtune.training import stages
from dirtune.training.batch_limit import is_out_of_memory
from dirtune.training.memory import format_batch, suggest_accumulation
from dirtune.training.trial import Progress, TrialJob
from dirtune.tuning.execution import device_faults


class CodeError(Exception):
    """An exception of a trial as text, since its class may not exist in the driver."""

    def __init__(self, reason: str, traceback: str) -> None:
        super().__init__(reason, traceback)
        self.reason, self.traceback = reason, traceback

    @classmethod
    def from_exception(cls, error: BaseException) -> "CodeError":
        """Return the error with its traceback; for a group with the errors of its ranks, which Ray's own text truncates."""
        causes = [cause for cause in _iter_causes(error) if _classify_cause(cause) == "code"]
        # The sentence of an invalid input or a failing part needs no type before it.
        lines = dict.fromkeys(
            str(cause) if isinstance(cause, InputError) else f"{type(cause).__name__}: {cause}" for cause in causes
        )
        frames = "".join(traceback.format_exception(error))
        reason = next(iter(lines)).splitlines()[0]
        return cls(reason, frames if causes == [error] else "\n".join([frames, *lines]))

    def __str__(self) -> str:
        return self.traceback


def get_error_class(error: BaseException) -> ErrorClass:
    """Return the class of what ended a trial; for the errors of several ranks, that of the one which caused the others."""
    classes = {_classify_cause(cause) for cause in _iter_causes(error)}
    # A rank that dies takes its peers with it, and their errors only name the lost connection.
    order: tuple[ErrorClass, ...] = ("nan", "out_of_memory", "infrastructure", "code")
    return next(each for each in order if each in classes)


def get_final_failure(error: BaseException) -> CodeError | OutOfMemory | None:
    """Return a picklable error if a retry on another worker would fail too, else None."""
    if get_error_class(error) == "code":
        return CodeError.from_exception(error)
    cause = next((each for each in _iter_causes(error) if isinstance(each, OutOfMemory)), None)
    # A new error: the raised one holds the frames that it came through, and these hold the tensors that filled the memory.
    return None if cause is None else OutOfMemory(cause.message, cause.epoch)


def find_device_fault(error: BaseException) -> device_faults.DeviceFault | None:
    """Return the fault of a GPU that ended a trial, or None if something else did."""
    return next((cause for cause in _iter_causes(error) if isinstance(cause, device_faults.DeviceFault)), None)


def find_memory_failure(
    error: BaseException, job: TrialJob, progress: Progress | None, *, workers: int = 1
) -> OutOfMemory | None:
    """Return the one-line error about a batch that did not fit into memory; None if the trial failed otherwise.

    A worker that the node's memory monitor has killed cannot name its step: it was in the epoch after the last one recorded.
    """
    for cause in _iter_causes(error):
        if isinstance(cause, OutOfMemory):
            return cause
        if isinstance(cause, RayError) and _classify_cause(cause) == "out_of_memory":
            epoch = (progress.trial["epochs_run"] if progress else 0) + 1
            stage = stages.find_stage(job.config, epoch)
            recipe = stage.recipe
            batch = format_batch(recipe, rows=recipe.batch_size, views=recipe.views.count)
            killed = "the worker was killed because its node ran low on memory"
            advice = suggest_accumulation(stage, workers=workers)
            return OutOfMemory(f"out of memory in epoch {epoch}: {batch}; {killed}; {advice}", epoch)
    return None


def make_failed_record(
    job: TrialJob,
    progress: Progress | None,
    error: BaseException,
    *,
    fingerprint: str,
    started_at: datetime,
    workers: int = 1,
) -> TrialRecord:
    """Return the record of a trial whose worker died or raised.

    Args:
        progress: progress that the trial has written; None if it ended before its first epoch did.
        fingerprint: of the data.
        started_at: time at which the trial was handed out.
        workers: ranks that trained the trial.
    """
    if progress is None:
        trial = {
            **job.to_row(),
            "epochs_run": 0,
            "data": job.config.data.name,
            "data_fingerprint": fingerprint,
            "data_split": job.config.data.split,
            "code_version": job.code_version,
            "started_at": started_at.isoformat(),
        }
        progress = Progress(trial=trial, config=job.config.to_plain())
    memory_failure = find_memory_failure(error, job, progress, workers=workers)
    return progress.make_record(
        "failed",
        error=get_reason(memory_failure or error),
        error_class=get_error_class(error),
        error_epoch=None if memory_failure is None else memory_failure.epoch,
    )


def get_reason(error: BaseException) -> str:
    """Return the first sentence of an error's last line, which names the exception if it is a remote traceback."""
    text = error.reason if isinstance(error, CodeError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].split(". ")[0] if lines else type(error).__name__


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that Ray has wrapped: that of a task, or those of a group's ranks."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        yield from _iter_causes(error.cause)
    elif isinstance(error, WorkerGroupError) and error.worker_failures:
        for failure in error.worker_failures.values():
            yield from _iter_causes(failure)
    elif isinstance(error, ControllerError):
        yield from _iter_causes(error.controller_failure)
    elif isinstance(error, WorkerHealthCheckFailedError):
        yield from _iter_causes(error.health_check_failure)
    else:
        yield error


def _classify_cause(error: BaseException) -> ErrorClass:
    if isinstance(error, NonFiniteLoss):
        return "nan"
    if isinstance(error, OutOfMemory | OutOfMemoryError) or is_out_of_memory(error):
        return "out_of_memory"
    if isinstance(error, device_faults.DeviceFault):
        return "code" if error.is_of_code else "infrastructure"
    # The error of a process that died has Ray's type, and only its text names the memory monitor.
    if isinstance(error, RayError) and NO_MEMORY.search(str(error)):
        return "out_of_memory"
    if isinstance(error, RayActorError) and error.actor_init_failed:
        # The constructor of an actor only imports.
        return "code"
    if isinstance(error, RayError | RayTrainError | OSError | dist.DistError):
        return "infrastructure"
    # torch raises a bare RuntimeError for a lost peer.
    return "infrastructure" if type(error) is RuntimeError and LOST_PEER.search(str(error)) else "code"
