"""Classes of failures: `pytest tests/tuning/execution/test_failures.py`."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

from dirtune.config import TrialConfig
from dirtune.errors import NonFiniteLoss, OutOfMemory
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_statuses, write_record
from dirtune.training.trial import Progress, TrialJob
from dirtune.tuning.execution.failures import (
    CodeError,
    find_memory_failure,
    get_error_class,
    get_final_failure,
    get_reason,
    make_failed_record,
)

CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB."
PEER = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"
TOO_LARGE = OutOfMemory("out of memory at epoch 2, step 1: a batch of 64 rows", 2)
PRESSURE = "Task was killed due to the node running low on memory."


def raised_in_a_task(cause: Exception) -> RayTaskError:
    """As it arrives at a driver."""
    return RayTaskError("train", f"Traceback\n{cause!r}", cause).as_instanceof_cause()


def raised_on_ranks(*failures: Exception) -> RayTaskError:
    return raised_in_a_task(WorkerGroupError("two ranks", dict(enumerate(failures))))


CASES: dict[str, tuple[BaseException, str]] = {
    "a loss that is not finite": (raised_in_a_task(NonFiniteLoss("conr", 2, 7)), "nan"),
    "no GPU memory": (raised_in_a_task(torch.OutOfMemoryError(CUDA)), "out_of_memory"),
    "no GPU memory, told by text": (raised_in_a_task(RuntimeError(CUDA)), "out_of_memory"),
    "a batch without memory": (raised_in_a_task(TOO_LARGE), "out_of_memory"),
    "no host memory": (raised_in_a_task(MemoryError()), "out_of_memory"),
    "no host memory for a tensor": (
        raised_in_a_task(RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        "out_of_memory",
    ),
    "killed by the memory monitor": (OutOfMemoryError(PRESSURE), "out_of_memory"),
    "an actor killed by the memory monitor": (RayActorError(None, PRESSURE), "out_of_memory"),
    "the worker died": (ActorDiedError(), "infrastructure"),
    "a task's process died": (WorkerCrashedError(), "infrastructure"),
    "a module that cannot be imported": (ActorDiedError(RayTaskError("f", "Traceback", ImportError("no"))), "code"),
    "the node died": (NodeDiedError("gone"), "infrastructure"),
    "a full disk": (raised_in_a_task(OSError(28, "No space left on device")), "infrastructure"),
    "the network": (raised_in_a_task(ConnectionResetError()), "infrastructure"),
    "torch's network": (raised_in_a_task(dist.DistNetworkError("timeout")), "infrastructure"),
    "a peer, told by text": (raised_in_a_task(RuntimeError(PEER)), "infrastructure"),
    "a mistake": (raised_in_a_task(ValueError("out of memory, says a value")), "code"),
    "shapes": (raised_in_a_task(RuntimeError("mat1 and mat2 cannot be multiplied")), "code"),
    "one rank out of memory": (raised_on_ranks(RuntimeError(PEER), torch.OutOfMemoryError(CUDA)), "out_of_memory"),
    "one rank dead": (raised_on_ranks(RuntimeError("odd"), ActorDiedError()), "infrastructure"),
    "a rank that is not reached, because it died": (
        raised_on_ranks(WorkerHealthCheckFailedError("no answer", ActorDiedError()), RuntimeError("odd")),
        "infrastructure",
    ),
    "a rank that is not reached, because the memory monitor killed it": (
        raised_on_ranks(WorkerHealthCheckFailedError("no answer", OutOfMemoryError(PRESSURE))),
        "out_of_memory",
    ),
    "an answer of a rank that cannot be read": (
        raised_on_ranks(WorkerHealthCheckFailedError("no answer", raised_in_a_task(TypeError("pickle")))),
        "code",
    ),
    "a group that does not start": (WorkerGroupStartupTimeoutError(2), "infrastructure"),
    "one rank's mistake": (raised_on_ranks(KeyError("x"), RuntimeError("odd")), "code"),
    "the group's controller": (raised_in_a_task(ControllerError(ActorDiedError())), "infrastructure"),
    "nobody knows": (RuntimeError("the worker died"), "code"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_ended_a_trial_has_a_class(name: str) -> None:
    error, expected = CASES[name]
    assert get_error_class(error) == expected


def test_the_class_survives_the_way_through_a_file() -> None:
    error = raised_on_ranks(RuntimeError(PEER), torch.OutOfMemoryError(CUDA))
    plain = RayTaskError("train", "Traceback", error.cause)  # type: ignore[attr-defined]
    assert get_error_class(pickle.loads(pickle.dumps(plain))) == "out_of_memory"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Traceback:\n  line 1\nValueError: no. It is not"), "ValueError: no"),
        (RuntimeError("one line"), "one line"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_reason_is_one_sentence(error: BaseException, expected: str) -> None:
    assert get_reason(error) == expected


def test_what_another_worker_would_meet_as_well_is_final() -> None:
    found = get_final_failure(raised_on_ranks(RuntimeError(PEER), TOO_LARGE))
    assert (type(found), str(found)) == (OutOfMemory, str(TOO_LARGE))
    assert isinstance(get_final_failure(raised_in_a_task(ValueError("odd"))), CodeError)
    assert get_final_failure(ActorDiedError()) is None
    # Outside of a step no batch is to blame
    assert get_final_failure(torch.OutOfMemoryError(CUDA)) is None


def test_what_a_driver_is_told_holds_no_frame_of_what_was_raised() -> None:
    try:
        raise TOO_LARGE from RuntimeError("no memory")
    except OutOfMemory as error:
        found = get_final_failure(error)
    assert found is not None
    assert (found.__traceback__, found.__cause__, found.__context__) == (None, None, None)


def test_a_batch_that_was_too_large_is_found_among_what_its_ranks_raised() -> None:
    found = find_memory_failure(raised_on_ranks(RuntimeError(PEER), TOO_LARGE), job(), None)
    assert str(found) == str(TOO_LARGE)
    for error in (torch.OutOfMemoryError(CUDA), ActorDiedError(), MemoryError(), ValueError("no")):
        assert find_memory_failure(raised_in_a_task(error), job(), None) is None


@pytest.mark.parametrize("error", [OutOfMemoryError(PRESSURE), RayActorError(None, PRESSURE)])
@pytest.mark.parametrize("epochs", [None, 4])
def test_of_a_worker_that_the_node_has_killed_the_epoch_is_known(error: Exception, epochs: int | None) -> None:
    progress = None if epochs is None else Progress(trial={"epochs_run": epochs}, config={})
    found = find_memory_failure(error, job(accumulation=4), progress, workers=2)
    assert found is not None
    assert found.epoch == (epochs or 0) + 1
    assert str(found) == (
        f"out of memory in epoch {found.epoch}: a batch of 128 rows x 1 view, 32 rows at a time; "
        "the worker was killed because its node ran low on memory; "
        "try recipe.accumulation: 8, which has 16 rows at a time"
    )


def test_a_trial_that_ran_out_of_memory_is_recorded_with_its_batch() -> None:
    begun = datetime(2026, 1, 2, tzinfo=UTC)
    row = make_failed_record(job(), None, TOO_LARGE, fingerprint="f", started_at=begun).trial
    assert (row["error"], row["error_class"]) == (str(TOO_LARGE), "out_of_memory")
    assert row["error_epoch"] == 2


def job(**recipe: Any) -> TrialJob:
    plain: dict[str, Any] = {
        "data": {"name": "toy"},
        "model": {"encoder": {"name": "mlp", "hidden": [4]}},
        "seed": 3,
        "recipe": {"epochs": 7, **recipe},
    }
    return TrialJob(study="s", arm="conr", replicate=1, trial_id="t", config=read(TrialConfig, plain, where=""))


def test_a_trial_that_never_ended_an_epoch_is_recorded_as_what_was_handed_out() -> None:
    begun = datetime(2026, 1, 2, tzinfo=UTC)
    made = make_failed_record(job(), None, ActorDiedError(), fingerprint="f", started_at=begun)
    expected = {
        "study": "s",
        "arm": "conr",
        "role": "evaluation",
        "replicate": 1,
        "seed": 3,
        "status": "failed",
        "epochs_run": 0,
        "error_class": "infrastructure",
        "epochs_planned": 7,
        "data": "toy",
        "data_fingerprint": "f",
        "started_at": begun,
    }
    assert {name: made.trial[name] for name in expected} == expected
    assert str(made.trial["error"]).startswith("The actor died unexpectedly")


def test_a_failure_has_the_progress_that_the_trial_had_made(tmp_path: Any) -> None:
    progress = Progress(
        trial={"trial_id": "t", "epochs_run": 4, "started_at": "2026-01-02T00:00:00+00:00"},
        config={"seed": 3},
        epochs=[{"loss": 1.0}],
    )
    now = datetime.now(UTC)
    made = make_failed_record(job(), progress, ValueError("odd"), fingerprint="f", started_at=now)
    assert (made.trial["epochs_run"], made.trial["error_class"]) == (4, "code")
    assert made.epochs == [{"loss": 1.0}]
    write_record(Storage.open(tmp_path), made)
    assert read_statuses(Storage.open(tmp_path)) == {"t": "failed"}
