"""Out-of-memory errors of training steps, with the batch that caused them and the memory that the process has reserved.

Libraries report only the size of the last allocation. A user can change the batch, so it comes first.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dirtune.errors import OutOfMemory
from dirtune.recipe import Recipe
from dirtune.training import objective, state

NO_MEMORY = re.compile(r"out of memory|low on memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
"""Text of out-of-memory errors without a type of their own: torch's of the CPU and of cuBLAS, and Ray's."""

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
        advice = suggest_accumulation(training.stage.recipe, workers=training.ranks.world)
        allocation = _ALLOCATION.search(str(error))
        requested = f", {allocation[1]} requested" if allocation else ""
        reserved, device = "", training.data.device
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory / _GIB
            of_process = torch.cuda.memory_reserved(device) / _GIB
            reserved = f"; this process has reserved {of_process:.1f} of the GPU's {total:.1f} GiB"
        raise OutOfMemory(f"{place}: {batch}{requested}{reserved}; {advice}", means.epoch) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that the GPU or the host ran out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Other subclasses may quote any text; AcceleratorError is raised by torch for errors of CUDA itself.
    is_plain = type(error) is RuntimeError or isinstance(error, torch.AcceleratorError)
    return is_plain and NO_MEMORY.search(str(error)) is not None


def format_batch(recipe: Recipe, *, rows: int, views: int) -> str:
    """Format the size of a batch and that of its micro-batches."""
    at_once = f"{views} view{'s' * (views > 1)}, {min(rows, recipe.micro_batch)} rows at a time"
    return f"a batch of {rows} rows x {at_once}"


def suggest_accumulation(recipe: Recipe, *, workers: int) -> str:
    """Return which `recipe.accumulation` to try after a batch did not fit into memory, as the end of a sentence.

    Args:
        workers: ranks that share a micro-batch; each keeps two rows at least, for batch normalization and pair terms.
    """
    pieces = recipe.find_next_accumulation(least=2 * workers)
    if pieces is None:
        return "no larger recipe.accumulation leaves two rows for each worker"
    return f"try recipe.accumulation: {pieces}, which has {recipe.batch_size // pieces} rows at a time"
