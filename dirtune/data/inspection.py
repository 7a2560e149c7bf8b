"""Looking at an ingested data set: its splits, shot regions, label density, weights and what is known of it.

`inspect` answers with values, `Inspection.text` with what the command line shows, `dirtune.data.figure` with figures. All of
it comes from the manifest, one small file, so a set of any size is inspected at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirtune.data.inspection_text import as_text
from dirtune.data.splits import describe_split
from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import LabelSpec, Manifest
from dirtune.reweighting import LDS, Reweighting, Scheme
from dirtune.reweighting.density import shot_regions
from dirtune.reweighting.lds import make_kernel_window, smooth_counts

_SCHEMES: tuple[Scheme, ...] = ("none", "inverse", "sqrt_inverse")
_SMOOTHING = LDS()


class WeightSummary(NamedTuple):
    """The weights that one re-weighting gives to the training samples."""

    scheme: Scheme
    smoothed: bool
    """By LDS."""
    min: float
    max: float
    mean: float
    effective_samples: float
    """How many equally weighted samples would average as steadily: `(sum w)^2 / sum w^2` (Kish, Survey Sampling, 1965)."""

    @property
    def name(self) -> str:
        return f"{self.scheme} + LDS" if self.smoothed else self.scheme


class BinRow(NamedTuple):
    """One label bin."""

    bin: int
    edges: tuple[tuple[float, float], ...]
    """From and to, for each dimension of the label."""
    region: str
    samples: dict[str, int]
    """By split."""
    density: float | None
    """Effective number of training samples; none: not smoothed."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """An ingested data set under one shot rule; `str()` is what the command line shows."""

    manifest: Manifest
    shot_rule: str
    regions: NDArray[np.str_]
    """Shot region of each label bin."""
    lds: LDS
    density: NDArray[np.float64] | None
    """`effective_density`; none for labels of several dimensions."""
    weights: tuple[WeightSummary, ...]
    notes: tuple[str, ...]
    """Which published split it is or looks like, and what was found at ingest, such as leaks."""

    @property
    def image_input(self) -> str | None:
        """The first input that is an image; none: there is no such input."""
        images = (name for name, spec in self.manifest.inputs.items() if spec.kind == "image")
        return next(images, None)

    def bins(self, region: str) -> int:
        """Number of label bins in a shot region."""
        return int(np.count_nonzero(self.regions == region))

    def samples(self, split: str, region: str) -> int:
        """Number of samples of a split in a shot region; of labels that are maps, of pixels."""
        counts = np.asarray(self.manifest.splits[split].bin_counts)
        return int(counts[self.regions == region].sum())

    def bin_rows(self) -> list[BinRow]:
        """All label bins in order."""
        splits = self.manifest.splits.items()
        return [
            BinRow(
                bin=index,
                edges=edges,
                region=str(self.regions[index]),
                samples={split: info.bin_counts[index] for split, info in splits},
                density=None if self.density is None else float(self.density[index]),
            )
            for index, edges in enumerate(_edges(self.manifest.label))
        ]

    def text(self, *, bins: bool = False) -> str:
        """For people: what the set is, counts by region, the histogram, weights, notes; `bins` adds a line per bin."""
        return as_text(self, bins=bins)

    def __str__(self) -> str:
        return self.text()


def inspect(name: str, *, root: str | Path, shot_rule: str | None = None, lds: LDS = _SMOOTHING) -> Inspection:
    """An ingested data set with its label bins sorted into shot regions.

    Args:
        root: the data root, a path or URL.
        shot_rule: a rule of the data set; none: its default.
        lds: how the label density is smoothed.

    Raises:
        InputError: the set is not ingested, or it has no such rule.
    """
    return inspection_of(read_manifest(Storage.open(root), name), shot_rule=shot_rule, lds=lds)


def inspection_of(manifest: Manifest, *, shot_rule: str | None = None, lds: LDS = _SMOOTHING) -> Inspection:
    """The same of a manifest.

    Raises:
        InputError: the set has no such shot rule.
    """
    rule = shot_rule or manifest.default_shot_rule
    if rule not in manifest.shot_rules:
        known = tuple(manifest.shot_rules)
        fault = Fault(where=manifest.name, rule="unknown shot rule", got=rule, known=known)
        raise InputError(fault)
    counts = np.asarray(manifest.train_counts, dtype=np.int64)
    # LDS is made for one dimension
    smoothing = None if manifest.label.components else lds
    return Inspection(
        manifest=manifest,
        shot_rule=rule,
        lds=lds,
        regions=shot_regions(counts, manifest.shot_rules[rule]),
        density=None if smoothing is None else effective_density(counts, smoothing),
        weights=weight_summaries(counts, smoothing),
        notes=tuple(dict.fromkeys([*_identity(manifest), *manifest.notes])),
    )


def effective_density(train_counts: ArrayLike, lds: LDS) -> NDArray[np.float64]:
    """The label density that a regressor meets: counts averaged over neighboring bins; shape `(num_bins,)`.

    `c~ = c * k / sum(k)`, with the kernel `k` of label distribution smoothing (Yang et al., ICML 2021). Weights need no such
    scale (`dirtune.reweighting.lds`); here it makes the density comparable to the counts.
    """
    counts = np.asarray(train_counts, dtype=np.float64)
    window = make_kernel_window(lds.kernel, lds.size, lds.sigma)
    return smooth_counts(counts, lds) / np.float64(window.sum())


def weight_summaries(train_counts: ArrayLike, lds: LDS | None) -> tuple[WeightSummary, ...]:
    """The weights of every scheme that needs counts alone, without and with smoothing."""
    counts = np.asarray(train_counts, dtype=np.int64)
    return tuple(
        _weight_summary(counts, scheme, smoothing)
        for scheme in _SCHEMES
        for smoothing in ((None,) if scheme == "none" or lds is None else (None, lds))
    )


def _weight_summary(counts: NDArray[np.int64], scheme: Scheme, lds: LDS | None) -> WeightSummary:
    weights = Reweighting(scheme=scheme, lds=lds).compute_bin_weights(counts)
    taken = weights[counts > 0]
    total = float(counts @ weights)
    return WeightSummary(
        scheme=scheme,
        smoothed=lds is not None,
        min=float(taken.min()),
        max=float(taken.max()),
        mean=total / int(counts.sum()),
        effective_samples=total**2 / float(counts @ weights**2),
    )


def _identity(manifest: Manifest) -> Iterator[str]:
    sizes = {split: info.rows for split, info in manifest.splits.items()}
    found = describe_split(manifest.name, manifest.split_fingerprint, sizes)
    if found is not None:
        yield found


def _edges(label: LabelSpec) -> Iterator[tuple[tuple[float, float], ...]]:
    """The edges of every bin, in the order of the bins: of a grid, the last dimension changes fastest."""
    steps = [
        [(axis.low + at * axis.bin_width, axis.low + (at + 1) * axis.bin_width) for at in range(axis.num_bins)]
        for axis in label.axes
    ]
    return product(*steps)
