"""PRIME: trained proxies, one per label of a grid, whose distances follow the labels and to which samples are aligned.

Lim et al., "PRIME", ICML 2025. NOT VERIFIED AGAINST THE PAPER: neither its text nor its code were at hand. The formulas are those on
which two third-party rewrites agree; where they differ, the similarity is the cosine. Weights and temperatures are placeholders
of these. Do not report results of this term as PRIME's.

Departure from the rewrites: labels are divided by the width of their range, so that the repulsion, a sum over pairs of proxies, does not
depend on the unit of the label.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.frozen import Frozen
from dirtune.losses import pairs
from dirtune.losses.needs import Needs
from dirtune.randomness import derive_seed


class PRIME(Frozen):
    """PRIME: alignment to label proxies (Lim et al., ICML 2025; not verified against the paper); formulas in `dirtune.losses.prime`."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True, label_bins=2)
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off."""
    proxies: int = Field(default=20, ge=2)
    """Number of proxies, at labels equally spaced over the range."""
    proxy_weight: float = Field(default=1.0, ge=0)
    """Weight of the proxies' own loss. A placeholder."""
    alignment: float = Field(default=1.0, ge=0)
    """Weight of the alignment of samples to proxies. A placeholder."""
    repulsion: float = Field(default=0.1, ge=0)
    """Weight of the proxies' repulsion. A placeholder."""
    tau_labels: float = Field(default=5.0, gt=0)
    """Inverse temperature of label distances, which are shares of the range. A placeholder."""
    tau_features: float = Field(default=5.0, gt=0)
    """Inverse temperature of feature distances. A placeholder."""
    balanced: bool = False
    """Divide the targets of each proxy by their sum over the batch: one reading of the class-imbalance techniques."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Constant learning rate of the proxies, which have no weight decay."""
    reads: Literal["representation", "direction"] = "representation"
    """Input of the term: representation (z), or the embedding's direction."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        raise TypeError("prime has trained proxies: call what fit returns")

    def fit(self, labels: TrainingLabels) -> "FittedPRIME":
        """Return the term with random proxies, which depend on the seed of the trial."""
        return FittedPRIME(self, labels)


class FittedPRIME(nn.Module):
    """PRIME with its trained proxies."""

    proxy_labels: Tensor
    """As shares of the range."""

    def __init__(self, settings: PRIME, labels: TrainingLabels) -> None:
        super().__init__()
        self.settings = settings
        self.learning_rate = settings.learning_rate
        self.low, self.range = labels.spec.low, labels.spec.range
        generator = torch.Generator().manual_seed(derive_seed(labels.seed, "prime proxies"))
        drawn = torch.randn(settings.proxies, labels.dims[settings.reads], generator=generator, dtype=torch.float64)
        # In float64, so that the order of a sum, as of ranks, does not change their rounding.
        self.proxies = nn.Parameter(nn.functional.normalize(drawn, dim=1))
        grid = torch.linspace(0, 1, settings.proxies, dtype=torch.float64)
        self.register_buffer("proxy_labels", grid, persistent=False)

    def forward(self, inputs: TermInputs) -> Float[Tensor, ""]:
        """Return the weighted sum of the proxies' loss and the alignment."""
        settings = self.settings
        with pairs.full_precision(inputs.representations) as z:
            labels = (inputs.labels.to(z.dtype).reshape(len(z)) - self.low) / self.range
            proxies, proxy_labels = self.proxies.to(z.dtype), self.proxy_labels.to(z.dtype)
            kl, repulsion = compare_proxies(
                proxies, proxy_labels, tau_labels=settings.tau_labels, tau_features=settings.tau_features
            )
            alignment = align(
                z,
                labels,
                proxies,
                proxy_labels,
                tau_labels=settings.tau_labels,
                tau_features=settings.tau_features,
                balanced=settings.balanced,
            )
            own = kl - settings.repulsion * repulsion
            return settings.proxy_weight * own + settings.alignment * alignment


def compare_proxies(
    proxies: Float[Tensor, "proxies dim"],
    proxy_labels: Float[Tensor, " proxies"],
    *,
    tau_labels: float,
    tau_features: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return `KL(P || Q)` and `sum_(i != j) |y_i - y_j| d_ij^2`, with one minus the cosine as the distance `d`.

    P and Q are distributions over all ordered pairs of two proxies, proportional to `exp(-tau_labels |y_i - y_j|)` and to
    `exp(-tau_features d_ij)`.
    """
    directions = nn.functional.normalize(proxies, dim=1)
    distances = _select_others(1 - pairs.cosine_matrix(directions))
    gaps = _select_others((proxy_labels[:, None] - proxy_labels).abs())
    log_p, log_q = torch.log_softmax(-tau_labels * gaps, dim=0), torch.log_softmax(-tau_features * distances, dim=0)
    return (log_p.exp() * (log_p - log_q)).sum(), (gaps * distances.square()).sum()


def _select_others(matrix: Float[Tensor, "rows rows"]) -> Float[Tensor, " entries"]:
    """Return the entries off the diagonal, row by row."""
    # Not by a mask, for whose size the host would wait: without its first entry, each row ends with one of the diagonal.
    rows = len(matrix)
    return matrix.flatten()[1:].view(rows - 1, rows + 1)[:, :-1].flatten()


def align(
    vectors: Float[Tensor, "rows dim"],
    labels: Float[Tensor, " rows"],
    proxies: Float[Tensor, "proxies dim"],
    proxy_labels: Float[Tensor, " proxies"],
    *,
    tau_labels: float,
    tau_features: float,
    balanced: bool = False,
) -> Float[Tensor, ""]:
    """Return `-mean_i sum_j T_ij log A_ij`: T the softmax over proxies of negative label distances, A that of feature distances.

    With `balanced`, `T_ij` is divided by the sum over the rows of the proxy's column, and multiplied by the mean of these sums.
    """
    gaps = (labels[:, None] - proxy_labels).abs()
    targets = torch.softmax(-tau_labels * gaps, dim=1)
    if balanced:
        # At a cold temperature, a proxy may be so far from all labels of the batch that its mass underflows to zero.
        masses = targets.sum(dim=0).clamp(min=torch.finfo(targets.dtype).tiny)
        targets = targets * (masses.mean() / masses)
    cosines = pairs.cosine_matrix(nn.functional.normalize(vectors, dim=1), nn.functional.normalize(proxies, dim=1))
    log_shares = torch.log_softmax(-tau_features * (1 - cosines), dim=1)
    return -(targets * log_shares).sum(dim=1).mean()
