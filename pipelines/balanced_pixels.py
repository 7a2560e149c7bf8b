"""Masks of pixels that are balanced over depth: the same number of pixels of every label bin that occurs.

The official mask of NYUD2-DIR's test set was drawn without a seed and is a file of its authors; here one is drawn from a
seed, by the same rule: the number of pixels of the rarest bin from each bin, at random among all pixels of the split. The
draw needs only the number of pixels of each image in each bin, so that no labels are held in memory.
"""

import numpy as np

from dirtune import manifest, randomness
from dirtune.reweighting.density import label_bins

PixelSelection = np.typing.NDArray[np.int64]
"""Pixels of an image by their rank among its labeled pixels sorted by bin."""


def compute_pixel_bins(counts: np.typing.NDArray[np.int16], label: manifest.LabelSpec) -> np.typing.NDArray[np.int64]:
    """Return the bin of every pixel of the center crop, flat; `num_bins` for a pixel without a label."""
    assert label.dense is not None
    cropped = label.dense.crop(counts).reshape(-1)
    bins = label_bins(cropped * label.dense.unit_per_count, label)
    return np.where(cropped > 0, bins, label.num_bins)


def select_balanced_pixels(
    pixels: np.typing.NDArray[np.int64], *, first_bin: int, seed: int, split: str
) -> tuple[list[PixelSelection], int]:
    """Return the selected pixels of each image, and their number in each bin.

    Args:
        pixels: number of labeled pixels of each image in each bin, `(images, bins)`, in an order that does not change.
        first_bin: bins below it are not balanced and give no pixel.
        seed: of the draw.
        split: its name; each split has a draw of its own.
    """
    totals = pixels.sum(axis=0)
    occupied = np.flatnonzero(totals)
    occupied = occupied[occupied >= first_bin]
    per_bin = int(totals[occupied].min()) if len(occupied) else 0
    drawn = [_draw_pixels(pixels, int(index), per_bin, seed, split) for index in occupied]
    images, ranks = np.concatenate([np.empty((0, 2), np.int64), *drawn]).T
    # Sorted, so that the result does not depend on the order of the bins.
    order = np.lexsort((ranks, images))
    ends = np.searchsorted(images[order], np.arange(1, len(pixels)))
    return np.split(ranks[order], ends), per_bin


def _draw_pixels(
    pixels: np.typing.NDArray[np.int64], index: int, number: int, seed: int, split: str
) -> np.typing.NDArray[np.int64]:
    """Draw pixels of one bin; shape `(number, 2)`, each the index of an image and a rank within it."""
    # A generator per bin, so that a change of one bin does not change the draws of the others
    generator = np.random.default_rng(randomness.derive_seed(seed, "mask", split, index))
    ends = pixels[:, index].cumsum()
    drawn = generator.choice(int(ends[-1]), number, replace=False)
    images = np.searchsorted(ends, drawn, side="right")
    # The pixels of a bin are numbered image after image, the ranks of an image bin after bin.
    before_image = ends[images] - pixels[images, index]
    before_bin = pixels[images, :index].sum(axis=1)
    return np.stack([images, before_bin + drawn - before_image], axis=1)


def make_mask(
    counts: np.typing.NDArray[np.int16], chosen: PixelSelection, label: manifest.LabelSpec
) -> np.typing.NDArray[np.bool_]:
    """Return the selected pixels as a mask of the stored size."""
    assert label.dense is not None
    # Stable, so that ranks mean the same pixels on every machine
    by_bin = np.argsort(compute_pixel_bins(counts, label), kind="stable")
    mask = np.zeros(counts.shape, np.bool_)
    cropped = np.zeros(label.dense.height * label.dense.width, np.bool_)
    cropped[by_bin[chosen]] = True
    label.dense.crop(mask)[...] = cropped.reshape(label.dense.height, label.dense.width)
    return mask
