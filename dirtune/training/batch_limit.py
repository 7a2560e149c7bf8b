"""Evaluation batches that follow the memory: one that does not fit is halved, again and again, down to one row.

Rows are independent in evaluation mode, so that the results are the same. A training batch is never halved: its statistics and
pairs are part of the method.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from dirtune.batch import Inputs
from dirtune.data.memory_budget import return_freed_memory
from dirtune.errors import NO_MEMORY

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that the GPU or the host ran out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Other subclasses may quote any text; AcceleratorError is raised by torch for errors of CUDA itself.
    is_plain = type(error) is RuntimeError or isinstance(error, torch.AcceleratorError)
    return is_plain and NO_MEMORY.search(str(error)) is not None


class BatchLimit:
    """Largest number of rows that have fitted into memory so far; None means that all have."""

    def __init__(self) -> None:
        self.rows: int | None = None

    def map_parts(self, function: Callable[[slice], Result], rows: int) -> list[Result]:
        """Return `function` of consecutive slices of a batch: of the whole batch, or of as many rows as fit into memory.

        Raises:
            Exception: one row does not fit either; the error of `function`.
        """
        results: list[Result] = []
        start, size = 0, min(self.rows or rows, rows)
        while start < rows or not results:
            try:
                results.append(function(slice(start, min(start + size, rows))))
            except Exception as error:
                if size <= 1 or not is_out_of_memory(error):
                    raise
            else:
                start += size
                continue
            # Outside of the handler, whose exception would keep the tensors of its frames in memory.
            return_freed_memory()
            self.rows = size = size // 2
        return results


def select_part(inputs: Inputs, part: slice) -> Inputs:
    """Return consecutive rows of a batch, without a copy."""
    return {name: values[part] for name, values in inputs.items()}


def count_rows(inputs: Inputs) -> int:
    """Return the number of rows of a batch."""
    return len(next(iter(inputs.values())))
