"""The pair matrices of a batch: cosines, label distances, masks, and sums over masks that never yield NaN.

The contrastive terms differ only in which pairs attract, which repel, and how strongly; what they share stands here as
small functions on `(rows, rows)` matrices. Row `i` belongs to anchor `i`.

Masked entries get the dtype's smallest finite number instead of minus infinity: an anchor without any partner then has a
meaningless but finite log-sum-exp, with finite gradients, and can be dropped later by a mask or by an empty sum. The
price is one more matrix per mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Reduction = Literal["all", "valid"]
"""all: mean over all anchors; valid: mean over the anchors that have a positive."""


@contextmanager
def full_precision(representations: Float[Tensor, "rows dim"]) -> Iterator[Tensor]:
    """Switch autocast off and give the representations in float32 at least; float64 stays float64.

    In bfloat16 a cosine near one is off by up to 4e-3, which is an angle of five degrees. The backward pass belongs outside
    of autocast, as PyTorch asks; inside, its matrix products would be in half precision again.
    """
    with torch.autocast(representations.device.type, enabled=False):
        yield at_least_float32(representations)


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The values themselves, or a float32 copy if they are in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cosine_matrix(representations: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows rows"]:
    """`c_ij = z_i . z_j`, to the precision of the representations, which must have unit norm.

    Where float32 products are allowed to be computed in TF32 or bfloat16, this one is computed in float64: that setting
    belongs to the whole process, so that switching it off here would switch it off for others, and would not reach the
    backward pass.
    """
    z = representations
    exact = z.double() if _is_multiplied_inexactly(z) else z
    return (exact @ exact.T).to(z.dtype)


def _is_multiplied_inexactly(values: Tensor) -> bool:
    backend = torch.backends.cuda if values.is_cuda else torch.backends.mkldnn
    return values.dtype == torch.float32 and backend.matmul.fp32_precision not in ("ieee", "none")


def distance_matrix(values: Float[Tensor, " rows"]) -> Float[Tensor, "rows rows"]:
    """`D_ij = |v_i - v_j|`, for labels and for predictions."""
    return (values[:, None] - values[None, :]).abs_()


def equal_bins(label_bins: Int[Tensor, " rows"]) -> Bool[Tensor, "rows rows"]:
    """Which pairs lie in one label bin; the diagonal does."""
    return label_bins[:, None] == label_bins[None, :]


def without_diagonal(mask: Bool[Tensor, "rows rows"]) -> Bool[Tensor, "rows rows"]:
    """A copy of the mask in which no row is its own partner."""
    return mask.clone().fill_diagonal_(False)


def masked_logsumexp(
    logits: Float[Tensor, "rows rows"], mask: Bool[Tensor, "rows rows"]
) -> Float[Tensor, " rows"]:
    """`log sum_{j in mask_i} exp(logits_ij)`; an empty row gives a huge negative, finite number."""
    return logsumexp(logits.masked_fill(~mask, torch.finfo(logits.dtype).min))


def logsumexp(logits: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """`torch.logsumexp` over columns, with the same gradient, several times faster where most entries are masked.

    On x86 `torch.exp` is ten times slower where its result underflows, which it does at every masked entry; the softmax
    kernel is not.
    """
    result: Tensor = _LogSumExp.apply(logits)
    return result


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        shares = logits.softmax(dim=1)
        ctx.save_for_backward(shares)
        # The largest share is at least 1 / columns, so that its logarithm is exact enough.
        return logits.amax(dim=1) - shares.amax(dim=1).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        shares: Tensor = ctx.saved_tensors[0]
        return gradient[:, None] * shares


def negative_log_likelihoods(
    logits: Float[Tensor, "rows rows"],
    log_normalizers: Float[Tensor, " rows"],
    positives: Bool[Tensor, "rows rows"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """`-sum_{j in P_i} (logits_ij - log Z_i)` and `|P_i|`; both are 0 for an anchor without positives."""
    counts = positives.sum(dim=1).to(logits.dtype)
    return counts * log_normalizers - torch.where(positives, logits, 0.0).sum(dim=1), counts


def smoothed_mean(
    sums: Float[Tensor, "*shape"], counts: Float[Tensor, "*shape"], *, smoothing: float
) -> Float[Tensor, "*shape"]:
    """`(sum - smoothing) / (count + smoothing)`: a mean that is -1 for an empty set, as in ACCon's official code.

    Without smoothing the mean of an empty set is 0.
    """
    if smoothing == 0:
        return sums / counts.clamp(min=1)
    return (sums - smoothing) / (counts + smoothing)


def reduce_anchors(
    losses: Float[Tensor, " rows"], valid: Bool[Tensor, " rows"], reduction: Reduction
) -> Float[Tensor, ""]:
    """The mean over all anchors, or over the valid ones only (0, connected to the graph, if there are none)."""
    if reduction == "all":
        return losses.mean()
    return torch.where(valid, losses, 0.0).sum() / valid.sum().clamp(min=1)
