"""SRL: spreads the centers of the label bins over the hypersphere, along a smooth curve in the order of the labels.

Dong et al., "Improve Representation for Imbalanced Regression through Geometric Constraints", CVPR 2025 (arXiv 2503.00876).
Official code: github.com/yilei-wu/imbalanced-regression, `agedb-dir/dfr.py`, `imdb-wiki-dir/dfr.py`, `sts-b-dir/dfr.py`. A bin that
is not in the batch has the center of a surrogate, a running mean over the epochs.

Where code and paper differ, and this library: (1) homogeneity is the paper's squared steps per label distance (`homogeneity_form`);
the code has cosines of neighbors, whose sign on IMDB-WIKI and STS-B pushes them apart. (2) The surrogate is the mean of directions
(`surrogate`), where the code averages vectors of any length. (3) The term begins with the second epoch, as in the paper, when the
surrogate is known (`start`); the code begins at once, with zero vectors for missing bins in the first two epochs. (4) Bins are
those of the data set; the code for STS-B collapses 50 bins to six rows. Departures from both: (5) bins without a training row are left
out of all sums, where the code has zero vectors for them; (6) a center shorter than 1e-6, as of opposite vectors, has no
direction, and is replaced by the surrogate's; (7) the variance of a single cosine is 0, where the code has NaN.
"""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from dirtune.batch import EvaluatedRows, TermInputs, TrainingLabels
from dirtune.frozen import Frozen
from dirtune.losses import draws, label_prior, pairs
from dirtune.losses.needs import Needs
from dirtune.randomness import derive_seed
from dirtune.transfer import to_device

HomogeneityForm = Literal["paper", "cosine", "cosine_repelling"]

_MIN_LENGTH = 1e-6


class SRL(Frozen):
    """SRL: centers of label bins that cover the hypersphere along a smooth curve (Dong et al., CVPR 2025); formula: `srl`."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True, label_bins=2)
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off."""
    contrast: float = Field(default=1.0, ge=0)
    """Weight of the contrast of samples with the centers. Paper: 1; code: 10 (ages), 1e-4 (STS-B)."""
    envelope: float = Field(default=0.1, ge=0)
    """Weight of the coverage of the hypersphere. Paper: 0.1; code: 100 (ages), 1e-2 (STS-B)."""
    homogeneity: float = Field(default=0.1, ge=0)
    """Weight of the smoothness along the labels. Paper: 0.1; code: 0.01 (ages), 1e-4 (STS-B)."""
    homogeneity_form: HomogeneityForm = "paper"
    """paper: squared distances of neighboring centers over the distance of their bins, in bins; cosine: minus the sum of their
    cosines plus a tenth of the cosines' variance, as in the code for AgeDB; cosine_repelling: plus the sum, as in that for
    IMDB-WIKI and STS-B."""
    tau: float = Field(default=0.1, gt=0)
    """Temperature of the contrast. Code: 0.3 (ages), 0.1 (STS-B)."""
    points: int = Field(default=2000, ge=1)
    """Random points of the hypersphere. Code: 2000 (ages), 1000 (STS-B)."""
    points_per: Literal["run", "step"] = "run"
    """How often the points are drawn: once, as in the code, or in each step."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the former surrogate at the end of an epoch. Code: 0.9, 0.99 (UCI)."""
    surrogate: Literal["normalized", "raw"] = "normalized"
    """Mean of directions, or of the vectors themselves as in the code, which the term must then read as embeddings."""
    start: Annotated[int, Field(ge=1)] = 1
    """Number of epochs before the surrogate is used. Code: 2."""
    before: Literal["off", "zeros"] = "off"
    """Term before that: none, as in the paper, or with zero vectors for missing bins, as in the code."""
    label_factor: bool = False
    """Multiply a bin's part of the denominator by one plus its distance in bins, over the largest; an option of the code."""
    reads: Literal["representation", "embedding"] = "representation"
    """Input of the term: representation (z), whose projection the predictor should not read, as in the code; embedding (e)."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        raise TypeError("srl is fitted to the training labels: call what fit returns")

    def fit(self, labels: TrainingLabels) -> "FittedSRL":
        """Return the term with an empty surrogate."""
        return FittedSRL(self, labels)

    @model_validator(mode="after")
    def _check_surrogate(self) -> "SRL":
        if self.surrogate == "raw" and self.reads != "embedding":
            raise ValueError("surrogate 'raw' needs reads 'embedding': a representation has length one")
        return self


class BinSums(NamedTuple):
    """Number of rows and sum of their vectors by label bin."""

    counts: Int[Tensor, " bins"]
    vectors: Float[Tensor, "bins dim"]

    def __add__(self, other: "BinSums") -> "BinSums":  # type: ignore[override]
        return BinSums(self.counts + other.counts, self.vectors + other.vectors)


class FittedSRL(nn.Module):
    """SRL with its surrogate: the running mean of each label bin over the epochs."""

    running: Tensor
    """Mean vectors by bin, zero before the first epoch has ended."""
    known: Tensor
    """True for bins with training rows, after the first epoch."""
    epochs: Tensor
    """Number of ended epochs."""
    points: Tensor
    """Unit vectors, `(points, dim)`."""
    bin_values: Tensor
    """Centers of the bins, in bins."""

    def __init__(self, settings: SRL, labels: TrainingLabels) -> None:
        super().__init__()
        self.settings = settings
        dim, bins = labels.dims[settings.reads], labels.spec.num_bins
        centers = torch.from_numpy(label_prior.compute_bin_centers(labels)) / labels.spec.bin_width
        generator = torch.Generator().manual_seed(derive_seed(labels.seed, "srl points"))
        self.register_buffer("bin_values", centers, persistent=False)
        self.register_buffer("points", _draw_points(settings.points, dim, generator), persistent=False)
        self.register_buffer("running", torch.zeros(bins, dim, dtype=torch.float64))
        self.register_buffer("known", torch.zeros(bins, dtype=torch.bool))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))
        self._ended: int | None = None

    def forward(self, inputs: TermInputs) -> Float[Tensor, ""]:
        """Return the weighted sum of the three parts."""
        settings = self.settings
        with pairs.full_precision(inputs.representations) as z:
            is_ready = self._count_epochs() >= settings.start
            if not is_ready and settings.before == "off":
                return (z * 0.0).sum()
            points = self.points
            if settings.points_per == "step":
                drawn = _draw_points(settings.points, z.shape[1], draws.make_generator(inputs, "srl points"))
                points = to_device(drawn, z.device)
            parts = srl(
                z,
                inputs.label_bins.clamp(0, len(self.known) - 1),
                surrogate=self.running.to(z.dtype) if is_ready else torch.zeros_like(self.running, dtype=z.dtype),
                points=points.to(z),
                bin_values=self.bin_values.to(z.dtype),
                left_out=~self.known if is_ready else None,
                tau=settings.tau,
                form=settings.homogeneity_form,
                label_factor=settings.label_factor,
            )
            weights = (settings.contrast, settings.envelope, settings.homogeneity)
            return sum((weight * part for weight, part in zip(weights, parts, strict=True)), start=z.new_zeros(()))

    def make_empty_statistics(self) -> BinSums:
        """Return the sums of no row."""
        return BinSums(torch.zeros_like(self.known, dtype=torch.long), torch.zeros_like(self.running))

    def compute_statistics(self, rows: EvaluatedRows) -> BinSums:
        """Return the sums of some rows, in float64."""
        vectors = rows.vectors.double()
        if self.settings.surrogate == "normalized":
            vectors = pairs.normalize_rows(vectors)
        empty = self.make_empty_statistics()
        bins = rows.label_bins.long()
        return BinSums(
            empty.counts.index_add(0, bins, torch.ones_like(bins)), empty.vectors.index_add(0, bins, vectors)
        )

    def end_epoch(self, statistics: BinSums) -> None:
        """Move the surrogate of every bin that has rows to their mean; the first epoch sets it."""
        is_there = statistics.counts > 0
        means = statistics.vectors / statistics.counts.clamp(min=1)[:, None]
        momentum = self.settings.momentum if self._count_epochs() > 0 else 0.0
        moved = momentum * self.running + (1 - momentum) * means
        # In place, because a distributed wrapper may keep references to buffers.
        self.running.copy_(torch.where(is_there[:, None], moved, self.running))
        self.known.logical_or_(is_there)
        self.epochs.add_(1)
        self._ended = None

    def _count_epochs(self) -> int:
        # Read once an epoch: in each step, the host would wait for a GPU.
        if self._ended is None:
            self._ended = int(self.epochs)
        return self._ended

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._ended = None


def srl(
    vectors: Float[Tensor, "rows dim"],
    label_bins: Int[Tensor, " rows"],
    *,
    surrogate: Float[Tensor, "bins dim"],
    points: Float[Tensor, "points dim"],
    bin_values: Float[Tensor, " bins"],
    left_out: Bool[Tensor, " bins"] | None = None,
    tau: float,
    form: HomogeneityForm = "paper",
    label_factor: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Return contrast, envelope and homogeneity.

    With the directions `f_i`, and the centers `c_k` of length one (the mean direction of the batch's rows in bin k; that of the
    surrogate, without a gradient, for a bin without rows),

        contrast      mean_i ( log sum_k exp(f_i . c_k / tau) - f_i . c_y(i) / tau ), the centers without a gradient
        envelope      1 - mean_q max_k u_q . c_k                                     over the points u_q
        homogeneity   sum_k |c_(k+1) - c_k|^2 / (b_(k+1) - b_k)                      over neighbors, b the bin values

    The paper has no 1 in the envelope, which changes no gradient. Bins that are left out and in no row are in no sum.
    """
    directions = pairs.normalize_rows(vectors)
    counts = label_bins.new_zeros(len(surrogate)).index_add(0, label_bins, torch.ones_like(label_bins))
    sums = vectors.new_zeros(surrogate.shape).index_add(0, label_bins, directions)
    means = sums / counts.clamp(min=1)[:, None]
    is_present = torch.linalg.vector_norm(means.detach(), dim=1) > _MIN_LENGTH
    centers = pairs.normalize_rows(torch.where(is_present[:, None], means, surrogate))
    is_kept = torch.ones_like(counts, dtype=torch.bool) if left_out is None else ~left_out | (counts > 0)
    label_bins = (is_kept.long().cumsum(0) - 1)[label_bins]
    if vectors.is_cuda:
        # Not their number, for which the host would wait: behind the bins that are kept, the first of them stands for the others.
        bins = (~is_kept).long().argsort(stable=True)
        is_kept = is_kept[bins]
        bins = torch.where(is_kept, bins, bins[0])
    else:
        bins = is_kept.nonzero().squeeze(1)
        is_kept = is_kept[bins]
    centers, bin_values = centers.index_select(0, bins), bin_values[bins]

    logits = pairs.cosine_matrix(directions, centers.detach()) / tau
    weighted = logits
    if label_factor:
        factors = ((bins[label_bins][:, None] - bins).abs() + 1).to(logits.dtype)
        weighted = logits + (factors / factors.max()).log()
    own = logits.gather(1, label_bins[:, None]).squeeze(1)
    contrast = (torch.logsumexp(weighted.masked_fill(~is_kept, -torch.inf), dim=1) - own).mean()

    envelope = 1 - pairs.cosine_matrix(points, centers).max(dim=1).values.mean()
    return contrast, envelope, _compute_homogeneity(centers, bin_values, is_kept[1:], form)


def _compute_homogeneity(
    centers: Float[Tensor, "bins dim"],
    bin_values: Float[Tensor, " bins"],
    are_neighbors: Bool[Tensor, " pairs"],
    form: HomogeneityForm,
) -> Float[Tensor, ""]:
    if form == "paper":
        gaps = torch.where(are_neighbors, bin_values.diff(), torch.inf)
        return (centers.diff(dim=0).square().sum(dim=1) / gaps).sum()
    cosines = torch.where(are_neighbors, (centers[1:] * centers[:-1]).sum(dim=1), 0.0)
    total, number = cosines.sum(), are_neighbors.sum()
    deviations = torch.where(are_neighbors, cosines - total / number.clamp(min=1), 0.0)
    spread = deviations.square().sum() / (number - 1).clamp(min=1)
    return (-total if form == "cosine" else total) + 0.1 * spread


def _draw_points(number: int, dim: int, generator: torch.Generator) -> Float[Tensor, "points dim"]:
    return pairs.normalize_rows(torch.randn(number, dim, generator=generator, dtype=torch.float64))
