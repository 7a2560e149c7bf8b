"""Direct implementations of the terms as the baseline of `losses.py`: full matrices under autograd, or loops over anchors.

Each takes (representations, labels) with one view and has the settings that `losses.py` gives to dirtune's term. They are
the formulas of the papers; only RankSim and Rank-N-Contrast are loops, as in their official code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

OMEGA, TAU, LABEL_RANGE = 1.0, 0.1, 100.0


def masked_logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    return torch.logsumexp(logits.masked_fill(~mask, -torch.inf), dim=1)


def mask_self(rows: int) -> Tensor:
    return ~torch.eye(rows, dtype=torch.bool)


def compute_contrast(logits: Tensor, positives: Tensor) -> Tensor:
    """Return the mean over anchors of the mean over positives of `log Z - logit`; anchors without positives count as 0."""
    normalizers = masked_logsumexp(logits, mask_self(len(logits)))
    counts = positives.sum(dim=1)
    sums = torch.where(positives, normalizers[:, None] - logits, 0.0).sum(dim=1)
    return torch.where(counts > 0, sums / counts.clamp(min=1), 0.0).mean()


def supcon(z: Tensor, labels: Tensor) -> Tensor:
    same = labels[:, None] == labels[None, :]
    return compute_contrast(z @ z.T / TAU, same & mask_self(len(z)))


def accon(z: Tensor, labels: Tensor) -> Tensor:
    same = labels[:, None] == labels[None, :]
    cosines = z @ z.T
    target = math.pi * (labels[:, None] - labels[None, :]).abs() / LABEL_RANGE
    sines = (1 - cosines.square()).clamp(min=1e-6).sqrt()
    turned = -(cosines * target.cos()) - sines * target.sin()
    return compute_contrast(torch.where(same, cosines, turned) / TAU, same & mask_self(len(z)))


def conr(z: Tensor, labels: Tensor, *, compensated: bool = False) -> Tensor:
    predictions = labels.flip(0)
    similar = (labels[:, None] - labels[None, :]).abs() <= OMEGA
    confused = (predictions[:, None] - predictions[None, :]).abs() <= OMEGA
    positives, negatives = similar & mask_self(len(z)), ~similar & confused
    cosines = z @ z.T
    distances = (labels[:, None] - labels[None, :]).abs()
    repelled = cosines
    if compensated:
        target = math.pi * distances / LABEL_RANGE
        sines = (1 - cosines.square()).clamp(min=1e-6).sqrt()
        repelled = -(cosines * target.cos()) - sines * target.sin()
    logits = torch.where(negatives, repelled / TAU + 0.01 * distances, cosines / TAU)
    normalizers = masked_logsumexp(logits, positives | negatives)
    counts = positives.sum(dim=1)
    sums = torch.where(positives, normalizers[:, None] - logits, 0.0).sum(dim=1)
    valid = (counts > 0) & negatives.any(dim=1)
    return torch.where(valid, sums / counts.clamp(min=1), 0.0).mean()


def acconr(z: Tensor, labels: Tensor) -> Tensor:
    return conr(z, labels, compensated=True)


def adasupcon(z: Tensor, labels: Tensor) -> Tensor:
    same = labels[:, None] == labels[None, :]
    ranked = labels.sort().values
    low, high = torch.searchsorted(ranked, labels), torch.searchsorted(ranked, labels, right=True)
    shares = (low + high) / (2 * len(labels))
    margins = (2 * (shares[:, None] - shares[None, :]).abs()).clamp(max=2.0)
    return compute_contrast((z @ z.T + margins) / TAU, same & mask_self(len(z)))


def multi_similarity(z: Tensor, labels: Tensor) -> Tensor:
    same = labels[:, None] == labels[None, :]
    positives, negatives = same & mask_self(len(z)), ~same
    s = z @ z.T
    hardest_negative = s.masked_fill(~negatives, -torch.inf).amax(dim=1, keepdim=True)
    hardest_positive = s.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
    positives = positives & (s - 0.1 < hardest_negative)
    negatives = negatives & (s + 0.1 > hardest_positive)
    pulled = torch.where(positives, (-2 * (s - 0.5)).exp(), 0.0).sum(dim=1).log1p() / 2
    pushed = torch.where(negatives, (50 * (s - 0.5)).exp(), 0.0).sum(dim=1).log1p() / 50
    return (pulled + pushed).mean()


def ordinal_entropy(z: Tensor, labels: Tensor) -> Tensor:
    unique, bins = labels.unique(return_inverse=True)
    if len(unique) < 2:
        return z.sum() * 0
    centers = torch.stack([z[bins == index].mean(dim=0) for index in range(len(unique))])
    directions = torch.nn.functional.normalize(centers, dim=1)
    upper = torch.triu_indices(len(unique), len(unique), offset=1)
    gaps = (unique[upper[0]] - unique[upper[1]]).abs()
    spread = ((directions[upper[0]] - directions[upper[1]]).norm(dim=1) * (gaps - gaps.min())).mean() / gaps.max()
    residuals = (torch.nn.functional.normalize(z, dim=1) - directions[bins]).norm(dim=1)
    return residuals[residuals > 0].mean() - spread


def rnc(z: Tensor, labels: Tensor) -> Tensor:
    rows = len(z)
    keep = mask_self(rows)
    logits = (-(z[:, None] - z[None, :]).norm(dim=-1) / 2.0)[keep].view(rows, rows - 1)
    distances = (labels[:, None] - labels[None, :]).abs()[keep].view(rows, rows - 1)
    total = z.new_zeros(())
    for k in range(rows - 1):
        farther = (distances >= distances[:, k : k + 1]).to(z.dtype)
        total = total - (logits[:, k] - (farther * logits.exp()).sum(dim=1).log()).sum()
    return total / (rows * (rows - 1))


class _Rank(torch.autograd.Function):
    @staticmethod
    def forward(ctx, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ranks = _compute_ranks(row)
        ctx.save_for_backward(row, ranks)
        return ranks

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        row, ranks = ctx.saved_tensors
        return -(ranks - _compute_ranks(row + 2.0 * gradient)) / 2.0


def _compute_ranks(row: Tensor) -> Tensor:
    order = row.argsort(stable=True).flip(0)
    ranks = torch.empty_like(row)
    ranks[order] = torch.arange(1, len(row) + 1, dtype=row.dtype)
    return ranks / len(row)


def ranksim(z: Tensor, labels: Tensor) -> Tensor:
    first = torch.tensor([int((labels == value).nonzero()[0]) for value in labels.unique()])
    kept, values = z[first], labels[first]
    similarities = kept @ kept.T
    total = z.new_zeros(())
    for i in range(len(first)):
        wanted = _compute_ranks(-(values[i] - values).abs())
        total = total + (_Rank.apply(similarities[i]) - wanted).square().mean()  # type: ignore[no-untyped-call]
    return total
