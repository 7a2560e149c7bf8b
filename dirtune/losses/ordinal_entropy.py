"""Ordinal Entropy: pushes the centers of distant labels apart on the sphere, and pulls samples to their center.

Zhang, Yang, Mi, Zheng and Yao, "Improving Deep Regression with Ordinal Entropy", ICLR 2023. Official code:
github.com/needylove/OrdinalEntropy, `ordinalentropy` in `AgeEstimation/OrdinalEntropy.py`.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses import pairs, ranksim


class OrdinalEntropy(Frozen):
    """Ordinal Entropy: spreads labels, gathers samples (Zhang et al., ICLR 2023); formula: `ordinal_entropy`."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. Official: 1 (ages, depth, crowds), 1e-3 (its synthetic
    operators)."""
    diversity: float = Field(default=1.0, ge=0)
    """Weight of the spread between labels, without unit; 0 switches it off. Official: 1."""
    tightness: float = Field(default=1.0, ge=0)
    """Weight of the spread within a label, without unit; 0 switches it off. Official: 1."""
    reads: Literal["representation", "embedding"] = "embedding"
    """Input of the term: embedding (e), as in the code; representation (z)."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return ordinal_entropy(
            inputs.representations,
            ranksim.require_scalar_labels(inputs.labels, term="ordinal_entropy"),
            diversity=self.diversity,
            tightness=self.tightness,
        )


def ordinal_entropy(
    embeddings: Float[Tensor, "rows dim"],
    labels: Float[Tensor, " rows"],
    *,
    diversity: float = 1.0,
    tightness: float = 1.0,
) -> Float[Tensor, ""]:
    """Return `tightness mean_i ||e_i/|e_i| - p_{u(i)}|| - diversity mean_{u < v} w_uv ||p_u - p_v||`.

    `p_u` is the direction of the mean embedding of label `u`; `w_uv = (|y_u - y_v| - min) / max` with the extremes over all
    pairs of distinct labels, so that the nearest pair has weight 0 and the farthest less than 1. The first mean is over the
    samples that are not at their center.

    Departures from the official code: (1) a mean over nothing is 0, where it fails (one distinct label) or is NaN (all
    labels distinct); (2) a sample is at its center within rounding, not only exactly; (3) centers that coincide have
    distance and gradient 0 instead of 1e-6 and 0; (4) sums remain float64 if the embeddings are; (5) an embedding or a
    center of zeros has no direction: it remains zero and gets no gradient.
    """
    with pairs.full_precision(embeddings) as e:
        values, groups, counts = labels.to(e.dtype).unique(return_inverse=True, return_counts=True)
        sums = e.new_zeros(len(values), e.shape[1]).index_add(0, groups, e)
        centers = ranksim.normalize_rows(sums / counts[:, None])
        lengths = (ranksim.normalize_rows(e) - centers[groups]).norm(dim=1)
        # Below the resolution of the difference of two unit vectors, a sample is at its center.
        away = lengths.detach() > 8 * torch.finfo(e.dtype).eps
        spread: Tensor = torch.where(away, lengths, 0.0).sum() / away.sum().clamp(min=1)
        return tightness * spread - diversity * _compute_spread_between(centers, values)


def _compute_spread_between(
    centers: Float[Tensor, "labels dim"], values: Float[Tensor, " labels"]
) -> Float[Tensor, ""]:
    if len(values) < 2:
        return centers.new_zeros(())
    # One entry per pair needs `labels^2 / 2` numbers, where differences would need `dim` times as many.
    gaps = torch.pdist(values[:, None])
    weights = (gaps - gaps.min()) / gaps.max()
    return (weights * torch.pdist(centers)).mean()
