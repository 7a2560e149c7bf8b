"""Run with `pytest tests/metrics/test_depth.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.metrics.depth import PIXEL_VALUES, abs_rel, delta1, delta2, delta3, log10

LABELS = [1.0, 2.0, 4.0, 8.0, 0.8]
PREDICTIONS = [1.1, 2.5, 2.0, 8.0, -3.0]


def test_known_values():
    assert abs_rel(LABELS, PREDICTIONS) == pytest.approx((0.1 + 0.25 + 0.5 + 0 + 3.8 / 0.8) / 5)
    logs = [math.log10(1.1), math.log10(1.25), math.log10(2), 0, math.log10(800)]
    assert log10(LABELS, PREDICTIONS) == pytest.approx(sum(logs) / 5)
    # 1.25 itself is within; a negative prediction is not.
    assert delta1(LABELS, PREDICTIONS) == 3 / 5
    assert delta2(LABELS, PREDICTIONS) == 3 / 5
    assert delta3([1.9, *LABELS[1:]], [1.0, *PREDICTIONS[1:]]) == 3 / 5
    assert delta3([1.95], [1.0]) == 1.0
    assert delta2([1.95], [1.0]) == 0.0


def test_a_prediction_of_zero_or_below_is_finite_and_no_hit():
    for predicted in (0.0, -1.0, -1e6):
        assert delta3([0.7], [predicted]) == 0.0
        assert log10([0.7], [predicted]) == pytest.approx(math.log10(700))


def test_shares_are_better_when_higher_and_errors_when_lower():
    assert PIXEL_VALUES.keys() & HIGHER_IS_BETTER == {"delta1", "delta2", "delta3"}


@pytest.mark.parametrize("metric", [abs_rel, log10, delta1, delta2, delta3])
def test_no_pixel_has_no_value(metric):
    assert math.isnan(metric([], []))


@pytest.mark.parametrize("metric", [abs_rel, log10, delta1, delta2, delta3])
def test_shapes_that_differ_and_labels_of_zero_are_refused(metric):
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        metric(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="needs labels above zero"):
        metric([0.0], [1.0])
