"""digits: rotated handwritten digits, a synthetic data set; the label is the angle.

Source: the 1,797 digits of scikit-learn's `load_digits` (8x8 pixels, values 0..16; the test part of the UCI
"Optical Recognition of Handwritten Digits" data, Alpaydin and Kaynak, 1998). Each sample is one of them, scaled to
24x24 pixels and turned counter-clockwise by an angle in [-60, 60) degrees.

Training angles follow a two-sided exponential density, `n(b) = max(1, round(264 exp(-|c(b) - 0.25| / 9.1)))` with `c(b)`
the center of the one-degree bin `b`: 4,809 images in 18 many-, 29 medium- and 73 few-shot bins. Validation (5 per
bin) and test (10 per bin) are balanced. The three splits use different digits, so that no digit can be memorized.
Everything depends on the option `seed` alone; the content hash is the same on every run.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from dirtune.data.columns import Columns
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec, Manifest
from dirtune.pipelines.synthetic import Options, SyntheticSet, ingest_synthetic
from dirtune.randomness import derive_seed

NAME = "digits"
# Incremented whenever the same options would give other samples
RECIPE = 1
SIZE = 24
LABEL = LabelSpec(name="angle", unit="degrees", low=-60.0, high=60.0, bin_width=1.0, num_bins=120)
PEAK, MODE, SCALE = 264.0, 0.25, 9.1
"""Peak (samples), mode and scale (degrees) of the training density."""
PER_BIN = {"val": 5, "test": 10}
SOURCE_DIGITS = {"train": 1197, "val": 200, "test": 400}
# A set of a few megabytes needs no more tasks.
_BLOCKS = 2
# Angles are multiples of 1/1000 degree, so that rounding moves none across a bin edge.
_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """Digits and angles of one split before rendering."""

    sources: NDArray[np.int64]
    """Position of the digit in `load_digits`."""
    angles: NDArray[np.float64]
    """Degrees, counter-clockwise."""


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Render the digits and write them, unless the same options have been ingested.

    Raises:
        InputError: raw files were given, or the rows cannot be split as the options ask.
    """
    return ingest_synthetic(storage, raw, options, DIGITS)


def compute_training_counts() -> NDArray[np.int64]:
    """Compute the number of training samples per bin; shape `(120,)`."""
    centers = LABEL.low + (np.arange(LABEL.num_bins) + 0.5) * LABEL.bin_width
    density = PEAK * np.exp(-np.abs(centers - MODE) / SCALE)
    counts: NDArray[np.int64] = np.maximum(1, np.rint(density)).astype(np.int64)
    return counts


def draw_plans(seed: int) -> dict[str, SplitPlan]:
    """Draw the digits and their angles, by split."""
    generator = np.random.default_rng(derive_seed(seed, NAME, "split"))
    order = generator.permutation(sum(SOURCE_DIGITS.values()))
    edges = np.cumsum(list(SOURCE_DIGITS.values()))[:-1]
    pools = dict(zip(SOURCE_DIGITS, np.split(order, edges), strict=True))
    counts = {split: np.full(LABEL.num_bins, number) for split, number in PER_BIN.items()}
    counts["train"] = compute_training_counts()
    plans = {}
    for split, pool in pools.items():
        generator = np.random.default_rng(derive_seed(seed, NAME, split))
        bins = generator.permutation(np.repeat(np.arange(LABEL.num_bins), counts[split]))
        within = generator.integers(_STEPS, size=len(bins)) / _STEPS
        # `resize` repeats the pool: the numbers of uses of two digits differ by at most one.
        plans[split] = SplitPlan(sources=np.resize(pool, len(bins)), angles=LABEL.low + bins + within)
    return plans


def _make_columns(seed: int) -> dict[str, Columns]:
    return {
        split: {
            "sample_id": np.array([f"{split}-{row:05d}" for row in range(len(plan.angles))]),
            "source": plan.sources,
            "label": plan.angles,
        }
        for split, plan in draw_plans(seed).items()
    }


def _make_dataset(rows: Columns) -> ray.data.Dataset:
    # Imported here, because it would double the import time of this module on Ray's workers.
    from sklearn.datasets import load_digits

    dataset = ray.data.from_arrow(pa.table(rows), override_num_blocks=_BLOCKS)
    pixels = load_digits().images

    def render(batch: Columns) -> Columns:
        images = [rotate(pixels[source], angle) for source, angle in zip(batch["source"], batch["label"], strict=True)]
        return {"sample_id": batch["sample_id"], "label": batch["label"], "image": np.stack(images)[:, None]}

    return dataset.map_batches(render, batch_format="numpy")


def rotate(image: NDArray[np.float64], angle: float) -> NDArray[np.uint8]:
    """Return a digit scaled up and turned counter-clockwise about its center, in one bilinear resampling.

    The output pixel at offset `d` (row, column) from the center takes the value of the input at offset
    `(n / 24) R d`, with `R = [[cos, sin], [-sin, cos]]` of the angle and `n` the input's size; outside is
    background. One resampling instead of two keeps the strokes sharp.

    Args:
        image: shape `(n, n)`, values 0..16.
        angle: degrees.

    Returns:
        shape `(24, 24)`, values 0..255.
    """
    radians, old, new = np.deg2rad(angle), (len(image) - 1) / 2, (SIZE - 1) / 2
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    matrix = turn * len(image) / SIZE
    offset = old - matrix @ np.array([new, new])
    values = affine_transform(image, matrix, offset, output_shape=(SIZE, SIZE), order=1, mode="grid-constant")
    turned: NDArray[np.uint8] = np.rint(values * (255 / 16)).astype(np.uint8)
    return turned


DIGITS = SyntheticSet(
    name=NAME,
    recipe=RECIPE,
    label=LABEL,
    inputs={"image": InputSpec(kind="image", shape=(1, SIZE, SIZE))},
    source="sklearn.datasets.load_digits",
    note="the three splits use different digits",
    make_columns=_make_columns,
    make_dataset=_make_dataset,
)
