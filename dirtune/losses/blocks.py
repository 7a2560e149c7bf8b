"""Sums over anchors, evaluated a block of anchors at a time: a pairwise loss without the pair matrices of a whole batch.

A loss over pairs is a sum over its anchors, and an anchor needs its own row of the pair matrix only. Above a size, each
block's gradient is therefore computed together with its value and only the sums are kept, which makes memory linear in
the number of rows. Below it, one block holds everything and autograd works as usual.

Trade-offs: the blocked form has first derivatives only, its gradient is computed even if nobody asks for it, and under
`torch.compile` it runs uncompiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Block = Callable[..., Tensor]
"""Maps a slice of anchors, and the tensors given to `sum_over_anchors`, to the scalar sum of those anchors' losses."""

BLOCK_ANCHORS = 256
"""Anchors that one block may have. On a CPU, fewer make a block's fixed costs felt, more leave its caches."""

BLOCK_ENTRIES = 1 << 20
"""Entries of the pair matrix that one block may have; the tighter bound above 4,096 rows."""


def sum_over_anchors(block: Block, *tensors: Tensor) -> Tensor:
    """The sum of `block(anchors, *tensors)` over blocks of anchors that cover all rows of the first tensor.

    Args:
        block: what one block adds. It may use other tensors too, but gradients reach `tensors` alone.
        tensors: differentiable; the first has one row per anchor.
    """
    rows = len(tensors[0])
    size = min(BLOCK_ANCHORS, max(1, BLOCK_ENTRIES // max(rows, 1)))
    if size >= rows:
        return block(slice(0, rows), *tensors)
    # A compiler would unroll the loop and compile every block
    if torch.compiler.is_compiling():
        total: Tensor = torch.compiler.disable(_blocked)(block, size, *tensors)
        return total
    return _blocked(block, size, *tensors)


def _blocked(block: Block, size: int, *tensors: Tensor) -> Tensor:
    total: Tensor = _Blocked.apply(block, size, *tensors)
    return total


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Block, size: int, *tensors: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[2:]
        leaves = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [torch.zeros_like(leaf) for leaf in wanted]
        total = tensors[0].new_zeros(())
        for start in range(0, len(tensors[0]), size):
            with torch.set_grad_enabled(bool(wanted)):
                value = block(slice(start, start + size), *leaves)
            total = total + value.detach()
            if value.requires_grad:
                for summed, part in zip(
                    gradients, torch.autograd.grad(value, wanted, materialize_grads=True), strict=True
                ):
                    summed += part
        ctx.save_for_backward(*gradients)
        ctx.needed = needed
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = iter(ctx.saved_tensors)
        return None, None, *(gradient * next(parts) if need else None for need in ctx.needed)
