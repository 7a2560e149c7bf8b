"""Ranks of a training group, and the differentiable gather that makes a pairwise loss see the global batch.

Every rank evaluates the whole loss on the gathered rows. The backward of `Ranks.gather` sums the gradients of all ranks
for the local rows; DDP then averages the parameters' gradients over the ranks, and the two factors cancel: the result
is the gradient of the one-process loss on the global batch, for equal and for uneven shares.
"""

from dataclasses import dataclass
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

    def gather(self, rows: Shaped[Tensor, "local *rest"]) -> Shaped[Tensor, "total *rest"]:
        """Gather the rows of all ranks, in the order of the ranks; differentiable; shares may be uneven."""
        if self.world == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self.rank, self.world)
        return gathered


class _Gather(torch.autograd.Function):
    """All-gather of uneven shares; backward sums the gradient over the ranks and keeps the local part."""

    @staticmethod
    def forward(context: Any, rows: Tensor, rank: int, world: int) -> Tensor:
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
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # A clone, because the collective writes in place and autograd may share the gradient with other nodes.
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[context.start : context.stop], None, None
