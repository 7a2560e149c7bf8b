"""Pair matrices of a batch: cosines, label distances, masks, and sums over masks that never yield NaN.

The contrastive terms differ only in which pairs attract, which repel, and how strongly. They share these small functions on
`(anchors, rows)` matrices. The anchors are all rows, or the block of them that `dirtune.losses.blocks` asks for.

Masked entries get the dtype's smallest finite number instead of minus infinity: an anchor without any partner then has a
meaningless but finite log-sum-exp, with finite gradients, and can be dropped later by a mask or by an empty sum. The
price is one more matrix per mask.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Reduction = Literal["all", "valid"]
"""all: mean over all anchors; valid: mean over the anchors that have a positive."""

Positives = Literal["each", "joint"]
"""each: the mean over an anchor's positives of their negative log-likelihoods; joint: the likelihood of all of them."""

LabelDistance = Literal["l1", "l2", "max", "angular"]
"""Distance of two labels of several dimensions. l1, l2, max: the norm of their difference, in the label's unit;
angular: the angle between two gaze directions `(pitch, yaw)`, all in radians. A label of one dimension has one distance,
`|y_i - y_j|`, under every name."""

_NORMS = {"l1": 1.0, "l2": 2.0, "max": math.inf}
# The direction of a shorter vector is rounding noise.
_MIN_LENGTH = 1e-6


@contextmanager
def full_precision(representations: Float[Tensor, "rows dim"]) -> Iterator[Tensor]:
    """Switch autocast off and yield the representations in float32 or float64.

    In bfloat16 a cosine near one is off by up to 4e-3, which is an angle of five degrees. The backward pass must run outside
    of autocast, as PyTorch asks; inside, its matrix products would be in half precision again.
    """
    with torch.autocast(representations.device.type, enabled=False):
        yield to_at_least_float32(representations)


def to_at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the values, or a float32 copy of values in half precision."""
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.to(torch.promote_types(values.dtype, torch.float32))


def normalize_rows(vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Return each row divided by its length, in at least float32; zero, with gradient zero, for a row of zero length."""
    vectors = to_at_least_float32(vectors)
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    has_direction = lengths > _MIN_LENGTH
    # The inner `where` keeps a division by zero, and so NaN, out of the backward pass.
    return torch.where(has_direction, vectors / torch.where(has_direction, lengths, 1.0), 0.0)


def cosine_matrix(
    anchors: Float[Tensor, "anchors dim"], rows: Float[Tensor, "rows dim"] | None = None
) -> Float[Tensor, "anchors columns"]:
    """Return the cosines `c_ij = z_i . z_j`, to the precision of the representations, which must have unit norm.

    Without rows: the cosines of all pairs of anchors.
    """
    rows = anchors if rows is None else rows
    backend = torch.backends.cuda if anchors.is_cuda else torch.backends.mkldnn
    is_inexact = anchors.dtype == torch.float32 and backend.matmul.fp32_precision not in ("ieee", "none")
    # The process allows TF32 or bfloat16 for float32 products. Forbidding it here would forbid it for everyone, and would not
    # reach the backward pass; the product in float64 reaches both.
    if is_inexact:
        return (anchors.double() @ rows.double().T).to(anchors.dtype)
    return anchors @ rows.T


def euclidean_matrix(
    anchors: Float[Tensor, "anchors dim"], rows: Float[Tensor, "rows dim"] | None = None
) -> Float[Tensor, "anchors columns"]:
    """Return the distances `||z_i - z_j||`, exactly 0 and with gradient 0 for equal vectors.

    They come from differences: the cancellation in inner products would leave near neighbors without a direction. Without
    rows: the distances of all pairs of anchors.
    """
    return _compute_norms(anchors, anchors if rows is None else rows, 2.0)


def distance_matrix(
    values: Float[Tensor, "anchors *label"],
    others: Float[Tensor, "rows *label"] | None = None,
    *,
    label_distance: LabelDistance = "l2",
) -> Float[Tensor, "anchors columns"]:
    """Return the distances `D_ij = |v_i - v_j|` of labels or of predictions; without others, of all pairs of values.

    Raises:
        ValueError: the distance is angular and the labels of several dimensions are not `(pitch, yaw)`.
    """
    others = values if others is None else others
    if values.ndim == 1:
        return (values[:, None] - others[None, :]).abs_()
    if label_distance == "angular":
        anchors, rows = _to_gaze_directions(values), _to_gaze_directions(others)
        apart, opposed = _compute_norms(anchors, rows, 2.0), _compute_norms(anchors, -rows, 2.0)
        # 2 atan2(|g - h|, |g + h|) is exact at 0 and at pi, where the arccosine of a product is not.
        return torch.atan2(apart, opposed).mul_(2.0)
    return _compute_norms(values, others, _NORMS[label_distance])


def _to_gaze_directions(labels: Float[Tensor, "rows label"]) -> Float[Tensor, "rows 3"]:
    """Return `(-cos(pitch) sin(yaw), -sin(pitch), -cos(pitch) cos(yaw))`: gaze as in MPIIGaze (Zhang et al., CVPR 2015)."""
    if labels.shape[1] != 2:
        raise ValueError(f"label_distance 'angular' needs labels of 2 dimensions, pitch and yaw, got {labels.shape[1]}")
    pitch, yaw = labels.unbind(dim=1)
    flat = pitch.cos()
    return -torch.stack([flat * yaw.sin(), pitch.sin(), flat * yaw.cos()], dim=1)


def _compute_norms(
    anchors: Float[Tensor, "anchors dim"], rows: Float[Tensor, "rows dim"], order: float
) -> Float[Tensor, "anchors rows"]:
    # The mode with matrix products would lose small distances to cancellation.
    return torch.cdist(anchors, rows, p=order, compute_mode="donot_use_mm_for_euclid_dist")


def compare_bins(
    label_bins: Int[Tensor, " anchors"], others: Int[Tensor, " rows"] | None = None
) -> Bool[Tensor, "anchors columns"]:
    """Return the mask of the pairs whose label bins are equal; without others, of all pairs of anchors."""
    return label_bins[:, None] == (label_bins if others is None else others)[None, :]


def find_label_classes(
    labels: Float[Tensor, "rows *label"], label_bins: Int[Tensor, " rows"], decimals: int | None
) -> Int[Tensor, " rows"]:
    """Return one number per row, equal for rows whose labels are equal after rounding; without `decimals`, the label bin."""
    if decimals is None:
        return label_bins
    # The numerators of `torch.round`
    rounded = (labels * 10.0**decimals).round().long()
    return rounded if rounded.ndim == 1 else rounded.unique(dim=0, return_inverse=True)[1]


def remove_self(mask: Bool[Tensor, "anchors rows"], anchors: slice) -> Bool[Tensor, "anchors rows"]:
    """Return a copy of the mask without the pairs of an anchor and itself; `anchors` are the rows of the mask's first axis."""
    # A copy, because callers still need the mask with the diagonal.
    copy = mask.clone()
    copy.diagonal(anchors.start).fill_(False)
    return copy


def masked_logsumexp(
    logits: Float[Tensor, "anchors rows"], mask: Bool[Tensor, "anchors rows"]
) -> Float[Tensor, " anchors"]:
    """Return `log sum_{j in mask_i} exp(logits_ij)`; a huge negative, finite number for a row without pairs."""
    return logsumexp(logits.masked_fill(~mask, torch.finfo(logits.dtype).min))


def logsumexp(logits: Float[Tensor, "anchors rows"]) -> Float[Tensor, " anchors"]:
    """Return `torch.logsumexp` over rows, with the same gradient, several times faster where most entries are masked.

    On x86 `torch.exp` is ten times slower where its result underflows, which it does at every masked entry; the softmax
    kernel is not.
    """
    result: Tensor = _LogSumExp.apply(logits)
    return result


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        result, shares = _compute_logsumexp_and_shares(logits)
        ctx.save_for_backward(shares)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        shares: Tensor = ctx.saved_tensors[0]
        return gradient[:, None] * shares


def _compute_logsumexp_and_shares(logits: Tensor) -> tuple[Tensor, Tensor]:
    shares = logits.softmax(dim=1)
    # The largest share is at least 1 / rows, so that its logarithm is exact enough.
    return logits.amax(dim=1) - shares.amax(dim=1).log(), shares


def sum_likelihoods(
    logits: Float[Tensor, "anchors rows"],
    log_normalizers: Float[Tensor, " anchors"],
    positives: Bool[Tensor, "anchors rows"],
) -> tuple[Float[Tensor, " anchors"], Float[Tensor, " anchors"]]:
    """Return `-sum_{j in P_i} (logits_ij - log Z_i)` and `|P_i|`; both are 0 for an anchor without positives."""
    counts = positives.sum(dim=1).to(logits.dtype)
    return counts * log_normalizers - torch.where(positives, logits, 0.0).sum(dim=1), counts


def sum_likelihoods_among_others(
    logits: Float[Tensor, "anchors rows"],
    positives: Bool[Tensor, "anchors rows"],
    anchors: slice,
    *,
    form: Positives = "each",
) -> tuple[Float[Tensor, " anchors"], Float[Tensor, " anchors"]]:
    """Return negative log-likelihoods under `Z_i = sum_{j != i} exp(logits_ij)`, and the divisors of their means.

    each: `sum_{j in P_i} (log Z_i - logits_ij)` and `|P_i|`; joint: `log Z_i - log sum_{j in P_i} exp(logits_ij)` and 1.
    Both are 0 for an anchor without positives. Logits must be finite.
    """
    if form == "each":
        sums, counts = _LikelihoodsAmongOthers.apply(logits, positives, anchors.start)
        return sums, counts
    others = remove_self(torch.ones_like(positives), anchors)
    joint = masked_logsumexp(logits, others) - masked_logsumexp(logits, positives)
    found = positives.any(dim=1)
    return torch.where(found, joint, 0.0), found.to(logits.dtype)


class _LikelihoodsAmongOthers(torch.autograd.Function):
    """Negative log-likelihoods that keep one matrix for the backward pass, where autograd would keep three and add two up."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positives: Tensor, first_anchor: int) -> tuple[Tensor, Tensor]:
        others = logits.clone()
        others.diagonal(first_anchor).fill_(torch.finfo(logits.dtype).min)
        log_normalizers, slopes = _compute_logsumexp_and_shares(others)
        del others
        # By way of bytes, because the conversion of bool is seven times slower.
        numbers = positives.view(torch.uint8).to(logits.dtype)
        counts = numbers.sum(dim=1)
        ctx.save_for_backward(slopes.mul_(counts[:, None]).sub_(numbers))
        sums = counts * log_normalizers - numbers.mul_(logits).sum(dim=1)
        ctx.mark_non_differentiable(counts)
        return sums, counts

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        slopes: Tensor = ctx.saved_tensors[0]
        return gradient[:, None] * slopes, None, None


def compute_smoothed_mean(
    sums: Float[Tensor, "*shape"], counts: Float[Tensor, "*shape"], *, smoothing: float
) -> Float[Tensor, "*shape"]:
    """Return `(sum - smoothing) / (count + smoothing)`, as in ACCon's official code: -1 for an empty set.

    Without smoothing the mean of an empty set is 0.
    """
    if smoothing == 0:
        return sums / counts.clamp(min=1)
    return (sums - smoothing) / (counts + smoothing)


def sum_anchors(
    losses: Float[Tensor, " anchors"], valid: Bool[Tensor, " anchors"], reduction: Reduction
) -> Float[Tensor, ""]:
    """Return the sum over all anchors, or over the valid ones only (0, connected to the graph, if there are none)."""
    return (losses if reduction == "all" else torch.where(valid, losses, 0.0)).sum()


def count_anchors(label_bins: Int[Tensor, " rows"], reduction: Reduction) -> int | Int[Tensor, ""]:
    """Return the number of anchors of the sum, at least 1; valid are those that share their label bin with another row."""
    if reduction == "all":
        return max(len(label_bins), 1)
    return (count_bin_members(label_bins) > 1).sum().clamp(min=1)


def count_bin_members(label_bins: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Return the number of rows in each row's label bin, itself included."""
    # Sorting takes `rows log rows` steps, comparing all pairs `rows^2`.
    ordered = label_bins.sort().values
    first, last = (torch.searchsorted(ordered, label_bins, side=side) for side in ("left", "right"))
    return last - first
