"""Settings of feature distribution smoothing (FDS); its module is `dirtune.models.fds`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dirtune.frozen import Added, Frozen
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
    """Share of the old statistics that an update keeps; null: the mean over all samples so far."""
    first_bin: int = Field(default=0, ge=0)
    """Label bins below it count as this one. Official: 3 (AgeDB), 7 (NYUD2), 0 elsewhere."""
    clip: tuple[float, float] = (0.1, 10.0)
    """Limits of the ratio of variances. Official: 0.1..10 (ages), 0.5..2 (STS-B), 0.2..5 (NYUD2)."""
    fill_empty: bool = False
    """Give a bin without samples the mean of its neighbors' statistics, as the STS-B script does."""
    zero_variance: ZeroVariance = "skip_dimension"
    """Part without smoothing if an embedding dimension does not vary within a bin. skip_dimension: that dimension (ages; the
    intention of all scripts); skip_bin: the whole bin (as in the scripts for STS-B and NYUD2 under torch 1.2 and later)."""
    published_aliasing: bool = False
    """Reproduce the official scripts for ages and STS-B: the current statistics are updated in place after the smoothed
    ones, so that the two are an epoch apart, and the statistics are computed from smoothed features."""
    smooths_terms: Annotated[bool, Added()] = False
    """Terms read the smoothed features, too, as in RankSim's and ConR's scripts, which smooth in place. Views without
    regression loss are never smoothed."""

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("must be odd, so that the kernel has a center bin")
        return size

    @model_validator(mode="after")
    def _check_clip(self) -> "FDS":
        if not 0 < self.clip[0] <= self.clip[1]:
            raise ValueError("clip must be two positive numbers in order")
        return self
