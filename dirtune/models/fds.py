"""Feature distribution smoothing (FDS): embeddings are calibrated to statistics smoothed over neighboring label bins.

For every label bin `b`, mean `mu_b` and variance `v_b` of each embedding dimension are tracked over the training split.
Convolved over the bins with a kernel they become `mu~_b` and `v~_b`, and in training the predictor reads

    e' = (e - mu_b) * sqrt(clip(v~_b / v_b, low, high)) + mu~_b

so that the features of a rare label borrow from those of its neighbors. At the end of epoch `t` the statistics of the
epochs before `t` are frozen and smoothed, and then updated with those of epoch `t`:
`mu_b <- (1 - f) mean_b + f mu_b`, the same for `v_b`. Smoothing therefore has an effect from the second epoch after
`start_update` on.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; official repository
YyzHarry/imbalanced-regression (`{agedb,sts-b,nyud2}-dir/**/fds.py`). The paper whitens with full covariances, the code
and this module treat dimensions separately. Departures from the code: 1. frozen statistics stay frozen, and statistics
are computed from unsmoothed embeddings (`FDS.published_aliasing` restores both defects); 2. a bin below `first_bin`
always counts as `first_bin`, as in the code for depth; for ages the code does so only if the batch has a sample of exactly
that bin and skips the sample otherwise, and the same holds for labels beyond the last bin, which label bins have clipped
before; 3. bins come from `dirtune.reweighting.density.label_bins`; 4. variances come from squared deviations, summed and
merged in float64, and are never negative; 5. the convolution over bins runs in the precision of the statistics and never
in TF32; 6. epochs are counted here, so that no skipped call can stop the updates for the rest of the run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dirtune.errors import Fault, InputError
from dirtune.losses.pairs import to_at_least_float32
from dirtune.reweighting import fds, lds

Moments = Float[Tensor, "2 bins dim"]
"""Mean and variance of every bin."""

# A bin whose variances sum to less is not calibrated: the ratio of two such variances is rounding noise.
_MIN_VARIANCE = 1e-10


@dataclass(frozen=True)
class BinStatistics:
    """Count, mean and squared deviations of embeddings per bin; `a + b` are the statistics of both sets together.

    Merged by the method of Chan, Golub and LeVeque (COMPSTAT 1982): a sum of squares less the squared mean would lose
    the variance of embeddings far from zero, or make it negative.
    """

    count: Int[Tensor, " bins"]
    mean: Float[Tensor, "bins dim"]
    squares: Float[Tensor, "bins dim"]
    """Sum of squared deviations from the mean."""

    @classmethod
    def from_rows(cls, rows: Float[Tensor, "rows dim"], bins: Int[Tensor, " rows"], num_bins: int) -> "BinStatistics":
        """Return the statistics, in float64, of zero or more rows."""
        rows = rows.double()
        count = torch.bincount(bins, minlength=num_bins)
        zeros = rows.new_zeros(num_bins, rows.shape[1])
        mean = zeros.index_add(0, bins, rows) / count.clamp(min=1)[:, None]
        return cls(count, mean, zeros.index_add(0, bins, (rows - mean[bins]).square()))

    def __add__(self, other: "BinStatistics") -> "BinStatistics":
        count = self.count + other.count
        share = (other.count.double() / count.clamp(min=1))[:, None]
        delta = other.mean - self.mean
        between = delta.square() * self.count[:, None] * share
        return BinStatistics(count, self.mean + delta * share, self.squares + other.squares + between)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.count, self.mean, self.squares))

    @property
    def variance(self) -> Float[Tensor, "bins dim"]:
        """Unbiased variance; zero for a bin of one sample or none."""
        return self.squares / (self.count - 1).clamp(min=1)[:, None]


class Calibration(NamedTuple):
    """Affine map of the embeddings of each bin: `(e - center) * scale + target`."""

    center: Float[Tensor, "bins dim"]
    scale: Float[Tensor, "bins dim"]
    target: Float[Tensor, "bins dim"]


def make_calibration(
    moments: Moments, smoothed: Moments, *, clip: tuple[float, float], zero_variance: fds.ZeroVariance
) -> Calibration:
    """Return the map from each bin's moments to the smoothed ones; the identity where there is no variance.

    A bin is not calibrated if its variances sum to less than 1e-10; a dimension (or by `zero_variance` its whole bin) is
    not if its own variance is zero.
    """
    (mean, variance), (smoothed_mean, smoothed_variance) = moments, smoothed
    usable = variance.sum(dim=1, keepdim=True) >= _MIN_VARIANCE
    if zero_variance == "skip_dimension":
        usable = usable & (variance != 0)
    else:
        is_valid = (variance > 0) & (smoothed_variance >= 0)
        usable = (usable & is_valid.all(dim=1, keepdim=True)).expand_as(variance)
    ratio = (smoothed_variance / torch.where(usable, variance, 1.0)).clamp(*clip)
    return Calibration(
        torch.where(usable, mean, 0.0), torch.where(usable, ratio.sqrt(), 1.0), torch.where(usable, smoothed_mean, 0.0)
    )


class FeatureSmoothing(nn.Module):
    """FDS as a module of the regressor: smooths in training mode, is the identity in evaluation mode.

    Its state is the buffers, with one row per label bin from `first_bin` on, and the number of epochs ended; both are in
    checkpoints. Buffers change in place, because `DistributedDataParallel` keeps references to them.

    Args:
        settings: FDS as a value.
        dim: embedding size.
        num_bins: number of label bins.

    Raises:
        InputError: the kernel window is too wide for the label bins, at whose ends the statistics are mirrored.
    """

    running: Tensor
    """Moments, updated by every epoch."""
    frozen: Tensor
    """The running moments before the last update."""
    smoothed: Tensor
    """The frozen moments, convolved over the bins."""
    count: Tensor
    """Samples per bin, summed over all epochs."""
    window: Tensor
    """The kernel, normalized to sum one."""

    def __init__(self, settings: fds.FDS, dim: int, num_bins: int) -> None:
        super().__init__()
        self.settings = settings
        self.epochs = 0
        """Number of epochs ended."""
        rows = num_bins - settings.first_bin
        if rows <= settings.size // 2:
            rule = f"half the window must be narrower than the {rows} label bins from first_bin on"
            fault = Fault(where="reweighting.fds", key="size", rule=rule, got=settings.size)
            raise InputError(fault)
        for name in ("running", "frozen", "smoothed"):
            moments = torch.stack([torch.zeros(rows, dim), torch.ones(rows, dim)])
            self.register_buffer(name, moments)
        self.register_buffer("count", torch.zeros(rows, dtype=torch.int64))
        window = torch.from_numpy(lds.make_kernel_window(settings.kernel, settings.size, settings.sigma))
        # Not persistent: it follows from the settings.
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)

    def forward(
        self, embeddings: Float[Tensor, "batch dim *space"], label_bins: Int[Tensor, "batch *space"]
    ) -> Float[Tensor, "batch dim *space"]:
        """Return the smoothed embeddings, in at least float32 once smoothing has begun.

        The moments are constants to the gradient. Dense embeddings `(batch, dim, height, width)` have a bin per pixel.

        Args:
            embeddings: output of the encoder.
            label_bins: bins of the same samples; a bin below zero is not smoothed, as for views without regression loss.
        """
        # A compiled graph would treat the number of epochs as a constant.
        if torch.compiler.is_compiling():
            smoothed: Tensor = torch.compiler.disable(self._smooth)(embeddings, label_bins)
            return smoothed
        return self._smooth(embeddings, label_bins)

    def make_empty_statistics(self) -> BinStatistics:
        """Return the statistics of zero samples, to which batches are added."""
        return BinStatistics.from_rows(self.running[0, :0], self.count[:0], len(self.count))

    @torch.no_grad()
    def compute_statistics(
        self, embeddings: Float[Tensor, "batch dim *space"], label_bins: Int[Tensor, "batch *space"]
    ) -> BinStatistics:
        """Return the statistics of a batch; those of batches and ranks add up to those of the epoch."""
        if self.settings.published_aliasing and self._has_begun:
            embeddings = self._calibrate(embeddings, label_bins)
        rows = embeddings.movedim(1, -1).flatten(0, -2)
        return BinStatistics.from_rows(rows, self._to_rows(label_bins).flatten(), len(self.count))

    @torch.no_grad()
    def end_epoch(self, statistics: BinStatistics) -> None:
        """Freeze and smooth the moments of the earlier epochs, then update them with this epoch's statistics."""
        since_start = self.epochs - self.settings.start_update
        if since_start > 0:
            # Copied in place: DistributedDataParallel keeps references to the buffers.
            self.frozen.copy_(self.running)
            self.smoothed.copy_(self._convolve(self.running))
        if since_start >= 0:
            self._update(statistics, is_first=since_start == 0)
        if since_start > 0 and self.settings.published_aliasing:
            self.frozen.copy_(self.running)
        self.epochs += 1

    def get_extra_state(self) -> Tensor:
        """Return the number of epochs ended, as a CPU tensor: reading it from the device would wait for the queue."""
        return torch.tensor(self.epochs)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of epochs ended."""
        self.epochs = int(state)

    @property
    def _has_begun(self) -> bool:
        return self.epochs >= self.settings.start_smooth

    def _smooth(self, embeddings: Tensor, label_bins: Tensor) -> Tensor:
        if not self.training or not self._has_begun:
            return embeddings
        return self._calibrate(embeddings, label_bins)

    def _calibrate(self, embeddings: Tensor, label_bins: Tensor) -> Tensor:
        rows = to_at_least_float32(embeddings).movedim(1, -1)
        clip, zero_variance = self.settings.clip, self.settings.zero_variance
        of_bins = make_calibration(self.frozen, self.smoothed, clip=clip, zero_variance=zero_variance)
        center, scale, target = (each[self._to_rows(label_bins)] for each in of_bins)
        calibrated = (rows - center) * scale + target
        return torch.where(label_bins[..., None] < 0, rows, calibrated).movedim(-1, 1)

    def _to_rows(self, label_bins: Tensor) -> Tensor:
        return (label_bins - self.settings.first_bin).clamp(min=0)

    def _convolve(self, moments: Moments) -> Moments:
        half = self.settings.size // 2
        mirrored = F.pad(moments.mT, (half, half), mode="reflect")
        # A sum of products and no convolution, which may run in TF32 on a GPU
        return (mirrored.unfold(2, self.settings.size, 1) * self.window).sum(dim=-1).mT

    def _update(self, statistics: BinStatistics, *, is_first: bool) -> None:
        self.count += statistics.count
        # f, the share of a bin's old moments; without a momentum, the share of its earlier samples
        old_share = 1 - statistics.count / self.count.clamp(min=1).to(self.running.dtype)
        if self.settings.momentum is not None:
            old_share = torch.full_like(old_share, self.settings.momentum)
        if is_first:
            old_share = torch.zeros_like(old_share)
        old_share = old_share[:, None]
        new = torch.stack([statistics.mean, statistics.variance]).to(self.running.dtype)
        has_samples = statistics.count > 0
        updated = (1 - old_share) * new + old_share * self.running
        self.running.copy_(torch.where(has_samples[:, None], updated, self.running))
        if self.settings.fill_empty:
            _fill_empty_bins(self.running, has_samples)


def _fill_empty_bins(moments: Moments, has_samples: Bool[Tensor, " bins"]) -> None:
    """Replace each empty bin's moments by its neighbors' mean, in ascending order: the left one may be a filled one."""
    last = len(has_samples) - 1
    for empty in (~has_samples).nonzero().flatten().tolist():
        neighbors = [each for each in (empty - 1, empty + 1) if 0 <= each <= last]
        moments[:, empty] = moments[:, neighbors].mean(dim=1)
