"""Inspection of an ingested data set: its splits, shot regions, label density, weights and notes.

`inspect` returns values, `dirtune.data.inspection_text` formats them for the command line, `dirtune.data.figure` draws
them. All of them come from the manifest, one small file, so a set of any size is inspected at once.
"""

from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dirtune.data.splits import describe_split
from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.label_transform import compute_bin_edges
from dirtune.manifest import Manifest
from dirtune.reweighting import LDS, Reweighting, Scheme
from dirtune.reweighting.density import shot_regions
from dirtune.reweighting.lds import make_kernel_window, smooth_counts

_SCHEMES: tuple[Scheme, ...] = ("none", "inverse", "sqrt_inverse")
_SMOOTHING = LDS()


class WeightSummary(NamedTuple):
    """Weights of the training samples under one re-weighting."""

    scheme: Scheme
    smoothed: bool
    """True with label distribution smoothing (LDS)."""
    min: float
    max: float
    mean: float
    effective_samples: float
    """Number of equally weighted samples whose mean has the same variance: `(sum w)^2 / sum w^2` (Kish, Survey Sampling,
    1965)."""

    @property
    def name(self) -> str:
        return f"{self.scheme} + LDS" if self.smoothed else self.scheme


class LabelBin(NamedTuple):
    """Label bin."""

    bin: int
    edges: tuple[tuple[float, float], ...]
    """Lower and upper edge, for each dimension of the label."""
    region: str
    samples: dict[str, int]
    """By split."""
    density: float | None
    """Effective number of training samples; None without smoothing."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Ingested data set under one shot rule."""

    manifest: Manifest
    shot_rule: str
    regions: np.typing.NDArray[np.str_]
    """Shot region of each label bin."""
    lds: LDS
    density: np.typing.NDArray[np.float64] | None
    """`compute_effective_density`; None for labels of several dimensions."""
    weights: tuple[WeightSummary, ...]
    notes: tuple[str, ...]
    """The published split that matches, and the notes of the ingest, such as leaks."""

    @property
    def image_input(self) -> str | None:
        """Name of the first input that is an image; None if there is none."""
        images = (name for name, spec in self.manifest.inputs.items() if spec.kind == "image")
        return next(images, None)

    def count_bins(self, region: str) -> int:
        """Return the number of label bins in a shot region."""
        return int(np.count_nonzero(self.regions == region))

    def count_samples(self, split: str, region: str) -> int:
        """Return the number of samples of a split in a shot region or, with per-pixel labels, of labeled pixels."""
        counts = np.asarray(self.manifest.splits[split].bin_counts)
        return int(counts[self.regions == region].sum())

    def list_bins(self) -> list[LabelBin]:
        """Return all label bins in order."""
        splits, axes = self.manifest.splits.items(), self.manifest.label.axes
        # In a grid, the last dimension changes fastest.
        steps = [list(pairwise(compute_bin_edges(axis).tolist())) for axis in axes]
        return [
            LabelBin(
                bin=index,
                edges=edges,
                region=str(self.regions[index]),
                samples={split: info.bin_counts[index] for split, info in splits},
                density=None if self.density is None else float(self.density[index]),
            )
            for index, edges in enumerate(product(*steps))
        ]


def inspect(name: str, *, root: str | Path = "data", shot_rule: str | None = None, lds: LDS = _SMOOTHING) -> Inspection:
    """Return an ingested data set with its label bins assigned to shot regions.

    Args:
        name: of the data set.
        root: the data root, a path or URL.
        shot_rule: a rule of the data set; None for its default.
        lds: smoothing of the label density.

    Raises:
        InputError: the set is not ingested, or it has no such rule.
    """
    return inspect_manifest(read_manifest(Storage.open(root), name), shot_rule=shot_rule, lds=lds)


def inspect_manifest(manifest: Manifest, *, shot_rule: str | None = None, lds: LDS = _SMOOTHING) -> Inspection:
    """Return the inspection of the data set of a manifest.

    Raises:
        InputError: the set has no such shot rule.
    """
    rule = shot_rule or manifest.default_shot_rule
    if rule not in manifest.shot_rules:
        known = tuple(manifest.shot_rules)
        raise InputError(Fault(where=manifest.name, rule="unknown shot rule", got=rule, known=known))
    # Regions and weights of every split come from the training counts.
    counts = np.asarray(manifest.train_counts, dtype=np.int64)
    # LDS is defined for labels of one dimension.
    smoothing = None if manifest.label.components else lds
    sizes = {split: info.rows for split, info in manifest.splits.items()}
    published = describe_split(manifest.name, manifest.split_fingerprint, sizes)
    notes = manifest.notes if published is None else (published, *manifest.notes)
    return Inspection(
        manifest=manifest,
        shot_rule=rule,
        lds=lds,
        regions=shot_regions(counts, manifest.shot_rules[rule]),
        density=None if smoothing is None else compute_effective_density(counts, smoothing),
        weights=summarize_weights(counts, smoothing),
        # The ingest may have noted the published split too.
        notes=tuple(dict.fromkeys(notes)),
    )


def compute_effective_density(train_counts: np.typing.ArrayLike, lds: LDS) -> np.typing.NDArray[np.float64]:
    """Return the effective label density: counts averaged over neighboring bins; shape `(num_bins,)`.

    `c~ = c * k / sum(k)`, with the kernel `k` of label distribution smoothing (Yang et al., ICML 2021). Weights do not need
    the scale `1 / sum(k)` (`dirtune.reweighting.lds`); here it makes the density comparable to the counts.
    """
    counts = np.asarray(train_counts, dtype=np.float64)
    window = make_kernel_window(lds.kernel, lds.size, lds.sigma)
    return smooth_counts(counts, lds) / np.float64(window.sum())


def summarize_weights(train_counts: np.typing.ArrayLike, lds: LDS | None) -> tuple[WeightSummary, ...]:
    """Return the weights of every scheme that needs counts alone, without and with smoothing."""
    counts = np.asarray(train_counts, dtype=np.int64)
    summaries = []
    for scheme in _SCHEMES:
        for smoothing in (None,) if scheme == "none" or lds is None else (None, lds):
            weights = Reweighting(scheme=scheme, lds=smoothing).compute_bin_weights(counts)
            occupied = weights[counts > 0]
            total = float(counts @ weights)
            summary = WeightSummary(
                scheme=scheme,
                smoothed=smoothing is not None,
                min=float(occupied.min()),
                max=float(occupied.max()),
                mean=total / int(counts.sum()),
                effective_samples=total**2 / float(counts @ weights**2),
            )
            summaries.append(summary)
    return tuple(summaries)
