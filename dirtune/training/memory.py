"""Out-of-memory errors of training steps, with the batch that caused them and the memory that the process has reserved.

Libraries report only the size of the last allocation. A user can change the batch, so it comes first.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dirtune.errors import OutOfMemory
from dirtune.losses.needs import Needs
from dirtune.recipe import Recipe
from dirtune.training import objective, state
from dirtune.training.batch_limit import is_out_of_memory
from dirtune.training.stages import Stage
from dirtune.wording import format_count

_ALLOCATION = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
_GIB = 2**30


@contextmanager
def name_batch_on_out_of_memory(training: state.Training, means: objective.LossMeans) -> Iterator[None]:
    """Convert an out-of-memory error in the steps of an epoch to one that names the step's batch.

    Args:
        training: the run.
        means: the loss means of the epoch's steps so far.

    Raises:
        OutOfMemory: memory ran out while a batch was loaded, in the forward or backward pass, or in the optimizer.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        step = means.steps + 1
        place = f"out of memory at epoch {means.epoch}, step {step}"
        rows = training.passes.count_rows_of_step(means.epoch, step)
        batch = format_batch(training.stage.recipe, rows=rows, views=training.stage.recipe.views.count)
        advice = suggest_accumulation(training.stage, workers=training.ranks.world)
        raise OutOfMemory(f"{place}: {batch}{_format_memory(training, error)}; {advice}", means.epoch) from error


@contextmanager
def name_phase_on_out_of_memory(training: state.Training, phase: str, epoch: int) -> Iterator[None]:
    """Convert an out-of-memory error outside of training steps to one that names its phase.

    Args:
        training: the run.
        phase: such as "validation".
        epoch: of the phase.

    Raises:
        OutOfMemory: memory ran out.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        advice = "evaluation takes as few rows at a time as it must, so only a smaller model or more memory helps"
        message = f"out of memory in the {phase} of epoch {epoch}{_format_memory(training, error)}; {advice}"
        raise OutOfMemory(message, epoch) from error


def _format_memory(training: state.Training, error: BaseException) -> str:
    """Format the memory that an error asked for and that this process has, as the middle of a sentence."""
    allocation, device = _ALLOCATION.search(str(error)), training.data.device
    requested = f", {allocation[1]} requested" if allocation else ""
    if device.type != "cuda":
        return requested
    total = torch.cuda.get_device_properties(device).total_memory / _GIB
    of_process = torch.cuda.memory_reserved(device) / _GIB
    return f"{requested}; this process has reserved {of_process:.1f} of the GPU's {total:.1f} GiB"


def format_batch(recipe: Recipe, *, rows: int, views: int) -> str:
    """Format the size of a batch and that of its micro-batches."""
    at_once = f"{format_count(views, 'view')}, {format_count(min(rows, recipe.micro_batch), 'row')} at a time"
    return f"a batch of {format_count(rows, 'row')} x {at_once}"


def suggest_accumulation(stage: Stage, *, workers: int) -> str:
    """Return which `recipe.accumulation` to try after a batch did not fit into memory, as the end of a sentence.

    Args:
        stage: the stage of the trial.
        workers: ranks that share a micro-batch; each keeps two rows at least, for batch normalization and pair terms.
    """
    recipe = stage.recipe
    needs: Needs = getattr(stage.config.loss, "needs", Needs())
    if needs.whole_batches and stage.trains_predictor:
        return "the regression loss needs whole batches, so that only a smaller recipe.batch_size helps"
    pieces = recipe.find_next_accumulation(least=2 * workers)
    if pieces is None:
        return "no larger recipe.accumulation leaves two rows for each worker"
    return f"try recipe.accumulation: {pieces}, which has {recipe.batch_size // pieces} rows at a time"
