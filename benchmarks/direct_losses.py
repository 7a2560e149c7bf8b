"""Direct implementations of terms and losses as the baseline of `losses.py`: full matrices under autograd, or loops.

Each takes (representations, labels) with one view and has the settings that `losses.py` gives to dirtune's. They are the
formulas of the papers; loops are those that the official code has: over anchors in RankSim, Rank-N-Contrast and SupReMix, over
sorted pairs in PH-Reg, over pooled blocks in Dist Loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

OMEGA, TAU, LABEL_RANGE = 1.0, 0.1, 100.0
SORTING, POOLING = 0.1, 10.0
"""Strengths of the soft sort at which few and most neighbors are pooled."""


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


def predict(z: Tensor) -> Tensor:
    """Return predictions over the range of the labels, for losses of predictions."""
    return 50 + 200 * z[:, 0]


def ccc(z: Tensor, labels: Tensor) -> Tensor:
    p = predict(z)
    covariance = (p * labels).mean() - p.mean() * labels.mean()
    spread = p.var(correction=0) + labels.var(correction=0) + (p.mean() - labels.mean()).square()
    return (p - labels).abs().mean() + 1 - 2 * covariance / spread


def mse(z: Tensor, labels: Tensor) -> Tensor:
    return (predict(z) - labels).square().mean()


class _SoftSort(torch.autograd.Function):
    """Pooling of adjacent violators in a loop over the rows, on the CPU, in each pass."""

    @staticmethod
    def forward(ctx, values, strength):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ordered, order = values.double().sort(stable=True)
        rho = torch.arange(len(values), 0, -1, dtype=torch.float64) / strength
        blocks: list[tuple[float, int]] = []
        for value in (ordered + rho).tolist():
            mean, size = value, 1
            while blocks and blocks[-1][0] < mean:
                before, more = blocks.pop()
                mean, size = (mean * size + before * more) / (size + more), size + more
            blocks.append((mean, size))
        ctx.save_for_backward(order)
        ctx.sizes = [size for _, size in blocks]
        pooled = torch.cat([torch.full((size,), mean, dtype=torch.float64) for mean, size in blocks])
        return (pooled - rho).to(values.dtype)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (order,) = ctx.saved_tensors
        pooled = torch.cat([part.mean().expand(len(part)) for part in gradient.split(ctx.sizes)])
        return torch.zeros_like(pooled).index_copy(0, order, pooled), None


def dist(z: Tensor, labels: Tensor, strength: float) -> Tensor:
    p = predict(z)
    grid = torch.arange(101, dtype=torch.float64)
    width = 0.5 * labels.double().std()
    density = (-0.5 * ((grid[:, None] - labels) / width).square()).exp().sum(dim=1)
    reached = (torch.arange(len(p), dtype=torch.float64) + 0.5) / len(p)
    wanted = grid[torch.searchsorted((density / density.sum()).cumsum(0), reached)].to(p.dtype)
    ordered = _SoftSort.apply(p, strength)  # type: ignore[no-untyped-call]
    total: Tensor = (p - labels).abs().mean() + (ordered - wanted).abs().mean()
    return total


def rotreg(z: Tensor, labels: Tensor) -> Tensor:
    """Exponentials as in POT's `sinkhorn`, whose iterations autograd keeps."""
    z = z.double()
    vectors = z / z.norm(dim=1).mean()
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist").clamp(min=1e-6)
    gaps = (labels[:, None] - labels).abs().double().clamp(min=1e-6)
    plans = [_transport(gaps / gaps.max()), _transport(distances)]
    return ((distances * plans[0]).sum() - (distances * plans[1]).sum()).abs()


def _transport(costs: Tensor) -> Tensor:
    rows = len(costs)
    kernel = (-costs.masked_fill(torch.eye(rows, dtype=torch.bool), 999.0) / 0.1).exp()
    u = torch.full((rows,), 1 / rows, dtype=costs.dtype)
    for iteration in range(1000):
        v = (1 / rows) / (kernel.T @ u)
        u = (1 / rows) / (kernel @ v)
        if iteration % 10 == 0 and (v * (kernel.T @ u) - 1 / rows).norm() < 1e-9:
            break
    return u[:, None] * kernel * v


def phreg(z: Tensor, labels: Tensor) -> Tensor:
    """Kruskal's algorithm over all sorted pairs, in Python."""
    z, labels = z / z.norm(dim=1).amax(), labels / labels.amax()
    distances, gaps = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist"), (labels[:, None] - labels).abs()
    total = z.new_zeros(())
    for lengths in (gaps, distances.detach()):
        first, last = torch.tensor(_find_tree(lengths)).T
        total = total + (gaps[first, last] - distances[first, last]).square().mean()
    return total


def _find_tree(lengths: Tensor) -> list[tuple[int, int]]:
    rows = len(lengths)
    first, last = torch.triu_indices(rows, rows, offset=1)
    order = lengths[first, last].argsort(stable=True)
    parents, edges = list(range(rows)), []

    def find(row: int) -> int:
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row

    for one, other in zip(first[order].tolist(), last[order].tolist(), strict=True):
        roots = find(one), find(other)
        if roots[0] != roots[1]:
            parents[roots[0]] = roots[1]
            edges.append((one, other))
    return edges


def supremix(z: Tensor, labels: Tensor) -> Tensor:
    constant, total = z.detach(), z.new_zeros(())
    for anchor, label in enumerate(labels):
        same = labels == label
        others = torch.arange(len(z)) != anchor
        near = (labels - label).abs() < 5
        low, high = constant[near & (labels < label)], constant[near & (labels > label)]
        y_low, y_high = labels[near & (labels < label)], labels[near & (labels > label)]
        shares = ((y_high - label) / (y_high - y_low[:, None]))[..., None]
        positives = (shares * low[:, None] + (1 - shares) * high).flatten(0, 1)
        negatives = (constant[anchor] + constant[~same]) / 2
        gaps = (labels - label).abs()
        logits = torch.cat([z[others], positives, negatives]) @ z[anchor] / 0.5
        factors = torch.cat([gaps[others] + 1, torch.ones(len(positives)), gaps[~same] / 2 + 1])
        attracting = torch.cat([same[others], torch.ones(len(positives)), torch.zeros(len(negatives))]).bool()
        if attracting.any():
            total = total + torch.logsumexp(logits + factors.log(), dim=0) - logits[attracting].mean()
    return total / len(z)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accon": accon,
    "acconr": acconr,
    "adasupcon": adasupcon,
    "ccc": ccc,
    "conr": conr,
    "dist": partial(dist, strength=SORTING),
    "dist pooled": partial(dist, strength=POOLING),
    "mse": mse,
    "multi_similarity": multi_similarity,
    "ordinal_entropy": ordinal_entropy,
    "phreg": phreg,
    "ranksim": ranksim,
    "rnc": rnc,
    "rotreg all": rotreg,
    "supcon": supcon,
    "supremix": supremix,
}
"""Direct implementations by case of `losses.py`."""
