"""operator: learning to integrate. The input is a random smooth function and a point, the label its antiderivative there.

A synthetic data set without a download, for fast studies with an MLP. Functions are cosine series on [0, 1],
`u(x) = a_0 + sqrt(2) sum_k a_k cos(k pi x)`, `a_k ~ N(0, v_k)`, `v_k` proportional to `exp(-(k pi l)^2 / 2)`: the spectrum
of a Gaussian process with squared-exponential kernel of length `l = 0.2`, of variance one. The input is `u` at 100 equidistant
points, then the point `x`; the label `s(x) = integral of u from 0 to x` follows from the series exactly.

Source: the linear operator of Lu et al. (DeepONet, Nature Machine Intelligence 2021), used for regression by Zhang et al.
("Ordinal Entropy", ICLR 2023) and with imbalanced labels since. The published sets are balanced differently and not
available as files; this one is the project's own: training labels follow `n(b) = max(1, round(240 exp(-|c(b)| / 0.17)))`
over 100 bins of [-1, 1), validation (5 per bin) and test (10 per bin) are balanced. No function is in two splits.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray

from dirtune import manifest, randomness
from dirtune.data.columns import Columns
from dirtune.io.storage import Storage
from dirtune.pipelines.synthetic import Options, SyntheticSet, ingest_synthetic
from dirtune.reweighting.density import label_bins

NAME = "operator"
# Incremented whenever the same options would give other samples
RECIPE = 1
SENSORS = 100
# The spectrum of further terms is below 1e-11.
TERMS = 16
LENGTH = 0.2
LABEL = manifest.LabelSpec(name="antiderivative", unit="1", low=-1.0, high=1.0, bin_width=0.02, num_bins=100)
PEAK, SCALE = 240.0, 0.17
"""Peak (samples) and scale (label units) of the training density."""
PER_BIN = {"val": 5, "test": 10}
_DRAWS_AT_ONCE = 20_000
# A set of a few megabytes needs no more tasks.
_BLOCKS = 2
# Labels are rounded to these decimals, so that they are the same on every machine.
_DECIMALS = 6


def ingest(storage: Storage, raw: Path | None, options: Options) -> manifest.Manifest:
    """Draw the functions and write them, unless the same options have been ingested.

    Raises:
        InputError: raw files were given, or the rows cannot be split as the options ask.
    """
    return ingest_synthetic(storage, raw, options, OPERATOR)


def compute_training_counts() -> NDArray[np.int64]:
    """Compute the number of training samples per bin; shape `(100,)`."""
    centers = LABEL.low + (np.arange(LABEL.num_bins) + 0.5) * LABEL.bin_width
    counts: NDArray[np.int64] = np.maximum(1, np.rint(PEAK * np.exp(-np.abs(centers) / SCALE)))
    return counts.astype(np.int64)


def draw_samples(seed: int) -> dict[str, Columns]:
    """Draw the samples of every split, as columns, until every bin of every split is full."""
    wanted = {split: np.full(LABEL.num_bins, number) for split, number in PER_BIN.items()}
    wanted["train"] = compute_training_counts()
    return {split: _fill_bins(seed, split, counts) for split, counts in wanted.items()}


def _fill_bins(seed: int, split: str, wanted: NDArray[np.int64]) -> Columns:
    generator = np.random.default_rng(randomness.derive_seed(seed, NAME, split))
    missing, inputs, labels = wanted.copy(), [], []
    while missing.any():
        coefficients, points = draw(generator, _DRAWS_AT_ONCE)
        values = np.round(evaluate_antiderivatives(coefficients, points), _DECIMALS)
        kept = _select_missing(values, missing)
        missing -= np.bincount(label_bins(values[kept], LABEL), minlength=LABEL.num_bins)
        inputs.append(evaluate_at_sensors(coefficients[kept], points[kept]))
        labels.append(values[kept])
    order = generator.permutation(int(wanted.sum()))
    return {
        "sample_id": np.array([f"{split}-{row:05d}" for row in range(len(order))], dtype=object),
        "label": np.concatenate(labels)[order],
        "function": np.concatenate(inputs)[order],
    }


def _select_missing(values: NDArray[np.float64], missing: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the first samples of each bin, as many as are missing there, without labels out of range."""
    inside = np.flatnonzero((values >= LABEL.low) & (values < LABEL.high))
    bins = label_bins(values[inside], LABEL)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins, minlength=LABEL.num_bins)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    # Rank of each sample among those of its bin
    ranks = np.arange(len(order)) - starts
    return np.sort(inside[order[ranks < missing[bins[order]]]])


def draw(generator: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw coefficients `a_k` of functions, shape `(count, terms)`, and a point for each, uniform in [0, 1)."""
    spectrum = np.exp(-((np.arange(TERMS) * np.pi * LENGTH) ** 2) / 2)
    deviations = np.sqrt(spectrum / spectrum.sum())
    return generator.standard_normal((count, TERMS)) * deviations, generator.random(count)


def evaluate_at_sensors(coefficients: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Compute the inputs of samples: the function at the sensors, then the point; shape `(count, sensors + 1)`."""
    sensors = np.linspace(0.0, 1.0, SENSORS)
    values = coefficients @ (_get_weights()[:, None] * np.cos(_get_frequencies()[:, None] * sensors))
    return np.concatenate([values, points[:, None]], axis=1).astype(np.float32)


def evaluate_antiderivatives(coefficients: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute `s(x) = a_0 x + sqrt(2) sum_k a_k sin(k pi x) / (k pi)` of each function at its point; shape `(count,)`."""
    frequencies = _get_frequencies()[1:]
    waves = np.sin(points[:, None] * frequencies) * _get_weights()[1:] / frequencies
    sums: NDArray[np.float64] = (coefficients[:, 1:] * waves).sum(axis=1)
    return coefficients[:, 0] * points + sums


def _get_frequencies() -> NDArray[np.float64]:
    return np.pi * np.arange(TERMS, dtype=np.float64)


def _get_weights() -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.full(TERMS, 2.0) ** 0.5
    weights[0] = 1.0
    return weights


def _make_dataset(columns: Columns) -> ray.data.Dataset:
    functions = pa.FixedSizeListArray.from_arrays(pa.array(columns["function"].ravel()), SENSORS + 1)
    table = pa.table({"sample_id": columns["sample_id"].tolist(), "label": columns["label"], "function": functions})
    dataset = ray.data.from_arrow(table, override_num_blocks=_BLOCKS)

    def stack(batch: Columns) -> Columns:
        return {**batch, "function": np.stack(list(batch["function"]))}

    # A numpy batch holds lists of fixed size as objects, of which the data set needs an array.
    return dataset.map_batches(stack, batch_format="numpy")


OPERATOR = SyntheticSet(
    name=NAME,
    recipe=RECIPE,
    label=LABEL,
    inputs={"function": manifest.InputSpec(kind="vector", shape=(SENSORS + 1,))},
    source="drawn from a Gaussian process",
    note="no function is in two splits",
    make_columns=draw_samples,
    make_dataset=_make_dataset,
)
