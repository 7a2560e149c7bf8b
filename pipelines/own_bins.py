"""Label bins chosen from the labels of a data set: about 100 of them, of a width that people would choose."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec

BINS = 100
# Twice what `label_bins` takes for rounding
_FLOAT32_STEPS = 8
# Beyond them a float's decimals are rounding errors
_DIGITS = 12


def label_spec(
    labels: NDArray[np.float64],
    *,
    where: str,
    name: str,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    bin_width: float | None = None,
) -> LabelSpec:
    """The label's bins; what is not given comes from the labels of all rows, because val and test must be in range, too.

    The width is the number among 1, 2 and 5 times a power of ten that is nearest to a hundredth of the range, on a
    logarithmic scale, but not less than the smallest distance of two labels: whole years are binned by the year. The ends
    are multiples of it. Where all labels lie on bin edges, a label at the
    upper end has a bin of its own, else it is in the last.

    Args:
        labels: shape `(rows,)`, finite, within `low..high` where these are given.
        where: the data set, for messages.

    Raises:
        InputError: all labels are equal, or so large beside their differences that float32, in which models are trained,
            does not tell neighboring bins apart.
    """
    distinct = np.unique(labels)
    start = float(distinct[0]) if low is None else low
    end = float(distinct[-1]) if high is None else high
    if start >= end:
        rule = "the labels must differ, or low and high must be given; all are"
        raise InputError(Fault(where=where, key=name, rule=rule, got=start))
    gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 0.0
    width = bin_width or _tidy(max(nice((end - start) / BINS), gap))
    if width < _FLOAT32_STEPS * float(np.finfo(np.float32).eps) * max(abs(start), abs(end)):
        rule = "the labels are too large for their differences; subtract a constant, bin width"
        raise InputError(Fault(where=where, key=name, rule=rule, got=width))
    # Rounding must not put the outermost label out of range.
    if low is None:
        low = min(start, _tidy(math.floor(_tidy(start / width)) * width))
    if high is None:
        high = max(end, _tidy(math.ceil(_tidy(end / width)) * width))
    inner = math.ceil(_tidy((high - low) / width))
    has_last_edge = high <= float(distinct[-1]) and _on_edges(distinct, low, width)
    return LabelSpec(name=name, unit=unit, low=low, high=high, bin_width=width, num_bins=inner + has_last_edge)


def nice(width: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten, on a logarithmic scale."""
    power = math.floor(math.log10(width))
    candidates = [float(f"{step}e{power}") for step in (1, 2, 5, 10)]
    return min(candidates, key=lambda each: abs(math.log(each / width)))


def _on_edges(distinct: NDArray[np.float64], low: float, width: float) -> bool:
    positions = (distinct - low) / width
    return bool(np.allclose(positions, np.round(positions), rtol=0, atol=1e-6))


def _tidy(value: float) -> float:
    """Without the last digits, where `0.1 + 0.2` differs from `0.3`."""
    return float(f"{value:.{_DIGITS}g}")
