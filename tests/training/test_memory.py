"""What a training says when memory runs out: `pytest tests/training/test_memory.py`; in a sweep: `test_memory_sweep`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dirtune.batch import Batch, Inputs
from dirtune.data.cache import ResidentData
from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.models.regressor import RegressorOutput
from dirtune.training.batch_limit import BatchLimit, is_out_of_memory
from dirtune.training.distributed import Ranks
from dirtune.training.evaluation import evaluate_last_and_best, predict
from dirtune.training.loop import run_epochs
from dirtune.training.memory import suggest_accumulation
from dirtune.training.objective import Loss, TrainingLoss
from dirtune.training.stages import Stage
from dirtune.training.state import begin_training
from dirtune.training.trial import TrialRun
from tests.training.runs import Configure, job_of

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
        next(run_epochs(begin_training(config, toy)))
    assert str(caught.value) == (
        "out of memory at epoch 1, step 1: a batch of 64 rows x 2 views, 64 rows at a time, "
        "4000000000000000 bytes requested; try recipe.accumulation: 2, which has 32 rows at a time"
    )
    assert caught.value.epoch == 1
    assert "can't allocate memory" in str(caught.value.__cause__)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.epoch) == (str(caught.value), 1)


def test_the_last_batch_of_a_later_epoch_is_named_with_the_rows_that_it_has(
    configuration: Configure, toy: ResidentData, no_memory_for: Provoke
) -> None:
    training = begin_training(configuration(recipe={"accumulation": 4}), toy)
    run = run_epochs(training)
    next(run)
    # 202 = 3 * 64 + 10
    no_memory_for(lambda batch: len(batch.rows) == 10)
    with pytest.raises(OutOfMemory) as caught:
        next(run)
    assert str(caught.value).startswith(
        "out of memory at epoch 2, step 4: a batch of 10 rows x 1 view, 10 rows at a time"
    )
    assert str(caught.value).endswith("; try recipe.accumulation: 8, which has 8 rows at a time")


def test_no_accumulation_is_suggested_that_leaves_a_worker_less_than_two_rows(configuration: Configure) -> None:
    for batch_size, workers, expected in ((8, 1, 2), (8, 2, 2), (8, 4, None), (7, 1, None), (90, 1, 2)):
        config = configuration(recipe={"batch_size": batch_size})
        advice = suggest_accumulation(Stage(start=0, passes_before=0, config=config), workers=workers)
        if expected is None:
            assert advice == "no larger recipe.accumulation leaves two rows for each worker"
        else:
            assert advice == (f"try recipe.accumulation: {expected}, which has {batch_size // expected} rows at a time")


def test_no_accumulation_is_suggested_for_a_loss_of_whole_batches(configuration: Configure) -> None:
    config = configuration(recipe={"batch_size": 8}, loss={"name": "bmc"})
    advice = suggest_accumulation(Stage(start=0, passes_before=0, config=config), workers=1)
    assert advice == "the regression loss needs whole batches, so that only a smaller recipe.batch_size helps"


def test_any_other_error_of_a_step_stays_as_it_is(
    configuration: Configure, toy: ResidentData, no_memory_for: Provoke
) -> None:
    no_memory_for(lambda batch: 1 / 0 > 1)
    with pytest.raises(ZeroDivisionError):
        next(run_epochs(begin_training(configuration(), toy)))


def test_out_of_memory_errors_have_one_of_these_forms() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."))
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory, says a value"))
    assert not is_out_of_memory(NotImplementedError("no kernel for out of memory tensors"))


@pytest.fixture
def eval_rows(configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the encoder, in evaluation mode, ask torch for four petabytes for more rows than the first number of this list."""
    kind = type(begin_training(configuration(), toy).model.encoder)
    usual, most = kind.forward, [1000]

    def forward(self: nn.Module, inputs: Inputs) -> Tensor:
        if not self.training and len(inputs["vector"]) > most[0]:
            torch.empty(10**15)
        result: Tensor = usual(self, inputs)
        return result

    monkeypatch.setattr(kind, "forward", forward)
    return most


@pytest.mark.slow
def test_an_evaluation_batch_that_does_not_fit_is_halved_with_the_same_results(
    configuration: Configure, toy: ResidentData, eval_rows: list[int]
) -> None:
    config = configuration(reweighting={"fds": {}}, recipe={"epochs": 2})

    def run() -> tuple[list[dict[str, float]], torch.Tensor, list[dict[str, object]]]:
        training = begin_training(config, toy)
        list(run_epochs(training))
        predictions = torch.from_numpy(predict(training, "test"))
        return training.history, predictions, evaluate_last_and_best(training, representations=4).metrics

    history, predictions, metrics = run()
    eval_rows[0] = 60
    again = run()
    assert [list(epoch.values()) for epoch in again[0]] == [pytest.approx(list(epoch.values())) for epoch in history]
    torch.testing.assert_close(again[1], predictions)
    assert [row["value"] for row in again[2]] == pytest.approx([row["value"] for row in metrics], nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(("fds", "phase"), [(None, "validation"), ({}, "feature smoothing")])
def test_a_phase_in_which_not_even_one_row_fits_is_named(
    configuration: Configure, toy: ResidentData, eval_rows: list[int], fds: dict[str, object] | None, phase: str
) -> None:
    training = begin_training(configuration(reweighting={"fds": fds}), toy)
    epochs = run_epochs(training)
    next(epochs)
    eval_rows[0] = 0
    with pytest.raises(
        OutOfMemory, match=rf"^out of memory in the {phase} of epoch 2, 4000000000000000 bytes req"
    ) as caught:
        next(epochs)
    assert caught.value.epoch == 2


@pytest.mark.slow
def test_a_final_evaluation_without_memory_is_named(
    configuration: Configure, toy: ResidentData, eval_rows: list[int], tmp_path: Path
) -> None:
    config = configuration(recipe={"epochs": 1})
    trial = TrialRun(job_of(config, toy), toy, Storage.open(tmp_path))
    next(run_epochs(trial.training))
    eval_rows[0] = 0
    with pytest.raises(OutOfMemory, match=r"^out of memory in the final evaluation of epoch 1, "):
        trial.step()


def test_parts_of_a_batch_cover_its_rows_once_and_other_errors_pass() -> None:
    limit, seen = BatchLimit(), list[slice]()

    def take(part: slice) -> range:
        if part.stop - part.start > 3:
            raise RuntimeError("CUDA out of memory")
        seen.append(part)
        return range(part.start, part.stop)

    assert [row for part in limit.map_parts(take, 10) for row in part] == list(range(10))
    assert max(part.stop - part.start for part in seen) == limit.rows == 2
    # The next batch starts with what has fitted.
    seen.clear()
    assert len(limit.map_parts(take, 5)) == len(seen) == 3
    assert limit.map_parts(take, 0) == [range(0)]

    def fail(part: slice) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        limit.map_parts(fail, 4)
