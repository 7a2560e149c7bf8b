"""Ingest of own images with Ray Data against a plain loop of Pillow: images per second beyond the fixed start-up.

    python benchmarks/ingest.py [--pixels 240 500] [--stored 64 224] [--images 1000 3000] [--cores 1 2] [--nodes]

JPEG files with smooth colors and noise are made from a seed, with sides of three to five quarters of `--pixels`: the time
that Pillow takes for images of one size depends by a third on where the buffers of a process happen to lie.

The plain loop is what a user would write: open, turn as the EXIF data say, convert, resize, and write one file: `.npy` for
images of up to 64 pixels, which dirtune stores as pixels, or one Parquet file of JPEG files. dirtune's side is the whole
`dirtune ingest images` in its local Ray, once started: reading the list, faults, duplicates, splits, pixel statistics, shards,
verification and manifest. Both run in turn, on both numbers of `--images`; a rate is the difference of the images by that of
the seconds, and the fixed part is what remains. All processes of a case share `--cores` cores, of which the plain loop uses
one; on several, one plain loop for each of them, in processes of its own, shows what these cores reach together. `--nodes`
compares one Ray node of one CPU with two instead. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kills import list_children
from PIL import Image, ImageOps
from raylets import Cluster

from dirtune.data.session import ray_session
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.pipelines import images
from dirtune.process import set_environment

RAW_UP_TO = images.RAW_UP_TO
OBJECT_STORE_BYTES = 2**30
"""Of each node of a cluster."""
BASES = 64
"""Different pictures; the others are shifted copies of them."""


@dataclass(frozen=True)
class Case:
    """Images of one size, stored in another, on a number of cores."""

    folder: Path
    pixels: int
    stored: int
    images: tuple[int, int]
    repeats: int
    cores: int
    nodes: tuple[int, ...] = ()
    """Process ids of the nodes of a cluster, whose CPU time counts."""

    def get_list(self, number: int) -> Path:
        return self.folder / f"{self.pixels}" / f"list_{number}.csv"


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock and of all processes' CPU time, for both numbers of images."""

    wall: tuple[float, float]
    cpu: tuple[float, float]


@dataclass(frozen=True)
class Rate:
    """Images per second, per second of CPU time, and the fixed seconds of both."""

    wall: float
    cpu: float
    fixed_wall: float
    fixed_cpu: float


def make_files(folder: Path, pixels: int, numbers: tuple[int, int]) -> None:
    """Write JPEG files and two lists of them."""
    home = folder / str(pixels)
    home.mkdir()
    drawn = np.random.default_rng(pixels)
    bases = []
    for _ in range(BASES):
        size = drawn.integers(pixels * 3 // 4, pixels * 5 // 4 + 1, 2)
        small = Image.fromarray(drawn.integers(60, 200, (6, 6, 3)).astype(np.uint8))
        smooth = np.asarray(small.resize(size.tolist(), Image.Resampling.BICUBIC), np.float32)
        bases.append((smooth + drawn.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8))
    names = [f"{number:06d}.jpg" for number in range(max(numbers))]
    for number, name in enumerate(names):
        shifts = drawn.integers(0, pixels, 2)
        shifted = np.roll(bases[number % BASES], shifts.tolist(), (0, 1))
        Image.fromarray(shifted).save(home / name, "JPEG", quality=90)
    for number in numbers:
        lines = [f"{name},{row * 37 % 100}" for row, name in enumerate(names[:number])]
        (home / f"list_{number}.csv").write_text("\n".join(["path,age", *lines, ""]))


def ingest_plainly(case: Case, number: int, target: Path, part: int = 0, parts: int = 1) -> None:
    """Run the plain loop over every image, or over one part of them."""
    home, found, size = case.folder / str(case.pixels), [], (case.stored, case.stored)
    names = [line.split(",")[0] for line in case.get_list(number).read_text().splitlines()[1:]][part::parts]
    for name in names:
        with Image.open(home / name) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        if case.stored <= RAW_UP_TO:
            found.append(np.asarray(image))
        else:
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=95)
            found.append(stream.getvalue())
    if case.stored <= RAW_UP_TO:
        np.save(target / f"images{part}.npy", np.stack(found))
    else:
        pq.write_table(pa.table({"path": names, "image": found}), target / f"images{part}.parquet")


def ingest_in_processes(pool: Executor, case: Case, number: int, target: Path) -> None:
    parts = [pool.submit(ingest_plainly, case, number, target, part, case.cores) for part in range(case.cores)]
    for each in parts:
        each.result()


def ingest_with_dirtune(case: Case, number: int, target: Path) -> None:
    options = read(images.Options, {"name": "own", "label": "age", "image_size": case.stored}, where="benchmark")
    images.ingest(Storage.open(target), case.get_list(number), options)


Side = Callable[[Case, int, Path], None]


def get_sides(case: Case, pool: Executor) -> dict[str, Side]:
    several: dict[str, Side] = {f"{case.cores} plain": partial(ingest_in_processes, pool)} if case.cores > 1 else {}
    return {"plain": ingest_plainly, **several, "dirtune": ingest_with_dirtune}


def measure(case: Case) -> dict[str, list[Cost]]:
    """Return the costs of all sides, repeat by repeat, in one session of Ray."""
    with make_pool(case.cores) as pool, ray_session():
        sides = get_sides(case, pool)
        found: dict[str, list[Cost]] = {side: [] for side in sides}
        # Workers start, and files are in the page cache.
        for work in sides.values():
            measure_once(work, case, case.images[0])
        for _ in range(case.repeats):
            for side, work in sides.items():
                costs = [measure_once(work, case, number) for number in case.images]
                found[side].append(Cost(*zip(*costs, strict=True)))  # type: ignore[arg-type]
    return found


def measure_once(work: Side, case: Case, number: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(dir=case.folder) as target:
        started, processor = time.perf_counter(), read_cpu_seconds(case)
        work(case, number, Path(target))
        return time.perf_counter() - started, read_cpu_seconds(case) - processor


def read_cpu_seconds(case: Case) -> float:
    """Return the CPU time of this process, the nodes and all their descendants, those that have ended included."""
    by_parent, found, ticks = list_children(), [os.getpid(), *case.nodes], 0
    for pid in found:
        found += by_parent.get(pid, [])
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # It has ended since it was listed.
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_on_cores(case: Case) -> dict[str, list[Cost]]:
    """Measure in a local Ray whose processes share the cores of the case."""
    os.sched_setaffinity(0, range(case.cores))
    with set_environment({"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": case.cores})}):
        return measure(case)


def compute_rate(case: Case, cost: Cost) -> Rate:
    more = case.images[1] - case.images[0]
    wall, cpu = ((each[1] - each[0]) / more for each in (cost.wall, cost.cpu))
    fixed = (each[0] - case.images[0] * slope for each, slope in ((cost.wall, wall), (cost.cpu, cpu)))
    return Rate(1 / wall, 1 / cpu, *fixed)


def show(case: Case, label: str, found: dict[str, list[Cost]]) -> None:
    rates = {side: [compute_rate(case, cost) for cost in costs] for side, costs in found.items()}
    for side, own in rates.items():
        wall, cpu = ([getattr(rate, name) for rate in own] for name in ("wall", "cpu"))
        ratios = [mine.wall / plain.wall for mine, plain in zip(own, rates["plain"], strict=True)]
        fixed = [statistics.median(getattr(rate, name) for rate in own) for name in ("fixed_wall", "fixed_cpu")]
        print(
            f"{case.pixels:>4} px to {case.stored:>4}  {label:10}{side:8}"
            f"{statistics.median(wall):8,.0f} images/s ({min(wall):,.0f} to {max(wall):,.0f})"
            f"{statistics.median(cpu):8,.0f} per s of CPU"
            f"{statistics.median(ratios):7.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
            f"   fixed {fixed[0]:.1f} s, {fixed[1]:.1f} of CPU",
            flush=True,
        )


def measure_on_nodes(case: Case, nodes: int) -> dict[str, list[Cost]]:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as scratch:
        cluster = Cluster(Path(scratch), object_store_bytes=OBJECT_STORE_BYTES)
        try:
            cluster.start()
            for number in range(nodes):
                cluster.add(f"n{number}", cpus=1)
            # Ray reads its token when it is imported.
            with set_environment(cluster.environment):
                pids = tuple(node.process.pid for node in cluster.nodes.values())
                return run_in_process(measure, replace(case, nodes=pids))
        finally:
            cluster.close()


def make_pool(processes: int) -> Executor:
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def run_in_process(work: Callable[..., dict[str, list[Cost]]], *arguments: object) -> dict[str, list[Cost]]:
    with make_pool(1) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pixels", type=int, nargs="+", default=[240, 500])
    parser.add_argument("--stored", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--images", type=int, nargs=2, default=[1000, 3000])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--nodes", action="store_true", help="one node of one CPU against two")
    chosen = parser.parse_args()
    numbers = (chosen.images[0], chosen.images[1])
    with tempfile.TemporaryDirectory(prefix="dirtune-ingest-") as folder:
        for pixels in chosen.pixels:
            make_files(Path(folder), pixels, numbers)
            for stored in chosen.stored:
                for count in (1, 2) if chosen.nodes else chosen.cores:
                    case = Case(Path(folder), pixels, stored, numbers, chosen.repeats, count)
                    if chosen.nodes:
                        show(case, f"{count} nodes", measure_on_nodes(case, count))
                    else:
                        show(case, f"{count} cores", run_in_process(measure_on_cores, case))
    print(f"load average {', '.join(f'{each:.1f}' for each in os.getloadavg())}")


if __name__ == "__main__":
    main()
