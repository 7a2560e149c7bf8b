"""`pytest tests/metrics/test_extra.py`: the angular error against the official code and against plain geometry."""

import math

import numpy as np
import pytest

from dirtune.metrics import EXTRA_METRICS, angular_error, compute_angular_errors
from tests.golden.vectors import load_reweighting


def _angle_by_arccos(label, prediction):
    directions = [
        (-math.cos(p) * math.sin(y), -math.sin(p), -math.cos(p) * math.cos(y)) for p, y in (label, prediction)
    ]
    return math.degrees(math.acos(sum(a * b for a, b in zip(*directions, strict=True))))


def test_angles_are_those_of_the_official_code():
    golden = load_reweighting("metrics_mpiigaze")
    found = compute_angular_errors(golden["labels_pitch_yaw"], golden["preds_pitch_yaw"])
    np.testing.assert_allclose(found, golden["angle_error_deg"], rtol=1e-10)


def test_angles_are_the_arccosines_of_the_products_of_the_directions():
    drawn = np.random.default_rng(0)
    labels, predictions = drawn.uniform(-1.2, 1.2, (2, 80, 2))
    expected = [_angle_by_arccos(*pair) for pair in zip(labels.tolist(), predictions.tolist(), strict=True)]
    np.testing.assert_allclose(compute_angular_errors(labels, predictions), expected, rtol=1e-10)
    assert angular_error(labels, predictions) == pytest.approx(np.mean(expected), rel=1e-12)


def test_known_angles():
    labels = np.radians([[0.0, 0.0], [0.0, 0.0], [60.0, 0.0], [90.0, 13.0], [0.0, 90.0]])
    predictions = np.radians([[3.0, 0.0], [0.0, -7.0], [60.0, 90.0], [90.0, -80.0], [0.0, -90.0]])
    sixty = math.degrees(math.acos(math.sin(math.radians(60)) ** 2))
    expected = [3.0, 7.0, sixty, 0.0, 180.0]
    np.testing.assert_allclose(compute_angular_errors(labels, predictions), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_directions_have_the_error_zero_and_never_nan(dtype):
    gazes = np.random.default_rng(0).uniform(-1.0, 1.0, (500, 2)).astype(dtype)
    assert not compute_angular_errors(gazes, gazes).any()
    nearly = compute_angular_errors(gazes, np.nextafter(gazes, np.inf, dtype=dtype))
    assert np.isfinite(nearly).all()
    assert nearly.max() < 1e-4


def test_no_sample_has_no_value_and_a_prediction_that_is_no_number_spoils_it_quietly():
    assert math.isnan(angular_error(np.zeros((0, 2)), np.zeros((0, 2))))
    assert math.isnan(angular_error([[0.0, 0.0], [0.0, 1.0]], [[0.0, math.inf], [0.0, 1.0]]))


@pytest.mark.parametrize("name", ["angular_error"])
@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3, 2)])
def test_labels_of_another_form_are_refused_with_both_shapes(name, shape):
    with pytest.raises(ValueError, match=r"twice \(n, 2\), but got"):
        EXTRA_METRICS[name](np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match=r"but got \[\(3, 2\), \(4, 2\)\]"):
        EXTRA_METRICS[name](np.zeros((3, 2)), np.zeros((4, 2)))
