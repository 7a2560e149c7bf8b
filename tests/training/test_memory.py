"""What a training says when memory runs out: `pytest tests/training/test_memory.py`; in a sweep: `test_memory_sweep`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from dirtune.batch import Batch
from dirtune.data.cache import ResidentData
from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.models.regressor import RegressorOutput
from dirtune.training.distributed import Ranks
from dirtune.training.loop import epochs
from dirtune.training.memory import is_out_of_memory
from dirtune.training.objective import Loss, TrainingLoss
from dirtune.training.state import begin
from dirtune.training.trial import TrialRun
from tests.training.runs import Configure, finish, job_of, same, tables, trained, weights_of

VIEWS = {"count": 2, "augmentation": "none"}
Provoke = Callable[[Callable[[Batch], bool]], None]


@pytest.fixture
def no_memory_for(monkeypatch: pytest.MonkeyPatch) -> Provoke:
    """Makes the loss of some batches ask torch for four petabytes."""
    usual = TrainingLoss.forward

    def provoke(is_too_large: Callable[[Batch], bool]) -> None:
        def forward(self: TrainingLoss, output: RegressorOutput, batch: Batch, ranks: Ranks) -> Loss:
            if is_too_large(batch):
                torch.empty(10**15)
            return usual(self, output, batch, ranks)

        monkeypatch.setattr(TrainingLoss, "forward", forward)

    return provoke


def test_the_batch_that_did_not_fit_is_named_in_one_sentence(
    configuration: Configure, toy: ResidentData, no_memory_for: Provoke
) -> None:
    no_memory_for(lambda batch: len(batch.rows) > 32)
    config = configuration(recipe={"views": VIEWS})
    with pytest.raises(OutOfMemory) as caught:
        next(epochs(begin(config, toy)))
    assert str(caught.value) == (
        "out of memory at epoch 1, step 1: a batch of 64 rows x 2 views, 64 rows at a time, "
        "4000000000000000 bytes asked for"
    )
    assert caught.value.epoch == 1
    assert "can't allocate memory" in str(caught.value.__cause__)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.epoch) == (str(caught.value), 1)


def test_the_last_batch_of_a_later_epoch_is_named_with_the_rows_that_it_has(
    configuration: Configure, toy: ResidentData, no_memory_for: Provoke
) -> None:
    training = begin(configuration(recipe={"accumulation": 4}), toy)
    run = epochs(training)
    next(run)
    # 202 = 3 * 64 + 10
    no_memory_for(lambda batch: len(batch.rows) == 10)
    with pytest.raises(OutOfMemory) as caught:
        next(run)
    assert str(caught.value).startswith(
        "out of memory at epoch 2, step 4: a batch of 10 rows x 1 view, 10 rows at a time"
    )


def test_any_other_error_of_a_step_stays_as_it_is(
    configuration: Configure, toy: ResidentData, no_memory_for: Provoke
) -> None:
    no_memory_for(lambda batch: 1 / 0 > 1)
    with pytest.raises(ZeroDivisionError):
        next(epochs(begin(configuration(), toy)))


def test_what_asks_for_more_than_there_is_has_one_of_these_forms() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."))
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory, says a value"))
    assert not is_out_of_memory(NotImplementedError("no kernel for out of memory tensors"))


def test_a_trial_with_more_micro_batches_trains_as_a_configuration_that_has_them(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job = replace(job_of(configuration(), toy), accumulation=4)
    assert job.as_run == configuration(recipe={"accumulation": 4})
    trial = finish(TrialRun(job, toy, study))
    assert same(weights_of(trial.training), weights_of(trained(job.as_run, toy)))
    (row,) = tables(study)["trials"]
    assert row["trial_id"] == configuration().trial_id(toy.manifest.fingerprint)
    assert (row["accumulation_used"], row["config.recipe.accumulation"]) == (4, 1)


def test_a_trial_as_it_was_planned_records_the_micro_batches_of_its_configuration(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job = job_of(configuration(recipe={"accumulation": 2}), toy)
    assert job.as_run == job.config
    finish(TrialRun(job, toy, study))
    (row,) = tables(study)["trials"]
    assert (row["accumulation_used"], row["config.recipe.accumulation"]) == (2, 2)
