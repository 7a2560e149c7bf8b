"""Extra metrics of some data sets, functions of all labels and predictions; a set's manifest lists its own.

Those of depth are in `dirtune.metrics.depth`.

Source of the angular error: Zhang et al., "Appearance-Based Gaze Estimation in the Wild", CVPR 2015 (hysts/pytorch_mpiigaze:
`gaze_estimation/utils.py`). Departure: the angle is `atan2(|g x h|, g . h)` instead of the arccosine of `g . h`, which is
NaN where rounding takes the product of two equal directions beyond one.
"""

import math
from collections.abc import Callable

import numpy as np

from dirtune.metrics.depth import abs_rel, delta1, delta2, delta3, log10
from dirtune.metrics.sums import Array
from dirtune.registry import Registry


def angular_error(labels: np.typing.ArrayLike, predictions: np.typing.ArrayLike) -> float:
    """Compute the mean angle between the true and the predicted gaze direction, in degrees.

    Args:
        labels: `(pitch, yaw)` in radians, shape `(n, 2)`.
        predictions: in the same form.
    """
    errors = compute_angular_errors(labels, predictions)
    return float(errors.mean()) if len(errors) else math.nan


def compute_angular_errors(labels: np.typing.ArrayLike, predictions: np.typing.ArrayLike) -> Array:
    """Compute the angle of each sample, in degrees, 0..180; shape `(n,)`. The arguments are those of `angular_error`.

    Raises:
        ValueError: the shapes differ, or are not `(n, 2)`.
    """
    shapes = [np.shape(labels), np.shape(predictions)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][1] != 2:
        raise ValueError(f"an angular error needs pitch and yaw, twice (n, 2), but got {shapes}")
    # Predictions that are not finite give NaN, without a warning.
    with np.errstate(invalid="ignore"):
        truth, predicted = _to_directions(labels), _to_directions(predictions)
    # The lengths of both directions cancel in the arctangent of the ratio.
    apart = np.linalg.norm(np.cross(truth, predicted), axis=1)
    angles: Array = np.degrees(np.arctan2(apart, np.einsum("nd,nd->n", truth, predicted)))
    return angles


def _to_directions(gazes: np.typing.ArrayLike) -> Array:
    """Return `(-cos(pitch) sin(yaw), -sin(pitch), -cos(pitch) cos(yaw))`, of length one; shape `(n, 3)`."""
    pitch, yaw = np.asarray(gazes, dtype=np.float64).T
    flat = np.cos(pitch)
    return -np.stack([flat * np.sin(yaw), np.sin(pitch), flat * np.cos(yaw)], axis=1)


EXTRA_METRICS: Registry[Callable[[np.typing.ArrayLike, np.typing.ArrayLike], float]] = Registry(
    "metric",
    {
        "abs_rel": abs_rel,
        "angular_error": angular_error,
        "delta1": delta1,
        "delta2": delta2,
        "delta3": delta3,
        "log10": log10,
    },
)
