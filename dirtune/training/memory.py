"""What a training says when memory runs out in one of its steps: the batch that did it, and what the device has given.

Libraries say only how much they asked for last. What a user can change is the batch, so that is named first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dirtune.errors import OutOfMemory
from dirtune.recipe import Recipe
from dirtune.training.objective import LossMeans
from dirtune.training.state import Training

NO_MEMORY = re.compile(r"out of memory|low on memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
"""What the text of an error has in it whose type does not tell: torch's of the CPU and of cuBLAS, and Ray's."""

_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
_GIB = 2**30


@contextmanager
def naming_the_batch(training: Training, means: LossMeans) -> Iterator[None]:
    """Around the steps of an epoch: an error that says there is no memory becomes one that names the step's batch.

    Args:
        means: of the steps of the epoch so far.

    Raises:
        OutOfMemory: memory ran out while a batch was made, went through the model and back, or moved the weights.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        step = means.steps + 1
        place = f"out of memory at epoch {means.epoch}, step {step}"
        batch = batch_text(training.config.recipe, rows=_rows_in(training, step), views=training.stage.views.count)
        advice = suggest_accumulation(training.config.recipe, workers=training.ranks.world)
        said = f"{place}: {batch}{_asked_for(error)}{_reserved(training.data.device)}; {advice}"
        raise OutOfMemory(said, means.epoch) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a process was refused memory, on the GPU or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Of subclasses, whose texts may quote anything, only the one that torch raises for what CUDA itself refuses.
    is_bare = type(error) is RuntimeError or isinstance(error, torch.AcceleratorError)
    return is_bare and NO_MEMORY.search(str(error)) is not None


def batch_text(recipe: Recipe, *, rows: int, views: int) -> str:
    """A batch in words: its size, and how much of it the model sees at once."""
    seen = f"{views} view{'s' * (views > 1)}, {min(rows, recipe.micro_batch)} rows at a time"
    return f"a batch of {rows} rows x {seen}"


def suggest_accumulation(recipe: Recipe, *, workers: int) -> str:
    """Return which `recipe.accumulation` to try after a batch did not fit into memory, as the end of a sentence.

    Args:
        workers: ranks that share a micro-batch; each keeps two rows at least, for batch normalization and pair terms.
    """
    pieces = recipe.find_next_accumulation(least=2 * workers)
    if pieces is None:
        return "no larger recipe.accumulation leaves two rows for each worker"
    return f"try recipe.accumulation: {pieces}, which has {recipe.batch_size // pieces} rows at a time"


def _rows_in(training: Training, step: int) -> int:
    """Rows of the global batch of a step, counted from 1; the last one of an epoch may have fewer."""
    size = training.config.recipe.batch_size
    return min(size, len(training.data.splits["train"]) - (step - 1) * size)


def _asked_for(error: BaseException) -> str:
    found = _ASKED.search(str(error))
    return f", {found[1]} asked for" if found else ""


def _reserved(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    reserved = torch.cuda.memory_reserved(device) / _GIB
    total = torch.cuda.get_device_properties(device).total_memory / _GIB
    return f"; this process has reserved {reserved:.1f} of the GPU's {total:.1f} GiB"
