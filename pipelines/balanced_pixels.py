"""Masks of pixels that are balanced over depth: of every label bin that occurs, the same number of pixels.

The official mask of NYUD2-DIR's test set was drawn without a seed and is a file of its authors; here one is drawn from a
seed, by the same rule: as many pixels of each bin as the rarest bin has, at random among all pixels of the split. Only how
many pixels of each bin an image has is needed to draw, so that no map is held in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dirtune.manifest import LabelSpec
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import label_bins

Chosen = NDArray[np.int64]
"""Pixels of an image by their place among its labeled pixels sorted by bin."""


def pixel_bins(counts: NDArray[np.int16], label: LabelSpec) -> NDArray[np.int64]:
    """The bin of every pixel in the part of a stored map that is looked at, flat; `num_bins` where there is no label."""
    assert label.dense is not None
    seen = label.dense.crop(counts).reshape(-1)
    bins = label_bins(seen * label.dense.unit_per_count, label)
    return np.where(seen > 0, bins, label.num_bins)


def balanced(pixels: NDArray[np.int64], *, first_bin: int, seed: int, split: str) -> tuple[list[Chosen], int]:
    """The chosen pixels of each image, and how many there are of each bin.

    Args:
        pixels: labeled pixels of each image in each bin, `(images, bins)`, in an order that does not change.
        first_bin: bins below it are not balanced and give no pixel.
        split: its name; each split has a draw of its own.
    """
    totals = pixels.sum(axis=0)
    occupied = np.flatnonzero(totals)
    occupied = occupied[occupied >= first_bin]
    per_bin = int(totals[occupied].min()) if len(occupied) else 0
    drawn = [_drawn(pixels, int(index), per_bin, seed, split) for index in occupied]
    images, places = np.concatenate([np.empty((0, 2), np.int64), *drawn]).T
    order = np.lexsort((places, images))
    ends = np.searchsorted(images[order], np.arange(1, len(pixels)))
    return np.split(places[order], ends), per_bin


def _drawn(pixels: NDArray[np.int64], index: int, number: int, seed: int, split: str) -> NDArray[np.int64]:
    """Image and place of some pixels of one bin."""
    generator = np.random.default_rng(derive_seed(seed, "mask", split, index))
    ends = pixels[:, index].cumsum()
    drawn = generator.choice(int(ends[-1]), number, replace=False)
    images = np.searchsorted(ends, drawn, side="right")
    before_image = ends[images] - pixels[images, index]
    before_bin = pixels[images, :index].sum(axis=1)
    return np.stack([images, before_bin + drawn - before_image], axis=1)


def mask_of(counts: NDArray[np.int16], chosen: Chosen, label: LabelSpec) -> NDArray[np.bool_]:
    """The chosen pixels as a mask of the stored map's size."""
    assert label.dense is not None
    by_bin = np.argsort(pixel_bins(counts, label), kind="stable")
    mask = np.zeros(counts.shape, np.bool_)
    seen = np.zeros(label.dense.height * label.dense.width, np.bool_)
    seen[by_bin[chosen]] = True
    label.dense.crop(mask)[...] = seen.reshape(label.dense.height, label.dense.width)
    return mask
