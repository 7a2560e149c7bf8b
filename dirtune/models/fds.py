"""Feature distribution smoothing (FDS): embeddings are moved to what the neighbouring label bins say of their bin.

For every label bin `b`, mean `mu_b` and variance `v_b` of each embedding dimension are tracked over the training split.
Convolved over the bins with a kernel they become `mu~_b` and `v~_b`, and in training the predictor reads

    e' = (e - mu_b) * sqrt(clip(v~_b / v_b, low, high)) + mu~_b

so that a rare label's features lean on those of the labels beside it. At the end of epoch `t` the statistics that the
epochs before `t` left are frozen and smoothed, and then updated with those of epoch `t`:
`mu_b <- (1 - f) mean_b + f mu_b`, the same for `v_b`. Smoothing therefore changes something from the second epoch after
`start_update` on.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; official repository
YyzHarry/imbalanced-regression (`{agedb,sts-b,nyud2}-dir/**/fds.py`). The paper whitens with full covariances, the code
and this module treat dimensions apart. Departures from the code: 1. what is frozen stays frozen and statistics are of
unsmoothed embeddings (`FDS.published_aliasing` restores both defects); 2. a bin below `first_bin` always counts as
`first_bin`, as on depth; on ages it does so only where a sample of exactly that bin is in the batch and is skipped
otherwise, and the same holds for labels beyond the last bin, which label bins have clipped before; 3. bins come from
`dirtune.reweighting.density.label_bins`; 4. variances come from squared deviations, summed and merged in float64, and
are never negative; 5. the kernel meets the bins in the precision of the statistics and never in TF32; 6. epochs are
counted here, so that no call can skip one and stop the updates for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dirtune.errors import Fault, InputError
from dirtune.reweighting.fds import FDS, ZeroVariance
from dirtune.reweighting.lds import kernel_window

Moments = Float[Tensor, "2 bins dim"]
"""Mean and variance of every bin."""

# Summed over the dimensions; a bin below it is left as it is
_LEAST_VARIANCE = 1e-10


@dataclass(frozen=True)
class BinStatistics:
    """Count, mean and squared deviations of embeddings per bin; `a + b` are the statistics of both sets together.

    Merged as Chan, Golub and LeVeque do (COMPSTAT 1982): a sum of squares less the squared mean would lose the variance
    of embeddings far from zero, or make it negative.
    """

    count: Int[Tensor, " bins"]
    mean: Float[Tensor, "bins dim"]
    squares: Float[Tensor, "bins dim"]
    """Sum of squared deviations from the mean."""

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"], bins: Int[Tensor, " rows"], num_bins: int) -> BinStatistics:
        """The statistics of some rows, there may be none, in float64."""
        rows = rows.double()
        count = torch.bincount(bins, minlength=num_bins)
        none = rows.new_zeros(num_bins, rows.shape[1])
        mean = none.index_add(0, bins, rows) / count.clamp(min=1)[:, None]
        return cls(count, mean, none.index_add(0, bins, (rows - mean[bins]).square()))

    def __add__(self, other: BinStatistics) -> BinStatistics:
        count = self.count + other.count
        share = (other.count.double() / count.clamp(min=1))[:, None]
        delta = other.mean - self.mean
        between = delta.square() * self.count[:, None] * share
        return BinStatistics(count, self.mean + delta * share, self.squares + other.squares + between)

    @property
    def variance(self) -> Float[Tensor, "bins dim"]:
        """The unbiased variance; zero for a bin of one sample or none."""
        return self.squares / (self.count - 1).clamp(min=1)[:, None]


class Calibration(NamedTuple):
    """What maps the embeddings of each bin: `(e - centre) * scale + target`."""

    centre: Float[Tensor, "bins dim"]
    scale: Float[Tensor, "bins dim"]
    target: Float[Tensor, "bins dim"]


def calibration(
    moments: Moments, smoothed: Moments, *, clip: tuple[float, float], zero_variance: ZeroVariance
) -> Calibration:
    """The map from a bin's moments to the smoothed ones; the identity where there is no variance.

    A bin is left as it is where its variances sum to less than 1e-10, and a dimension, or its whole bin, where its own
    variance is zero.
    """
    (mean, variance), (smoothed_mean, smoothed_variance) = moments, smoothed
    usable = variance.sum(dim=1, keepdim=True) >= _LEAST_VARIANCE
    if zero_variance == "skip_dimension":
        usable = usable & (variance != 0)
    else:
        is_sound = (variance > 0) & (smoothed_variance >= 0)
        usable = (usable & is_sound.all(dim=1, keepdim=True)).expand_as(variance)
    ratio = (smoothed_variance / torch.where(usable, variance, 1.0)).clamp(*clip)
    return Calibration(
        torch.where(usable, mean, 0.0), torch.where(usable, ratio.sqrt(), 1.0), torch.where(usable, smoothed_mean, 0.0)
    )


class FeatureSmoothing(nn.Module):
    """FDS as a module of the regressor: smooths in training mode, is the identity otherwise.

    Its buffers hold one row per label bin from `first_bin` on and are, with the number of epochs ended, its state: a
    run continued from a checkpoint goes on as if it had not stopped. Buffers change in place, so that whoever holds
    them (`DistributedDataParallel` does) holds the current ones.

    Args:
        settings: FDS as a value.
        dim: of the embedding.
        num_bins: of the label.

    Raises:
        InputError: the kernel window is too wide for the label bins, beyond whose ends the statistics are mirrored.
    """

    running: Tensor
    """Moments as updated by every epoch."""
    frozen: Tensor
    """The running ones before the last update."""
    smoothed: Tensor
    """The frozen ones convolved."""
    count: Tensor
    """Samples seen per bin, over all epochs."""
    window: Tensor
    """The kernel, with sum one."""

    def __init__(self, settings: FDS, dim: int, num_bins: int) -> None:
        super().__init__()
        self.settings = settings
        self.epochs = 0
        """Epochs ended."""
        rows = num_bins - settings.first_bin
        if rows <= settings.size // 2:
            rule = f"half the window must be narrower than the {rows} label bins from first_bin on"
            fault = Fault(where="reweighting.fds", key="size", rule=rule, got=settings.size)
            raise InputError(fault)
        for name in ("running", "frozen", "smoothed"):
            moments = torch.stack([torch.zeros(rows, dim), torch.ones(rows, dim)])
            self.register_buffer(name, moments)
        self.register_buffer("count", torch.zeros(rows, dtype=torch.int64))
        window = torch.from_numpy(kernel_window(settings.kernel, settings.size, settings.sigma))
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)

    def forward(
        self, embeddings: Float[Tensor, "batch dim *space"], label_bins: Int[Tensor, "batch *space"]
    ) -> Float[Tensor, "batch dim *space"]:
        """The embeddings as the predictor shall read them, in float32 at least once smoothing has begun.

        The moments are constants to the gradient. Dense embeddings `(batch, dim, height, width)` have a bin per pixel.

        Args:
            embeddings: raw.
            label_bins: of the same samples; below zero: not to be smoothed, as for views that enter no regression loss.
        """
        # It would take the number of epochs for a constant
        if torch.compiler.is_compiling():
            smoothed: Tensor = torch.compiler.disable(self._smoothed)(embeddings, label_bins)
            return smoothed
        return self._smoothed(embeddings, label_bins)

    def no_statistics(self) -> BinStatistics:
        """The statistics of no batch."""
        return BinStatistics.of(self.running[0, :0], self.count[:0], len(self.count))

    @torch.no_grad()
    def statistics(
        self, embeddings: Float[Tensor, "batch dim *space"], label_bins: Int[Tensor, "batch *space"]
    ) -> BinStatistics:
        """What a batch adds to the statistics of an epoch; batches and ranks add up."""
        if self.settings.published_aliasing and self._has_begun:
            embeddings = self._calibrated(embeddings, label_bins)
        rows = embeddings.movedim(1, -1).flatten(0, -2)
        return BinStatistics.of(rows, self._rows_of(label_bins).flatten(), len(self.count))

    @torch.no_grad()
    def end_epoch(self, statistics: BinStatistics) -> None:
        """Freeze and smooth what the earlier epochs left, then take in the statistics of the one that ends."""
        since_start = self.epochs - self.settings.start_update
        if since_start > 0:
            self.frozen.copy_(self.running)
            self.smoothed.copy_(self._convolved(self.running))
        if since_start >= 0:
            self._update(statistics, is_first=since_start == 0)
        if since_start > 0 and self.settings.published_aliasing:
            self.frozen.copy_(self.running)
        self.epochs += 1

    def get_extra_state(self) -> Tensor:
        """The number of epochs ended: a tensor in the state, but not on the device, where reading it would wait."""
        return torch.tensor(self.epochs)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up the number of epochs ended."""
        self.epochs = int(state)

    @property
    def _has_begun(self) -> bool:
        return self.epochs >= self.settings.start_smooth

    def _smoothed(self, embeddings: Tensor, label_bins: Tensor) -> Tensor:
        if not self.training or not self._has_begun:
            return embeddings
        return self._calibrated(embeddings, label_bins)

    def _calibrated(self, embeddings: Tensor, label_bins: Tensor) -> Tensor:
        rows = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)).movedim(1, -1)
        clip, zero_variance = self.settings.clip, self.settings.zero_variance
        maps = calibration(self.frozen, self.smoothed, clip=clip, zero_variance=zero_variance)
        centre, scale, target = (each[self._rows_of(label_bins)] for each in maps)
        calibrated = (rows - centre) * scale + target
        return torch.where(label_bins[..., None] < 0, rows, calibrated).movedim(-1, 1)

    def _rows_of(self, label_bins: Tensor) -> Tensor:
        return (label_bins - self.settings.first_bin).clamp(min=0)

    def _convolved(self, moments: Moments) -> Moments:
        half = self.settings.size // 2
        mirrored = F.pad(moments.mT, (half, half), mode="reflect")
        return (mirrored.unfold(2, self.settings.size, 1) * self.window).sum(dim=-1).mT

    def _update(self, statistics: BinStatistics, *, is_first: bool) -> None:
        self.count += statistics.count
        kept = self._share_kept(statistics.count, is_first=is_first)
        fresh = torch.stack([statistics.mean, statistics.variance]).to(self.running.dtype)
        seen = statistics.count > 0
        updated = (1 - kept) * fresh + kept * self.running
        self.running.copy_(torch.where(seen[:, None], updated, self.running))
        if self.settings.fill_empty:
            _fill(self.running, seen)

    def _share_kept(self, count: Int[Tensor, " bins"], *, is_first: bool) -> Float[Tensor, "bins 1"]:
        """`f`: the share of a bin's old moments; zero in the first epoch."""
        tracked = self.count.clamp(min=1).to(self.running.dtype)
        kept = 1 - count / tracked
        if self.settings.momentum is not None:
            kept = torch.full_like(kept, self.settings.momentum)
        return (torch.zeros_like(kept) if is_first else kept)[:, None]


def _fill(moments: Moments, seen: Bool[Tensor, " bins"]) -> None:
    """Give each empty bin the mean of its neighbours, in ascending order: the left one may have been filled before."""
    last = len(seen) - 1
    for empty in (~seen).nonzero().flatten().tolist():
        neighbours = [each for each in (empty - 1, empty + 1) if 0 <= each <= last]
        moments[:, empty] = moments[:, neighbours].mean(dim=1)
