"""Feature distribution smoothing (FDS) as settings; the module that does it is `dirtune.models.fds`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from dirtune.frozen import Frozen
from dirtune.reweighting.lds import Kernel

ZeroVariance = Literal["skip_dimension", "skip_bin"]


class FDS(Frozen):
    """Feature distribution smoothing (Yang et al., ICML 2021); formula and departures: `dirtune.models.fds`."""

    kernel: Kernel = "gaussian"
    size: int = Field(default=5, gt=0)
    """Width of the kernel window, in label bins; odd. The papers use 5."""
    sigma: float = Field(default=2.0, gt=0)
    """Width of the kernel, in bins. The papers use 2; without effect for triang."""
    start_update: int = Field(default=0, ge=0)
    """First epoch, from 0, whose statistics are collected."""
    start_smooth: int = Field(default=1, ge=0)
    """First epoch, from 0, whose embeddings are smoothed; with the default, smoothing shows from epoch 2 on."""
    momentum: float | None = Field(default=0.9, ge=0, lt=1)
    """Share of the old statistics that an update keeps; none: the mean over all samples seen."""
    first_bin: int = Field(default=0, ge=0)
    """Label bins below it count as this one. Official: 3 (AgeDB), 7 (NYUD2), 0 elsewhere."""
    clip: tuple[float, float] = (0.1, 10.0)
    """Limits of the ratio of variances. Official: 0.1..10 (ages), 0.5..2 (STS-B), 0.2..5 (NYUD2)."""
    fill_empty: bool = False
    """Give a bin without samples the mean of its neighbors' statistics, as the STS-B script does."""
    zero_variance: ZeroVariance = "skip_dimension"
    """What is left as it is where an embedding dimension does not vary within a bin: that dimension (ages; meant by all
    scripts), or the whole bin (what the scripts for STS-B and NYUD2 do under torch 1.2 and later)."""
    published_aliasing: bool = False
    """Reproduce the official scripts for ages and STS-B: the current statistics are updated in place after the smoothed
    ones were made, so that the two are an epoch apart, and the statistics are taken of smoothed features."""

    @field_validator("size")
    @classmethod
    def _has_a_center(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("must be odd, so that the kernel has a center bin")
        return size

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> FDS:
        if not 0 < self.clip[0] <= self.clip[1]:
            raise ValueError("clip must be two positive numbers in order")
        return self
