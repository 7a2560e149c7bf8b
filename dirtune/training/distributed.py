"""Ranks of a training group, and the differentiable gather that makes a pairwise loss see the global batch.

Every rank evaluates the whole loss on the gathered rows. The backward of `Ranks.gather` sums the gradients of all ranks
for the local rows; DDP then averages the parameters' gradients over the ranks, and the two factors cancel: the result
is the gradient of the one-process loss on the global batch, for equal and for uneven shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process's rank in its training group, and the group's size; `Ranks()` is a single process."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """True on rank 0, which alone writes files."""
        return self.rank == 0

    def gather(
        self, rows: Shaped[Tensor, "local *rest"], counts: Sequence[int] | None = None
    ) -> Shaped[Tensor, "total *rest"]:
        """Gather the rows of all ranks, in the order of the ranks; differentiable; shares may be uneven.

        Args:
            rows: of this rank.
            counts: number of rows of each rank; None asks for them, in a collective of its own for which the host waits.
        """
        if self.world == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self.rank, self.world, counts)
        return gathered

    def gather_together(self, parts: Sequence[Tensor], counts: Sequence[int] | None = None) -> list[Tensor]:
        """Gather tensors with the same rows in one collective; otherwise as `gather`. Integers are exact below 2**53."""
        if self.world == 1:
            return list(parts)
        # A rank may have no rows.
        columns = [part.flatten(1) if part.ndim > 1 else part[:, None] for part in parts]
        dtypes = [part.dtype if part.is_floating_point() else torch.float64 for part in parts]
        dtype = reduce(torch.promote_types, dtypes)
        gathered = self.gather(torch.cat([each.to(dtype) for each in columns], dim=1), counts)
        by_part = gathered.split([each.shape[1] for each in columns], dim=1)
        return [
            each.to(part.dtype).reshape(len(gathered), *part.shape[1:])
            for each, part in zip(by_part, parts, strict=True)
        ]


class _Gather(torch.autograd.Function):
    """All-gather of uneven shares; backward sums the gradient over the ranks and keeps the local part."""

    @staticmethod
    def forward(context: Any, rows: Tensor, rank: int, world: int, counts: Sequence[int] | None) -> Tensor:
        if counts is None:
            sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world)]
            dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
            counts = [int(size) for size in sizes]
        # Collectives need equal shapes: pad to the largest share and cut afterwards.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        context.start = sum(counts[:rank])
        context.stop = context.start + len(rows)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        # A clone, because the collective writes in place and autograd may share the gradient with other nodes.
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[context.start : context.stop], None, None, None
