"""Raw files of MPIIGaze as Matlab writes them, small: for the tests of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from dirtune.pipelines.eyes import DAYS, LISTS, PERSONS, get_list_path


class Photographs(NamedTuple):
    """The photographs of one day: `n` of each side."""

    names: list[str]
    images: dict[str, NDArray[np.uint8]]
    """By side, (n, 36, 60)."""
    gazes: dict[str, NDArray[np.float64]]
    """By side, (n, 3)."""
    poses: dict[str, NDArray[np.float64]]
    """By side, (n, 3)."""


def vector(pitch: float, yaw: float) -> list[float]:
    """The gaze vector of two angles in degrees."""
    p, y = np.radians([pitch, yaw])
    return [-np.cos(p) * np.sin(y), -np.sin(p), -np.cos(p) * np.cos(y)]


def photographs(angles: Sequence[tuple[float, float]], seed: int) -> Photographs:
    """One photograph for each pitch and yaw in degrees; both eyes look there."""
    drawn, n = np.random.default_rng(seed), len(angles)
    sides = ("left", "right")
    return Photographs(
        names=[f"{number:04d}.jpg" for number in range(1, n + 1)],
        images={side: drawn.integers(0, 256, (n, 36, 60)).astype(np.uint8) for side in sides},
        gazes={side: np.array([vector(*each) for each in angles]) for side in sides},
        poses={side: drawn.normal(0, 0.2, (n, 3)) for side in sides},
    )


def write_day(folder: Path, person: str, day: str, shown: Photographs, **changes: Any) -> Path:
    """The file of one day; `changes` replace arrays of the left eyes."""
    arrays = {
        side: {"image": shown.images[side], "gaze": shown.gazes[side], "pose": shown.poses[side]}
        for side in ("left", "right")
    }
    # A cell array
    names = np.empty((len(shown.names), 1), dtype=object)
    names[:, 0] = shown.names
    path = folder / DAYS / person / f"{day}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays["left"] |= changes
    savemat(path, {"data": arrays, "filenames": names}, do_compression=True)
    return path


def write_list(folder: Path, person: str, lines: Sequence[str]) -> None:
    """The list of one participant."""
    path = get_list_path(folder, person)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_all(folder: Path, *, per_person: int = 12) -> None:
    """Photographs of all participants, one day each, around a few directions, and lists of all their eyes."""
    drawn = np.random.default_rng(0)
    for number, person in enumerate(PERSONS):
        angles = [(-5.0 + drawn.normal(0, 1.5), 4.0 * (at % 3) + drawn.normal(0, 1.5)) for at in range(per_person)]
        shown = photographs(angles, seed=number)
        write_day(folder, person, "day01", shown)
        sides = ("left", "right")
        write_list(folder, person, [f"day01/{name} {side}" for name in shown.names for side in sides])
    assert (folder / LISTS).is_dir()
