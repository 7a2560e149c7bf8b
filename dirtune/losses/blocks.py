"""Sums over anchors, evaluated a block of anchors at a time: a pairwise loss without the pair matrices of a whole batch.

A loss over pairs is a sum over its anchors, and an anchor needs its own row of the pair matrix only. Above a size, each
block's gradient is therefore computed together with its value and only the sums are kept, which makes memory linear in
the number of rows. Below it, one block holds everything and autograd works as usual.

Trade-offs: the blocked form has first derivatives only, its gradient is computed even where it is not needed, and under
`torch.compile` it runs uncompiled.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Block = Callable[..., Tensor]
"""Map of a slice of anchors, and of the tensors of `sum_over_anchors`, to the scalar sum of those anchors' losses."""

BLOCK_ANCHORS = 256
"""Maximum number of anchors of a block. On a CPU, the fixed costs dominate with fewer, and more exceed the caches."""

BLOCK_ENTRIES = 1 << 20
"""Maximum number of pair-matrix entries of a block; the tighter bound above 4,096 rows."""

CUDA_BLOCK_ENTRIES = 1 << 24
"""The only bound on a GPU, where small blocks are many launches: one block up to 4,096 rows, 64 MB per pair matrix."""


def sum_over_anchors(block: Block, *tensors: Tensor) -> Tensor:
    """Return the sum of `block(anchors, *tensors)` over blocks of anchors that cover all rows of the first tensor.

    Args:
        block: the sum of one block. It may use other tensors too, but only `tensors` get gradients.
        tensors: differentiable; the first has one row per anchor.
    """
    rows = len(tensors[0])
    most, entries = (rows, CUDA_BLOCK_ENTRIES) if tensors[0].is_cuda else (BLOCK_ANCHORS, BLOCK_ENTRIES)
    size = min(most, max(1, entries // max(rows, 1)))
    if size >= rows:
        return block(slice(0, rows), *tensors)

    def apply() -> Tensor:
        total: Tensor = _BlockedSum.apply(block, size, *tensors)
        return total

    # A compiler would unroll the loop and compile every block.
    return torch.compiler.disable(apply)() if torch.compiler.is_compiling() else apply()


class _BlockedSum(torch.autograd.Function):
    """Sum over blocks of anchors, with the gradient of each block computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, block: Block, size: int, *tensors: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[2:]
        leaves = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [torch.zeros_like(leaf) for leaf in wanted]
        total = tensors[0].new_zeros(())
        for start in range(0, len(tensors[0]), size):
            # Only this block has a graph, and it is freed with the gradient below: this bounds the memory.
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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = iter(ctx.saved_tensors)
        return None, None, *(gradient * next(parts) if need else None for need in ctx.needed)
