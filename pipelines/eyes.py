"""Raw files of MPIIGaze: lists of eyes, in Matlab files of one day each, with gaze and head pose as angles.

    Data/Normalized/p00/day01.mat                          data.left and data.right, each with image (n, 36, 60) uint8,
                                                           gaze (n, 3) and pose (n, 3); filenames (n)
    Evaluation Subset/sample list for eye image/p00.txt    a file name and a side by line: day01/0005.jpg left

Gaze is a unit vector from the eye to the point of gaze, pose a rotation vector of the head. As angles they are

    gaze (x, y, z)     pitch = asin(-y), yaw = atan2(-x, -z)
    pose               of the third column v of the rotation matrix: pitch = asin(v_y), yaw = atan2(v_x, v_z)

Right eyes are mirrored and their yaws negated, so that all are left eyes.

Source: Zhang et al., "Appearance-Based Gaze Estimation in the Wild", CVPR 2015; hysts/pytorch_mpiigaze,
`tools/preprocess_mpiigaze.py`, for the conversion. Departures: 1. pitch is computed as `atan2(-y, |(x, z)|)`, whose domain
rounding cannot leave; 2. angles remain float64; 3. a line that repeats an eye is skipped.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from dirtune.errors import Fault

PERSONS = tuple(f"p{number:02d}" for number in range(15))
HEIGHT, WIDTH = 36, 60
DAYS = "Data/Normalized"
LISTS = "Evaluation Subset/sample list for eye image"

_SIDES = ("left", "right")
_LINE = re.compile(r"(?P<day>day\d+)/(?P<file>[^/\s]+) (?P<side>left|right)")
# A mirror keeps the pitch and negates the yaw.
_MIRRORED = np.array([1.0, -1.0])
# Largest deviation of the length of a gaze vector from one
_LENGTH_TOLERANCE = 0.01


class Eye(NamedTuple):
    """One eye of one photograph, as a left eye."""

    sample_id: str
    """Person, file and side, such as "p00/day01/0005.jpg left"."""
    person: str
    gaze: tuple[float, float]
    """Pitch and yaw, radians."""
    pose: tuple[float, float]
    """Pitch and yaw of the head, radians."""
    image: bytes
    """36 rows of 60 pixels."""


@dataclass(frozen=True)
class _Eyes:
    """All eyes of one side in one file, as left eyes."""

    images: NDArray[np.uint8]
    """Shape (n, 36, 60)."""
    gazes: NDArray[np.float64]
    """Pitch and yaw, shape (n, 2)."""
    lengths: NDArray[np.float64]
    """Lengths of the gaze vectors, shape (n,)."""
    poses: NDArray[np.float64]
    """Pitch and yaw of the heads, shape (n, 2)."""


@dataclass(frozen=True)
class _Day:
    """Content of a file of one day."""

    positions: dict[str, int]
    """Positions of the photographs by file name."""
    sides: dict[str, _Eyes]


def get_list_path(folder: Path, person: str) -> Path:
    """Return the path of the list of a participant's eyes."""
    return folder / LISTS / f"{person}.txt"


def read_eyes(folder: Path, person: str) -> Iterator[Eye | Fault]:
    """Yield the eyes of a participant's list, each once, or the fault of a line, in the order of the list."""
    path = get_list_path(folder, person)
    # Bytes that are not UTF-8 make a line invalid, not the list.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    days: dict[str, _Day | str] = {}
    first: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or first.setdefault(line, number) != number:
            continue
        eye = _find_eye(line, folder / DAYS / person, days)
        yield Fault(where=f"{path}:{number}", rule=eye) if isinstance(eye, str) else eye


def _find_eye(line: str, folder: Path, days: dict[str, _Day | str]) -> Eye | str:
    """Return the eye of a line, or the rule that the line breaks; `days` caches the files."""
    found = _LINE.fullmatch(line)
    if found is None:
        return f"must be a day, a file and a side, such as day01/0005.jpg left, not {line[:80]!r}"
    name, side = found["day"], found["side"]
    # A list refers to each day many times.
    if name not in days:
        days[name] = _read_day(folder / f"{name}.mat")
    day = days[name]
    if isinstance(day, str):
        return f"{folder / name}.mat: {day}"
    if (at := day.positions.get(found["file"])) is None:
        return f"{folder / name}.mat: holds no {found['file']}"
    eyes = day.sides[side]
    # The comparison is false for NaN.
    if not abs(eyes.lengths[at] - 1) <= _LENGTH_TOLERANCE:
        return f"its gaze vector must have length 1, not {eyes.lengths[at]:g}"
    (pitch, yaw), (head_pitch, head_yaw) = eyes.gazes[at].tolist(), eyes.poses[at].tolist()
    return Eye(
        sample_id=f"{folder.name}/{line}",
        person=folder.name,
        gaze=(pitch, yaw),
        pose=(head_pitch, head_yaw),
        image=eyes.images[at].tobytes(),
    )


def _read_day(path: Path) -> _Day | str:
    """Read a file of one day, or return the rule that it breaks."""
    try:
        with path.open("rb") as stream:
            record = loadmat(stream)
        # A single name may be text instead of a cell.
        names = [str(np.asarray(cell).item()) for cell in record["filenames"].ravel()]
        data = record["data"][0, 0]
        sides = {side: _convert_side(data[side][0, 0], len(names), side) for side in _SIDES}
    except FileNotFoundError:
        return "no such file"
    except (OSError, LookupError, TypeError, ValueError, NotImplementedError, MatReadError, zlib.error) as error:
        return f"must hold data.left, data.right and filenames ({error})"
    return _Day({name: at for at, name in enumerate(names)}, sides)


def _convert_side(eyes: Any, count: int, side: str) -> _Eyes:
    images = _check_shape(eyes["image"], count, (HEIGHT, WIDTH))
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, not {images.dtype}")
    vectors = _check_shape(eyes["gaze"], count, (3,)).astype(np.float64)
    gazes, poses = compute_gaze_angles(vectors), compute_pose_angles(_check_shape(eyes["pose"], count, (3,)))
    lengths = np.linalg.norm(vectors, axis=1)
    if side == "left":
        return _Eyes(images, gazes, lengths, poses)
    return _Eyes(images[:, :, ::-1], gazes * _MIRRORED, lengths, poses * _MIRRORED)


def _check_shape(array: NDArray[Any], count: int, shape: tuple[int, ...]) -> NDArray[Any]:
    # The first axis of a single eye may be missing.
    if array.shape != (count, *shape) and (count, array.shape) != (1, shape):
        raise ValueError(f"{count} files have arrays of shape {(count, *shape)}, not {array.shape}")
    return array.reshape(count, *shape)


def compute_gaze_angles(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute pitch and yaw of gaze vectors, in radians; `(n, 3)` to `(n, 2)`."""
    x, y, z = vectors.T
    return np.stack([np.arctan2(-y, np.hypot(x, z)), np.arctan2(-x, -z)], axis=1)


def compute_pose_angles(rotations: NDArray[Any]) -> NDArray[np.float64]:
    """Compute pitch and yaw of the direction of heads from their rotation vectors, in radians; `(n, 3)` to `(n, 2)`.

    The third column of the matrix is the z axis turned by the angle `t = |r|` about `k = r / t` (Rodrigues):
    `z cos t + (k x z) sin t + k (k . z) (1 - cos t)`.
    """
    rotations = rotations.astype(np.float64)
    angles = np.linalg.norm(rotations, axis=1)
    # For a rotation by zero the axis is arbitrary; dividing by one gives the zero vector instead of NaN.
    k_x, k_y, k_z = (rotations / np.where(angles > 0, angles, 1.0)[:, None]).T
    sine, rest = np.sin(angles), 1 - np.cos(angles)
    v_x, v_y = k_y * sine + k_x * k_z * rest, k_y * k_z * rest - k_x * sine
    v_z = np.cos(angles) + k_z * k_z * rest
    return np.stack([np.arctan2(v_y, np.hypot(v_x, v_z)), np.arctan2(v_x, v_z)], axis=1)
