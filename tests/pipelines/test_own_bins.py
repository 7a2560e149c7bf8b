"""Run with `pytest tests/pipelines/test_own_bins.py`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from dirtune.errors import InputError
from dirtune.manifest import LabelSpec
from dirtune.reweighting.density import label_bins
from pipelines.own_bins import label_spec, nice


def _spec(labels: ArrayLike, **given: float) -> LabelSpec:
    values = np.asarray(labels, dtype=np.float64)
    return label_spec(values, where="mine", name="y", unit="m", **given)


def _bins(spec: LabelSpec) -> tuple[float, float, float, int]:
    return spec.low, spec.high, spec.bin_width, spec.num_bins


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # Strengths of concrete
        (np.linspace(2.33, 82.6, 997), (2.0, 83.0, 1.0, 81)),
        (np.linspace(-0.0123, 0.037, 997), (-0.0125, 0.037, 0.0005, 99)),
        (np.linspace(13_500, 499_999, 997), (10_000.0, 500_000.0, 5_000.0, 98)),
        # Whole years: the oldest has a bin of its own
        (range(1, 102), (1.0, 101.0, 1.0, 101)),
        # Ratings: not ten bins between two of them
        (range(11), (0.0, 10.0, 1.0, 11)),
        ([1, 1.25, 1.5, 2.75], (1.0, 2.75, 0.25, 8)),
        ([0.1, 0.2, 0.1 + 0.2], (0.1, 0.1 + 0.2, 0.1, 3)),
    ],
)
def test_bins_are_chosen_from_the_labels(labels: ArrayLike, expected: tuple[float, float, float, int]) -> None:
    assert _bins(_spec(labels)) == pytest.approx(expected, rel=1e-12)


def test_what_is_given_is_taken() -> None:
    scores = np.linspace(0.123, 4.8, 500)
    assert _bins(_spec(scores, low=0, high=5, bin_width=0.1)) == (0.0, 5.0, 0.1, 50)
    assert _bins(_spec(range(1, 102), low=0, high=121)) == (0.0, 121.0, 1.0, 121)
    assert _bins(_spec(range(1, 6), low=1, high=5, bin_width=1)) == (1.0, 5.0, 1.0, 5)
    assert _bins(_spec([3.0, 3.0], low=0, high=10)) == (0.0, 10.0, 0.1, 100)


@pytest.mark.parametrize("seed", range(20))
def test_every_label_is_in_range_and_about_a_hundred_bins_cover_it(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    scale = 10 ** drawn.uniform(-5, 5)
    labels = drawn.normal(scale * drawn.normal() * 3, scale, 500)
    spec = _spec(labels)
    assert spec.low <= labels.min() <= spec.low + spec.bin_width * (1 + 1e-9)
    assert spec.high - spec.bin_width * (1 + 1e-9) <= labels.max() <= spec.high
    assert 60 <= spec.num_bins <= 160
    into_bin = (labels - spec.low) / spec.bin_width - label_bins(labels, spec)
    assert into_bin.min() > -1e-3
    assert into_bin.max() < 1 + 1e-3


@pytest.mark.parametrize(
    ("width", "expected"),
    [(0.9, 1.0), (1.3, 1.0), (1.5, 2.0), (3.0, 2.0), (3.3, 5.0), (7.2, 10.0), (0.04, 0.05), (0.0014, 0.001)],
)
def test_nice_widths_are_near(width: float, expected: float) -> None:
    assert nice(width) == expected


def test_equal_labels_are_refused() -> None:
    with pytest.raises(InputError, match=r"mine: y: the labels must differ.* all are, got 2\.0"):
        _spec([2.0, 2.0, 2.0])


def test_labels_that_float32_cannot_tell_apart_are_refused() -> None:
    seconds = 1.6e9 + np.arange(0.0, 1000.0, 10.0)
    with pytest.raises(InputError, match="subtract a constant, bin width, got 10"):
        _spec(seconds)
    assert _spec(seconds - 1.6e9).num_bins == 100
