"""Images per second into the model, against a `DataLoader` that decodes and augments in every epoch.

    python benchmarks/stream.py [--images 1000] [--cores 1] [--epochs 3] [--batch 64] [--parts stream ingest]

The benchmark generates JPEG files of 224 x 224 pixels and about 20 kB. There is no model; a batch counts when it is complete. The loader opens the files with Pillow as an image folder does, has as many workers as there are cores, keeps
them over the epochs, and runs the torchvision v2 transforms that correspond. dirtune reads the same images after ingest:
resident (pixels in memory), encoded (JPEG bytes in memory) and from disk (Parquet in every epoch). Every case runs in a
process of its own. Shown: samples per second in the first epoch (with opening and decoding) and the best of the later
ones, the least processor time per sample of a later epoch, the largest resident sizes of the process and its workers, and
how many times better than the loader the later epochs are in both. `--cores` is the number of the loader's workers and of
torch's threads here; such threads wait for each other, so that one core is most informative on a shared machine.
A second table: ingest with Ray Data against a plain loop that decodes, resizes and encodes. Linux only.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import make_train_batches
from dirtune.data.images import convert_image, encode_image
from dirtune.data.memory_budget import MemoryBudget, keep_freed_memory
from dirtune.data.store import read_manifest, write_dataset
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec, ShotRule
from dirtune.pipelines.image_files import encode_images
from dirtune.recipe import Views

SIZE = 224
SPEC = InputSpec(kind="image", shape=(3, SIZE, SIZE), encoding="jpeg", quality=95)
LABEL = LabelSpec(name="age", unit="years", low=0, high=100, bin_width=1, num_bins=101)
PLENTY = 2**40
Result = TypeVar("Result")
CASES = [(views, name) for name in ("light", "strong") for views in (1, 2)]


@dataclass(frozen=True)
class Settings:
    folder: Path
    images: int
    cores: int
    epochs: int
    batch: int
    views: int = 1
    augmentation: str = "light"


@dataclass(frozen=True)
class Cost:
    first: float
    """Samples per second."""
    later: float
    microseconds: float
    """CPU time per sample."""
    megabytes: float


Epochs = Callable[[Settings], Iterator[Iterable[object]]]
"""The batches of one epoch after the other; opening counts as part of the first epoch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--parts", nargs="+", default=["stream", "ingest"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dirtune-faces-") as folder:
        settings = Settings(Path(folder), chosen.images, chosen.cores, chosen.epochs, chosen.batch)
        make_faces(settings)
        ingest_table = run_in_process(compare_ingest, settings)
        if "stream" in chosen.parts:
            Console(width=100).print(compare_streaming(settings))
        if "ingest" in chosen.parts:
            Console(width=100).print(ingest_table)
    print(f"{settings.cores} cores, load average {', '.join(f'{x:.1f}' for x in os.getloadavg())}")


def make_faces(settings: Settings) -> None:
    """Write images with smooth colors, an oval, and the noise that makes files as large as those of photographs."""
    (settings.folder / "raw").mkdir()
    drawn = np.random.default_rng(0)
    grid = np.linspace(-1, 1, SIZE)
    oval = (grid[:, None] / 0.8) ** 2 + (grid / 0.6) ** 2 < 1
    for number in range(settings.images):
        small = Image.fromarray(drawn.integers(60, 200, (6, 6, 3)).astype(np.uint8))
        smooth = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)
        face = smooth + 40 * oval[:, :, None] + drawn.normal(0, 5, (SIZE, SIZE, 3))
        image = Image.fromarray(face.clip(0, 255).astype(np.uint8))
        image.save(get_path(settings, number), "JPEG", quality=95)


def get_path(settings: Settings, number: int) -> Path:
    return settings.folder / "raw" / f"{number:06d}.jpg"


# --- Into the model


def compare_streaming(settings: Settings) -> Table:
    headers = ("views", "augmentation", "how", "first/s", "later/s", "cpu us", "MB", "later x", "cpu x")
    table = Table(*headers, title=f"{settings.images} images, batches of {settings.batch}")
    for views, augmentation in CASES:
        case = Settings(**{**vars(settings), "views": views, "augmentation": augmentation})
        baseline = run_in_process(measure_cost, iterate_loader, case)
        for name, epochs in HOW.items():
            cost = baseline if epochs is iterate_loader else run_in_process(measure_cost, epochs, case)
            print(f"{views} views, {augmentation}, {name}: {cost.later:,.0f}/s", flush=True)
            table.add_row(
                str(views),
                augmentation,
                name,
                f"{cost.first:,.0f}",
                f"{cost.later:,.0f}",
                f"{cost.microseconds:,.0f}",
                f"{cost.megabytes:,.0f}",
                f"{cost.later / baseline.later:.1f}",
                f"{baseline.microseconds / cost.microseconds:.1f}",
            )
    return table


def measure_cost(epochs: Epochs, settings: Settings) -> Cost:
    torch.set_num_threads(settings.cores)
    rates, spent, peak = [], [], 0.0
    started, processor = time.perf_counter(), read_cpu_seconds()
    for batches in epochs(settings):
        for _ in batches:
            pass
        rates.append(settings.images / (time.perf_counter() - started))
        spent.append(read_cpu_seconds() - processor)
        peak = read_peak_megabytes()
        started, processor = time.perf_counter(), read_cpu_seconds()
    return Cost(rates[0], max(rates[1:]), min(spent[1:]) / settings.images * 1e6, peak)


def list_processes() -> list[Path]:
    """Return this process and its children from /proc."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [Path("/proc") / pid for pid in (str(os.getpid()), *children)]


def read_cpu_seconds() -> float:
    fields = [(path / "stat").read_text().rpartition(")")[2].split() for path in list_processes()]
    # User and kernel mode
    ticks = sum(int(each[11]) + int(each[12]) for each in fields)
    return ticks / os.sysconf("SC_CLK_TCK")


def read_peak_megabytes() -> float:
    """Return the sum of the peak resident sizes; shared memory counts in every process."""
    lines = [line for path in list_processes() for line in (path / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def iterate_dirtune(settings: Settings, budget: MemoryBudget) -> Iterator[Iterable[object]]:
    keep_freed_memory()
    storage = Storage.open(settings.folder)
    data = read_without_ray(storage, read_manifest(storage, "faces"), torch.device("cpu"), budget)
    split, views = (data.splits["train"], Views(count=settings.views, augmentation=settings.augmentation))
    for epoch in range(1, settings.epochs + 2):
        order = split.make_order(0, epoch, batch_size=settings.batch, world=1)
        yield make_train_batches(
            split, torch.ones(len(split)), order, batch_size=settings.batch, views=views, seed=0, epoch=epoch
        )


def iterate_resident(settings: Settings) -> Iterator[Iterable[object]]:
    budget = MemoryBudget(device_bytes=PLENTY, host_bytes=PLENTY, threads=settings.cores)
    return iterate_dirtune(settings, budget)


def iterate_encoded(settings: Settings) -> Iterator[Iterable[object]]:
    budget = MemoryBudget(device_bytes=0, host_bytes=PLENTY, threads=settings.cores)
    return iterate_dirtune(settings, budget)


def iterate_disk(settings: Settings) -> Iterator[Iterable[object]]:
    return iterate_dirtune(settings, MemoryBudget(device_bytes=0, host_bytes=0, threads=settings.cores))


class Folder(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """Image files as in an image folder: each is opened, converted and transformed on access."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.transform = settings, make_transform(settings.augmentation)

    def __len__(self) -> int:
        return self.settings.images

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        with get_path(self.settings, number).open("rb") as file:
            image = Image.open(file).convert("RGB")
        views = tuple(self.transform(image) for _ in range(self.settings.views))
        return (*views, torch.tensor(float(number % 101)))


def make_transform(augmentation: str) -> Callable[[Image.Image], Tensor]:
    as_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    if augmentation == "light":
        return v2.Compose([v2.RandomCrop(SIZE, padding=16), v2.RandomHorizontalFlip(), *as_tensor])
    jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
    crop = v2.RandomResizedCrop(SIZE, scale=(0.2, 1.0))
    return v2.Compose([crop, v2.RandomHorizontalFlip(), jitter, v2.RandomGrayscale(0.2), *as_tensor])


def iterate_loader(settings: Settings) -> Iterator[Iterable[object]]:
    loader = torch.utils.data.DataLoader(
        Folder(settings),
        batch_size=settings.batch,
        shuffle=True,
        num_workers=settings.cores,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    for _ in range(settings.epochs + 1):
        yield loader


HOW: dict[str, Epochs] = {
    "DataLoader": iterate_loader,
    "resident": iterate_resident,
    "encoded": iterate_encoded,
    "from disk": iterate_disk,
}


# --- Ingest


def compare_ingest(settings: Settings) -> Table:
    """Ingest into `settings.folder` and compare its rate with that of a plain loop."""
    rates = {"plain loop": measure_rate(ingest_plainly, settings), "Ray Data": ingest_with_ray(settings)}
    table = Table("how", "images/s", "x", title="ingest: decode, resize, encode, write")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}", f"{rate / rates['plain loop']:.2f}")
    return table


def measure_rate(work: Callable[[Settings], object], settings: Settings) -> float:
    started = time.perf_counter()
    work(settings)
    return settings.images / (time.perf_counter() - started)


def ingest_plainly(settings: Settings) -> None:
    target = settings.folder / "plain"
    target.mkdir()
    for number in range(settings.images):
        with Image.open(get_path(settings, number)) as image:
            content = encode_image(convert_image(image, SPEC), SPEC)
        (target / f"{number}.jpg").write_bytes(content)


def ingest_with_ray(settings: Settings) -> float:
    """Time an ingest without the start of Ray, including verification and hashing of the files."""
    ray.init(num_cpus=settings.cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        # Wait for a first worker
        ray.data.range(8).materialize()
        return measure_rate(write_faces, settings)
    finally:
        ray.shutdown()


def write_faces(settings: Settings) -> None:
    names = [get_path(settings, number).name for number in range(settings.images)]
    labels = pa.array([float(number % 101) for number in range(settings.images)])
    found = encode_images(pa.table({"sample_id": names, "label": labels}), settings.folder / "raw", SPEC)
    write_dataset(
        Storage.open(settings.folder),
        "faces",
        {"train": found.dataset},
        inputs={"image": SPEC},
        label=LABEL,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        source={},
    )


def run_in_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Run `work` in a process of its own, which may have children, and return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


if __name__ == "__main__":
    main()
