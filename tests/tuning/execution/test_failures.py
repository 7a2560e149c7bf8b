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
from dirtune.training.batch_limit import is_out_of_memory
from dirtune.training.trial import Progress, TrialJob
from dirtune.tuning.execution.device_faults import DeviceFault, GpuPlace, is_device_fault
from dirtune.tuning.execution.failures import (
    CodeError,
    find_device_fault,
    find_memory_failure,
    get_error_class,
    get_final_failure,
    get_reason,
    make_failed_record,
)

PLACE = GpuPlace("a1", "north", "3")
CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB."
PEER = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"
TOO_LARGE = OutOfMemory("out of memory at epoch 2, step 1: a batch of 64 rows", 2)
PRESSURE = "Task was killed due to the node running low on memory."


def make_task_error(cause: Exception) -> RayTaskError:
    """Return the error of a task as the driver receives it."""
    return RayTaskError("train", f"Traceback\n{cause!r}", cause).as_instanceof_cause()


def make_group_error(*failures: Exception) -> RayTaskError:
    return make_task_error(WorkerGroupError("two ranks", dict(enumerate(failures))))


CASES: dict[str, tuple[BaseException, str]] = {
    "a loss that is not finite": (make_task_error(NonFiniteLoss("conr", 2, 7)), "nan"),
    "no GPU memory": (make_task_error(torch.OutOfMemoryError(CUDA)), "out_of_memory"),
    "no GPU memory, told by text": (make_task_error(RuntimeError(CUDA)), "out_of_memory"),
    "a batch without memory": (make_task_error(TOO_LARGE), "out_of_memory"),
    "no host memory": (make_task_error(MemoryError()), "out_of_memory"),
    "no host memory for a tensor": (
        make_task_error(RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        "out_of_memory",
    ),
    "killed by the memory monitor": (OutOfMemoryError(PRESSURE), "out_of_memory"),
    "an actor killed by the memory monitor": (RayActorError(None, PRESSURE), "out_of_memory"),
    "the worker died": (ActorDiedError(), "infrastructure"),
    "a task's process died": (WorkerCrashedError(), "infrastructure"),
    "a module that cannot be imported": (ActorDiedError(RayTaskError("f", "Traceback", ImportError("no"))), "code"),
    "the node died": (NodeDiedError("gone"), "infrastructure"),
    "a full disk": (make_task_error(OSError(28, "No space left on device")), "infrastructure"),
    "the network": (make_task_error(ConnectionResetError()), "infrastructure"),
    "torch's network": (make_task_error(dist.DistNetworkError("timeout")), "infrastructure"),
    "a peer, told by text": (make_task_error(RuntimeError(PEER)), "infrastructure"),
    "a mistake": (make_task_error(ValueError("out of memory, says a value")), "code"),
    "shapes": (make_task_error(RuntimeError("mat1 and mat2 cannot be multiplied")), "code"),
    "one rank out of memory": (make_group_error(RuntimeError(PEER), torch.OutOfMemoryError(CUDA)), "out_of_memory"),
    "a GPU": (make_task_error(DeviceFault(PLACE, "CUDA error: uncorrectable ECC error encountered")), "infrastructure"),
    "a GPU of a group": (
        make_group_error(RuntimeError(PEER), DeviceFault(PLACE, "CUDA driver error")),
        "infrastructure",
    ),
    "a check in a kernel": (make_task_error(DeviceFault(PLACE, "CUDA error: device-side assert triggered")), "code"),
    "no kernel for it": (make_task_error(DeviceFault(PLACE, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")), "code"),
    "one rank dead": (make_group_error(RuntimeError("odd"), ActorDiedError()), "infrastructure"),
    "a rank that is not reached, because it died": (
        make_group_error(WorkerHealthCheckFailedError("no answer", ActorDiedError()), RuntimeError("odd")),
        "infrastructure",
    ),
    "a rank that is not reached, because the memory monitor killed it": (
        make_group_error(WorkerHealthCheckFailedError("no answer", OutOfMemoryError(PRESSURE))),
        "out_of_memory",
    ),
    "an answer of a rank that cannot be read": (
        make_group_error(WorkerHealthCheckFailedError("no answer", make_task_error(TypeError("pickle")))),
        "code",
    ),
    "a group that does not start": (WorkerGroupStartupTimeoutError(2), "infrastructure"),
    "one rank's mistake": (make_group_error(KeyError("x"), RuntimeError("odd")), "code"),
    "the group's controller": (make_task_error(ControllerError(ActorDiedError())), "infrastructure"),
    "nobody knows": (RuntimeError("the worker died"), "code"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_error_has_a_class(name: str) -> None:
    error, expected = CASES[name]
    assert get_error_class(error) == expected


def test_the_class_of_an_error_survives_pickling() -> None:
    error = make_group_error(RuntimeError(PEER), torch.OutOfMemoryError(CUDA))
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


def test_a_failure_that_a_retry_would_repeat_is_final() -> None:
    found = get_final_failure(make_group_error(RuntimeError(PEER), TOO_LARGE))
    assert (type(found), str(found)) == (OutOfMemory, str(TOO_LARGE))
    assert isinstance(get_final_failure(make_task_error(ValueError("odd"))), CodeError)
    assert get_final_failure(ActorDiedError()) is None
    # Outside of a step no batch is to blame
    assert get_final_failure(torch.OutOfMemoryError(CUDA)) is None


def test_a_final_failure_holds_no_frame_of_the_raised_error() -> None:
    try:
        raise TOO_LARGE from RuntimeError("no memory")
    except OutOfMemory as error:
        found = get_final_failure(error)
    assert found is not None
    assert (found.__traceback__, found.__cause__, found.__context__) == (None, None, None)


def test_a_batch_that_was_too_large_is_found_among_the_errors_of_the_ranks() -> None:
    found = find_memory_failure(make_group_error(RuntimeError(PEER), TOO_LARGE), make_job(), None)
    assert str(found) == str(TOO_LARGE)
    for error in (torch.OutOfMemoryError(CUDA), ActorDiedError(), MemoryError(), ValueError("no")):
        assert find_memory_failure(make_task_error(error), make_job(), None) is None


@pytest.mark.parametrize("error", [OutOfMemoryError(PRESSURE), RayActorError(None, PRESSURE)])
@pytest.mark.parametrize("epochs", [None, 4])
def test_the_error_of_a_worker_that_its_node_killed_names_the_epoch_and_the_batch(
    error: Exception, epochs: int | None
) -> None:
    progress = None if epochs is None else Progress(trial={"epochs_run": epochs}, config={})
    found = find_memory_failure(error, make_job(accumulation=4), progress, workers=2)
    assert found is not None
    assert found.epoch == (epochs or 0) + 1
    assert str(found) == (
        f"out of memory in epoch {found.epoch}: a batch of 128 rows x 1 view, 32 rows at a time; "
        "the worker was killed because its node ran low on memory; "
        "try recipe.accumulation: 8, which has 16 rows at a time"
    )


def test_a_trial_that_ran_out_of_memory_is_recorded_with_its_batch() -> None:
    begun = datetime(2026, 1, 2, tzinfo=UTC)
    row = make_failed_record(make_job(), None, TOO_LARGE, fingerprint="f", started_at=begun).trial
    assert (row["error"], row["error_class"]) == (str(TOO_LARGE), "out_of_memory")
    assert row["error_epoch"] == 2


def make_job(**recipe: Any) -> TrialJob:
    plain: dict[str, Any] = {
        "data": {"name": "toy"},
        "model": {"encoder": {"name": "mlp", "hidden": [4]}},
        "seed": 3,
        "recipe": {"epochs": 7, **recipe},
    }
    return TrialJob(study="s", arm="conr", replicate=1, trial_id="t", config=read(TrialConfig, plain, where=""))


def test_a_trial_without_a_first_epoch_is_recorded_from_its_job() -> None:
    begun = datetime(2026, 1, 2, tzinfo=UTC)
    made = make_failed_record(make_job(), None, ActorDiedError(), fingerprint="f", started_at=begun)
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


def test_the_record_of_a_failed_trial_has_its_progress(tmp_path: Any) -> None:
    progress = Progress(
        trial={"trial_id": "t", "epochs_run": 4, "started_at": "2026-01-02T00:00:00+00:00"},
        config={"seed": 3},
        epochs=[{"loss": 1.0}],
    )
    now = datetime.now(UTC)
    made = make_failed_record(make_job(), progress, ValueError("odd"), fingerprint="f", started_at=now)
    assert (made.trial["epochs_run"], made.trial["error_class"]) == (4, "code")
    assert made.epochs == [{"loss": 1.0}]
    write_record(Storage.open(tmp_path), made)
    assert read_statuses(Storage.open(tmp_path)) == {"t": "failed"}


def test_a_fault_of_a_gpu_is_told_from_errors_of_code_and_lack_of_memory() -> None:
    faults = [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "No CUDA GPUs are available",
        "No HIP GPUs are available",
        "HIP error: an illegal memory access was encountered",
        "miopenStatusUnknownError",
        "The NVIDIA driver on your system is too old (found version 12040).",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA driver error: unknown error",
    ]
    assert all(is_device_fault(RuntimeError(text)) for text in faults)
    assert is_device_fault(torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"))
    assert is_device_fault(AssertionError("Torch not compiled with CUDA enabled"))
    memory = [
        CUDA,
        "cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED",
        "FIND was unable to find an engine to execute this computation",
    ]
    assert all(is_out_of_memory(RuntimeError(text)) for text in memory)
    others = [*memory, "mat1 and mat2 shapes cannot be multiplied"]
    assert not any(is_device_fault(RuntimeError(text)) for text in others)
    assert not is_device_fault(ValueError(faults[0]))


def test_a_fault_of_a_gpu_names_its_place_in_the_driver_too() -> None:
    fault = pickle.loads(pickle.dumps(DeviceFault(PLACE, "CUDA error: unknown error")))
    assert str(fault) == "GPU 3 of north: CUDA error: unknown error"
    found = find_device_fault(make_group_error(RuntimeError(PEER), fault))
    assert found is not None
    assert found.place == PLACE
    assert find_device_fault(make_task_error(OSError())) is None
