"""UVOTE: an ensemble of heads with weights from none to inverse density, of which the most certain one predicts.

M heads predict the location m and the logarithm l of the scale of a Laplace distribution each. Head h has the sample weights
`1 / n(y)^r`, of mean one over the training rows, with `r = h / (M - 1)` and the density n of the labels; its loss is

    L_h = mean_i w_hi ( |y_i - m_hi| / s_hi + log(2 s_hi) ),    s = exp(clamp(l, low, high)) + 1e-10

and the total `f_0 L_0 + f_1 sum_{h > 0} L_h`. With annealing, `f_1 = (t / E)^2` grows with the epoch t of E, and `f_0` is
`1 - f_1` or one. Per sample, the head with the smallest l predicts (`vote: minvar`).

Source: Jiang et al., "Uncertainty Voting Ensemble for Imbalanced Deep Regression", GCPR 2024 (SherryJYC/UVOTE, `agedb-dir/loss.py`,
`train_gradual.py`, `datasets_gradual.py`). Departures: 1. the epoch is selected by the voted prediction, officially by that of the
first head; 2. the logarithm of the scale is limited in the vote as in the loss (`clamp_at_vote`); 3. it starts at the scale of
the training labels, officially at 0; 4. weights belong to label bins: with `density: kde` all labels of a bin have the mean weight of
its training rows, and a bin without any that of the nearest one; 5. on IMDB-WIKI the code anneals the first head also where
annealing is off.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TrainingLabels
from dirtune.frozen import Frozen
from dirtune.losses.needs import Needs
from dirtune.models.heads import Head, HeadLabels, Outputs

Vote = Literal["minvar", "avg", "avgvar"]

_MIN_SCALE = 1e-10
# Entries of the kernel density's table at once
_DENSITY_ENTRIES = 1 << 22


class UVOTE(Frozen):
    """Heads with sample weights from none to inverse density, of which the most certain one predicts (Jiang et al., GCPR 2024)."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True)
    reads_bins: ClassVar[bool] = True

    name: Literal["uvote"] = "uvote"
    heads: int = Field(default=2, ge=1)
    """Number of heads. Official: 2 (AgeDB), 3 (IMDB-WIKI, STS-B)."""
    vote: Vote = "minvar"
    """Prediction of a sample. minvar: the head with the smallest scale; avg: the means of locations and of log-scales; avgvar: those
    weighted by `exp(-l)`."""
    clamp_at_vote: bool = True
    """True: log-scales have their limits in the vote, too. Official: false, so that a head that has left them wins."""
    density: Literal["count", "kde"] = "count"
    """Density of a label. count: training rows of its bin; kde: Gaussian kernel density of the training labels, as officially for
    STS-B."""
    bandwidth: float = Field(default=0.5, gt=0)
    """Deviation of the kernel, in the label's unit. Official: 0.5 on STS-B, whose labels are in 0..5."""
    clip: tuple[float, float] | None = (5.0, 1000.0)
    """Limits of the counts of the head with inverse weights; null: none. Official: 5 and 1000."""
    anneal: bool = True
    """The heads with weights fade in over the epochs ("dynamic loss"); false: all heads count alike."""
    anneal_first: bool = True
    """With `anneal`, the first head fades out meanwhile, as on all sets but AgeDB."""
    min_log_scale: float = -5.0
    """Lower limit of the log-scale, in the unit of the labels that the loss is given."""
    max_log_scale: float = 5.0
    """Upper limit. Official: 10 on IMDB-WIKI."""
    scale_rate: float = Field(default=0.1, gt=0)
    """Factor of the learning rate of the layer of log-scales. Official: 0.1."""
    weight_deviation: float | None = Field(default=None, ge=0)
    """Standard deviation of the heads' weights at the start, with biases of zero. Official: 0.01 on AgeDB; null: torch's default."""

    @property
    def head(self) -> str:
        """Name of the head, with all that its decoder depends on."""
        limits = f" within {self.min_log_scale:g} and {self.max_log_scale:g}" if self.clamp_at_vote else ""
        return f"uvote of {self.heads} by {self.vote}{limits}"

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the heads as one."""
        return VotingHead(read_dim, labels, self)

    def fit(self, labels: TrainingLabels) -> "UVOTELoss":
        """Return the loss with its weights by label bin."""
        bins, num_bins = labels.label_bins, labels.spec.num_bins
        if self.density == "count":
            weights = compute_count_weights(bins, num_bins, self.heads, self.clip)
        else:
            density = compute_kernel_density(labels.labels.double(), self.bandwidth)
            by_row = torch.stack([density**-power for power in list_exponents(self.heads)])
            weights = average_by_bin(by_row, bins, num_bins)
            weights = weights / weights[:, bins].mean(dim=1, keepdim=True)
        return UVOTELoss(self, weights.to(labels.labels.device))


class VotingHead(Head):
    """Heads with a location and a log-scale each, and their vote."""

    distribution = "laplace"

    def __init__(self, read_dim: int, labels: HeadLabels, settings: UVOTE) -> None:
        start = math.log(math.sqrt(labels.variance / 2))
        start = min(max(start, settings.min_log_scale), settings.max_log_scale)
        deviation = settings.weight_deviation
        self.settings = settings
        super().__init__(
            read_dim,
            {
                "location": Outputs(
                    size=settings.heads,
                    offset=labels.offset,
                    deviation=deviation,
                    bias=None if deviation is None else 0.0,
                ),
                "scale": Outputs(
                    size=settings.heads, bias=start, deviation=deviation, learning_rate_factor=settings.scale_rate
                ),
            },
        )

    def decode(self, raw: Float[Tensor, "rows outputs"]) -> Float[Tensor, " rows"]:
        """Return the voted location."""
        return self._vote(raw)[0]

    def decode_deviation(self, raw: Float[Tensor, "rows outputs"]) -> Float[Tensor, " rows"]:
        """Return the standard deviation of the voted Laplace distribution."""
        return math.sqrt(2.0) * self._vote(raw)[1].exp()

    def _vote(self, raw: Float[Tensor, "rows outputs"]) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        locations, log_scales = raw.chunk(2, dim=-1)
        if self.settings.clamp_at_vote:
            log_scales = log_scales.clamp(self.settings.min_log_scale, self.settings.max_log_scale)
        return combine_votes(locations, log_scales, self.settings.vote)


class UVOTELoss(nn.Module):
    """Sum of the heads' losses, with weights by label bin in a buffer and factors of the epoch."""

    reads_bins = True
    bin_weights: Tensor

    def __init__(self, settings: UVOTE, bin_weights: Float[Tensor, "heads bins"]) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("bin_weights", bin_weights)
        self.factors = (1.0, 1.0)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the factors of the first head and of the others for an epoch, counted from 0."""
        grown = (epoch / epochs) ** 2
        anneals, anneals_first = self.settings.anneal, self.settings.anneal and self.settings.anneal_first
        self.factors = (1 - grown if anneals_first else 1.0, grown if anneals else 1.0)

    def forward(
        self,
        predictions: Float[Tensor, "rows outputs"],
        labels: Float[Tensor, " rows"],
        weights: Float[Tensor, " rows"] | None = None,
        *,
        label_bins: Int[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        raw = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
        locations, log_scales = raw.chunk(2, dim=-1)
        limits = self.settings.min_log_scale, self.settings.max_log_scale
        rows = compute_laplace_losses(locations, log_scales, labels[:, None], limits)
        rows = rows * self.bin_weights[:, label_bins].T.to(rows)
        if weights is not None:
            rows = rows * weights[:, None].to(rows)
        by_head = rows.mean(dim=0)
        first, others = self.factors
        return first * by_head[0] + others * by_head[1:].sum()


def compute_laplace_losses(
    locations: Tensor, log_scales: Tensor, labels: Tensor, limits: tuple[float, float]
) -> Tensor:
    """Return `|y - m| / s + log(2 s)` of each element, with `s = exp(l) + 1e-10` of the limited log-scale l."""
    scales = log_scales.clamp(*limits).exp() + _MIN_SCALE
    return (labels - locations).abs() / scales + (2 * scales).log()


def combine_votes(
    locations: Float[Tensor, "rows heads"], log_scales: Float[Tensor, "rows heads"], vote: Vote
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Return the location and the log-scale of each row, of which `vote` is explained in `UVOTE`."""
    if vote == "avg":
        return locations.mean(dim=-1), log_scales.mean(dim=-1)
    if vote == "avgvar":
        shares = (-log_scales).softmax(dim=-1)
        return (shares * locations).sum(dim=-1), (shares * log_scales).sum(dim=-1)
    # The first one of equal scales
    chosen = log_scales.argmin(dim=-1, keepdim=True)
    return locations.gather(-1, chosen).squeeze(-1), log_scales.gather(-1, chosen).squeeze(-1)


def list_exponents(heads: int) -> list[float]:
    """Return the powers of the density by head, from 0 to 1."""
    return [head / (heads - 1) if heads > 1 else 0.0 for head in range(heads)]


def compute_count_weights(
    bins: Int[Tensor, " samples"], num_bins: int, heads: int, clip: tuple[float, float] | None
) -> Float[Tensor, "heads bins"]:
    """Return the weights `n^-r` of each head by label bin, of mean one over the samples; counts are limited for r = 1 only."""
    counts = torch.bincount(bins, minlength=num_bins).double()
    rows = []
    for power in list_exponents(heads):
        limited = counts[bins].clamp(*clip) if clip is not None and power == 1 else counts[bins]
        weights = limited**-power
        rows.append(weights / weights.mean())
    return average_by_bin(torch.stack(rows), bins, num_bins)


def compute_kernel_density(labels: Float[Tensor, " samples"], bandwidth: float) -> Float[Tensor, " samples"]:
    """Return the Gaussian kernel density of the labels at each of them, in blocks of distinct labels."""
    distinct, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    factor = 1 / (bandwidth * math.sqrt(2 * math.pi) * len(labels))
    parts = [
        (-0.5 * ((block[:, None] - distinct) / bandwidth) ** 2).exp() @ counts.to(labels)
        for block in distinct.split(max(_DENSITY_ENTRIES // len(distinct), 1))
    ]
    return factor * torch.cat(parts)[inverse]


def average_by_bin(
    values: Float[Tensor, "heads samples"], bins: Int[Tensor, " samples"], num_bins: int
) -> Float[Tensor, "heads bins"]:
    """Return the mean value of each bin's samples; a bin without samples has that of the nearest one."""
    counts = torch.bincount(bins, minlength=num_bins)
    sums = values.new_zeros(len(values), num_bins).index_add_(1, bins, values)
    occupied = counts.nonzero().squeeze(-1)
    nearest = (torch.arange(num_bins, device=bins.device)[:, None] - occupied).abs().argmin(dim=1)
    return (sums / counts.clamp(min=1))[:, occupied[nearest]]
