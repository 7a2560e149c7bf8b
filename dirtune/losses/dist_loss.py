"""Dist Loss: matches the sorted predictions of a batch to quantiles of the distribution of the training labels.

Nie et al., "Dist Loss: Enhancing Regression in Few-Shot Region through Distribution Distance Constraint", ICLR 2025. Official
code: github.com/Ngk03/DIR-Dist-Loss, `agedb-dir/loss_utils.py`, `dist_loss.py`. The label density is a Gaussian kernel
estimate on a grid; pseudo-labels are as many labels of it as a batch has rows; sorted predictions are compared with them, and
predictions with their own labels.

Departures: (1) pseudo-labels are quantiles of the density (`pseudo_labels`), where the code rounds counts, which are biased for
batches below some hundred rows (AgeDB's mean of 45 becomes 30 with 8 rows) and may be negative; (2) the weight of a rank is that
of its pseudo-label's bin (`weights`), where the code multiplies the rank by the weight of whatever row has that place in the
batch; (3) the soft sort is evaluated on the device in float32 or float64, where the code moves the batch to the CPU; (4) one
distinct label, to which no density can be fitted, is every pseudo-label.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TrainingLabels
from dirtune.frozen import Frozen
from dirtune.losses import focal, label_prior, pairs, pointwise
from dirtune.losses.needs import Needs
from dirtune.losses.units import InBins


class DistLoss(Frozen):
    """L1 or another loss of errors plus the distance of sorted predictions to label quantiles (Nie et al., ICLR 2025)."""

    name: Literal["dist"] = "dist"
    needs: ClassVar[Needs] = Needs(scalar_labels=True, samples=2)
    distance: Literal["l1", "mse", "focal_l1", "huber"] = "l1"
    """Loss of single errors, of predictions from labels and of sorted predictions from pseudo-labels. Official: l1."""
    focal_beta: Annotated[float, InBins(power=-1, of_loss=True)] = Field(default=0.2, gt=0)
    """Growth rate of the factor of focal_l1, per unit of the labels that the loss is given; not given: 0.2 per label bin, as
    officially on ages."""
    huber_beta: Annotated[float, InBins(of_loss=True)] = Field(default=1.0, gt=0)
    """Largest error with a squared loss in huber, in the unit of the labels that the loss is given; not given: one label bin, as
    officially on ages."""
    distribution_weight: float = Field(default=1.0, ge=0)
    """Weight of the distribution part (lambda); 0 switches it off. Official: 1."""
    bandwidth: float = Field(default=0.5, gt=0)
    """Bandwidth of the density as a share of the labels' standard deviation. Official: 0.5 (code), 0.4 (README). The density is
    wider than the labels are: at 0.5 on AgeDB its deviation is 17.6 years, and theirs 15.8."""
    sorting: Annotated[float, InBins(power=-1, of_loss=True)] = Field(default=0.1, gt=0)
    """Strength of the soft sort (epsilon), per unit of the labels that the loss is given: sorted predictions are averaged where
    neighbors are more than `1 / sorting` apart, and exactly sorted elsewhere; not given: 0.1 per label bin. Official: 0.1
    (code), 0.01 (README)."""
    pseudo_labels: Literal["quantile", "counts"] = "quantile"
    """quantile: the label at which the density has reached (k - 1/2) / B, for B rows; counts: the code's rounded counts."""
    weights: Literal["label", "position"] = "label"
    """Weight of a rank in the distribution part. label: that of its pseudo-label's bin; position: as in the code, that of the row
    with its number in the batch."""
    grid: tuple[float, float, float] | None = None
    """Lowest label, highest label and step of the density's grid, in the label's unit; labels outside are left out of it. null:
    the centers of the label bins. Official: 0, 120, 1 (code); 1, 101, 1 (README)."""

    def fit(self, labels: TrainingLabels) -> "FittedDistLoss":
        """Return the loss with the density of the training labels, and the weights of their bins."""
        return FittedDistLoss(self, labels)

    def compute_elementwise(self, residuals: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Return the loss of each error."""
        losses: dict[str, pointwise.PointLoss] = {
            "l1": pointwise.L1(),
            "mse": pointwise.MSE(),
            "focal_l1": focal.FocalL1(beta=self.focal_beta),
            "huber": pointwise.Huber(beta=self.huber_beta),
        }
        return losses[self.distance].compute_elementwise(residuals)


class FittedDistLoss(nn.Module):
    """Dist Loss with the label density of the training rows, in buffers."""

    grid: Tensor
    """Labels at which the density is known, in the unit of the loss."""
    density: Tensor
    """Their shares, of sum one."""
    grid_weights: Tensor
    """Sample weight of each grid point's label bin."""

    def __init__(self, settings: DistLoss, labels: TrainingLabels) -> None:
        super().__init__()
        self.settings = settings
        values = inside = labels.labels.double().cpu().numpy()
        if settings.grid is None:
            grid = label_prior.compute_bin_centers(labels)
        else:
            low, high, step = settings.grid
            grid = low + step * np.arange(round((high - low) / step) + 1, dtype=np.float64)
            inside = values[(values >= low) & (values <= high)]
        grid, density = estimate_density(inside if len(inside) else values, grid, bandwidth=settings.bandwidth)
        self.register_buffer("grid", torch.from_numpy(grid / labels.label_scale))
        self.register_buffer("density", torch.from_numpy(density))
        weights = np.ones(len(values)) if labels.weights is None else labels.weights.double().cpu().numpy()
        # A grid point has the weight of the training row with the nearest label.
        known, first = np.unique(values, return_index=True)
        middles = (known[1:] + known[:-1]) / 2
        self.register_buffer("grid_weights", torch.from_numpy(weights[first[np.searchsorted(middles, grid)]]))

    def forward(
        self,
        predictions: Float[Tensor, " rows"],
        labels: Float[Tensor, " rows"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch; None for the weights means all are one."""
        with pairs.full_precision(predictions[:, None]) as column:
            p = column.squeeze(1)
            indices = select_pseudo_labels(self.density, len(p), form=self.settings.pseudo_labels)
            by_position = self.settings.weights == "position"
            return dist_loss(
                p,
                labels.to(p.dtype),
                self.grid[indices].to(p.dtype),
                weights,
                weights if by_position else self.grid_weights[indices].to(p.dtype),
                settings=self.settings,
            )


def dist_loss(
    predictions: Float[Tensor, " rows"],
    labels: Float[Tensor, " rows"],
    pseudo_labels: Float[Tensor, " rows"],
    weights: Float[Tensor, " rows"] | None = None,
    rank_weights: Float[Tensor, " rows"] | None = None,
    *,
    settings: DistLoss,
) -> Float[Tensor, ""]:
    """Return `mean_k lambda v_k l(s_k - q_k) + w_k l(p_k - y_k)` with the soft-sorted predictions s and pseudo-labels q.

    Args:
        predictions: p, in the unit of the labels.
        labels: y.
        pseudo_labels: q, ascending.
        weights: w, of the samples; None means all are one.
        rank_weights: v, of the ranks; None means all are one.
        settings: the loss as a value.
    """
    point = pointwise.compute_weighted_mean(settings.compute_elementwise(predictions - labels), weights)
    ordered = soft_sort(predictions, settings.sorting)
    ranked = pointwise.compute_weighted_mean(settings.compute_elementwise(ordered - pseudo_labels), rank_weights)
    return settings.distribution_weight * ranked + point


def soft_sort(values: Float[Tensor, " rows"], strength: float) -> Float[Tensor, " rows"]:
    """Return the values in ascending order, by the projection onto the permutahedron (Blondel et al., ICML 2020).

    With `rho_k = (B + 1 - k) / strength` it is `v_k - rho_k`, where v is the non-increasing isotonic regression of the sorted
    values plus rho. That pools neighbors only across gaps above `1 / strength`; without any it is `torch.sort`.
    """
    ordered = values.sort(stable=True).values
    # The step waits here for the device once; blocks, which are rare, are found on the CPU.
    if len(values) < 2 or not bool((ordered.detach().diff() > 1 / strength).any()):
        return ordered
    # Imported here, because it takes long and most runs never need it.
    from scipy.optimize import isotonic_regression

    rho = torch.arange(len(values), 0, -1, dtype=torch.float64) / strength
    starts = isotonic_regression((ordered.detach().double().cpu() + rho).numpy(), increasing=False).blocks
    sizes = torch.from_numpy(np.diff(starts)).to(values.device)
    blocks = torch.repeat_interleave(torch.arange(len(sizes), device=values.device), sizes)

    def average(numbers: Tensor) -> Tensor:
        return (numbers.new_zeros(len(sizes)).index_add(0, blocks, numbers) / sizes)[blocks]

    # Means of values and of rho apart: their sum would cost digits.
    rho = rho.to(values)
    return average(ordered) + average(rho) - rho


def estimate_density(
    labels: np.typing.NDArray[np.float64], grid: np.typing.NDArray[np.float64], *, bandwidth: float
) -> tuple[np.typing.NDArray[np.float64], np.typing.NDArray[np.float64]]:
    """Return the grid and the Gaussian kernel density of the labels on it, of sum one; one distinct label is its own grid.

    Args:
        labels: of the training rows.
        grid: ascending.
        bandwidth: standard deviation of the kernel, as a share of that of the labels.
    """
    values, counts = np.unique(labels, return_counts=True)
    if len(values) == 1:
        return values, np.ones(1)
    mean = np.average(values, weights=counts)
    deviation = np.sqrt((counts * (values - mean) ** 2).sum() / (counts.sum() - 1))

    def square_distances(x: float) -> np.typing.NDArray[np.float64]:
        return np.asarray(np.square((x - values) / (bandwidth * deviation)), dtype=np.float64)

    # One grid point at a time: labels may be as many as rows.
    nearest = min(square_distances(x).min() for x in grid)
    # Without the common factor of the nearest pair, all exponentials underflow where the grid is far coarser than the kernel.
    density = np.array([(counts * np.exp(-0.5 * (square_distances(x) - nearest))).sum() for x in grid])
    return grid, density / density.sum()


def select_pseudo_labels(density: Tensor, rows: int, *, form: Literal["quantile", "counts"]) -> Tensor:
    """Return the ascending indices of the grid points that are the pseudo-labels of a batch."""
    if form == "counts":
        counts = compute_counts(density.cpu().numpy(), rows).clip(min=0)
        # Negative counts leave more labels than rows, of which the code has the last.
        return torch.from_numpy(np.repeat(np.arange(len(counts)), counts)[-rows:]).to(density.device)
    reached = (torch.arange(rows, device=density.device, dtype=density.dtype) + 0.5) / rows
    return torch.searchsorted(density.cumsum(0), reached).clamp(max=len(density) - 1)


def compute_counts(density: np.typing.NDArray[np.float64], rows: int) -> np.typing.NDArray[np.int64]:
    """Return the number of pseudo-labels at each grid point as the official code rounds them; some may be negative.

    From either end, the first point at which the running sum of `rows * density` reaches one gets that sum, rounded; the points
    between are rounded on their own. What is missing is added one by one to consecutive points around the largest count, and
    what is left over is taken from them.
    """
    shares = rows * density
    from_left, from_right = np.cumsum(shares), np.cumsum(shares[::-1])[::-1]
    left = int(np.argmax(from_left >= 1))
    right = len(shares) - 1 - int(np.argmax(from_right[::-1] >= 1))
    counts = np.zeros(len(shares), dtype=np.int64)
    counts[left + 1 : right] = np.round(shares[left + 1 : right])
    counts[left] += round(from_left[left])
    if right != left:
        counts[right] = round(from_right[right])
    missing = rows - int(counts.sum())
    most = max(len(counts) // 2, 1)
    while missing:
        width = min(abs(missing), most)
        start = int(np.clip(counts.argmax() - width // 2, 0, len(counts) - width))
        counts[start : start + width] += np.sign(missing)
        missing -= int(np.sign(missing)) * width
    return counts
