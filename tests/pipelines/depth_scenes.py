"""Raw files of NYUD2-DIR as they are laid out, small: for the tests of the pipeline and of training on maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dirtune.pipelines.nyud2 import Options

WIDTH, HEIGHT = 128, 96
# Three places
SCENES = ("bookstore_0001d", "bookstore_0001f", "kitchen_0029b", "study_0003")
PER_SCENE = 5
TESTED = 6
OPTIONS = Options(stored_height=48, stored_width=64, height=36, width=48, validation_share=0.3)


def write_scenes(folder: Path) -> None:
    """Lists, images and depth: the darker a pixel, the farther; a corner and a spot of each map have no depth."""
    lines = []
    for scene in SCENES:
        for number in range(1, PER_SCENE + 1):
            stem = f"nyu2_train/{scene}_out/{number}"
            meters = room(f"{scene}{number}")
            write_image(folder / f"{stem}.jpg", meters)
            write_depth(folder / f"{stem}.png", meters, bits=8)
            lines.append(f"data/{stem}.jpg,data/{stem}.png")
    (folder / "nyu2_train.csv").write_text("\n".join(lines) + "\n")
    lines = []
    for number in range(TESTED):
        stem = f"nyu2_test/{number:05d}"
        meters = room(f"test{number}")
        write_image(folder / f"{stem}_colors.png", meters)
        write_depth(folder / f"{stem}_depth.png", meters, bits=16)
        lines.append(f"data/{stem}_colors.png,data/{stem}_depth.png")
    (folder / "nyu2_test.csv").write_text("\n".join(lines) + "\n")


def room(name: str) -> NDArray[np.float64]:
    """Depth in meters, `(HEIGHT, WIDTH)`: a slanted wall and a box in front of it; zero: none."""
    drawn = np.random.default_rng(sum(map(ord, name)))
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    slope, near = drawn.uniform(0.5, 4.0), drawn.uniform(0.9, 2.5)
    meters = near + slope * columns / WIDTH + 0.5 * rows / HEIGHT
    top, left = drawn.integers(20, 50), drawn.integers(20, 70)
    meters[top : top + 30, left : left + 40] = near * 0.8
    meters[:40, :40] = 0.0
    meters[70:74, 60:64] = 0.0
    return meters


def write_image(path: Path, meters: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = np.clip(255 - 30 * meters, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([gray, 255 - gray, gray // 2], axis=-1)).save(path, quality=95)


def write_depth(path: Path, meters: NDArray[np.float64], *, bits: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.rint(meters / 10 * 255).astype(np.uint8) if bits == 8 else np.rint(meters * 1000).astype(np.uint16)
    Image.fromarray(values).save(path)
