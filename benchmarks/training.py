"""Images per second and peak memory of training steps: dirtune's loop against a plain PyTorch loop.

Run: `.venv/bin/python benchmarks/training.py [--encoder resnet50] [--pixels 224] [--batch 64] [--steps 20] [--compile]`

Without other options on the first GPU, else on the CPU, where `--encoder cnn` takes less than a minute. Both loops train
one regressor by Adam on the absolute error, in every precision and memory layout. The plain loop repeats one batch of
floating-point numbers: the upper limit of the device. dirtune's loop makes each batch from images in bytes on the device,
with views, weights and loss, as in a trial. Peak memory, only on GPUs, is without the data. TF32 has torch's defaults: on
for convolutions, off for matrix products.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import nn

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, ResidentSplit
from dirtune.frozen import read
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.models.build import build_regressor
from dirtune.training.distributed import Ranks
from dirtune.training.loop import run_steps
from dirtune.training.numerics import make_autocast, make_loss_scaler, prepare_model, to_memory_format, wrap_for_steps
from dirtune.training.state import begin_training

WARM_UP = 4
"""Steps that are not timed, in which memory is allocated, kernels are selected and programs are compiled."""
PIXELS = {"cnn": 24}
ROWS_IN_BATCHES = 4


@dataclass(frozen=True)
class Measurement:
    images_per_second: float
    peak_mb: float | None
    """None on a CPU."""


def make_config(encoder: str, batch: int, **recipe: Any) -> TrialConfig:
    settings = {
        "data": {"name": "synthetic"},
        "model": {"encoder": {"name": encoder}, "label_scale": 1.0, "label_offset": 0.0},
        "recipe": {"batch_size": batch, **recipe},
    }
    return read(TrialConfig, settings, where="benchmark")


def make_data(rows: int, pixels: int, device: torch.device) -> ResidentData:
    """Return random images in bytes with random labels between 0 and 10."""
    spec = InputSpec(kind="image", shape=(3, pixels, pixels))
    return draw_data("image", spec, rows, partial(torch.randint, 0, 256, dtype=torch.uint8), device)


def draw_data(
    name: str, spec: InputSpec, rows: int, draw: Callable[..., torch.Tensor], device: torch.device
) -> ResidentData:
    """Return a data set of one random input with random labels between 0 and 10.

    Args:
        name: of the input.
        spec: of the input.
        rows: number of samples.
        draw: function of the input's size and `generator`.
        device: where the data are.
    """
    generator = torch.Generator().manual_seed(0)
    labels = 10 * torch.rand(rows, generator=generator, dtype=torch.float64)
    bins = labels.long()
    split = ResidentSplit(
        sample_ids=tuple(f"{row:06d}" for row in range(rows)),
        inputs={name: draw((rows, *spec.shape), generator=generator).to(device)},
        labels=labels.float().to(device),
        label_bins=bins.to(device),
        exact_labels=labels.numpy(),
    )
    counts = tuple(np.bincount(bins.numpy(), minlength=10).tolist())
    manifest = Manifest(
        name="synthetic",
        inputs={name: spec},
        label=LabelSpec(name="label", unit="units", low=0, high=10, bin_width=1, num_bins=10),
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={"train": SplitInfo(files=("none",), rows=rows, bin_counts=counts)},
        content_hash="c" * 64,
        split_fingerprint="s" * 64,
    )
    return ResidentData(manifest=manifest, device=device, splits={"train": split})


def run_dirtune_steps(config: TrialConfig, data: ResidentData) -> Iterator[None]:
    training = begin_training(config, data)
    # The first epoch, repeated endlessly
    epochs = (run_steps(training) for _ in iter(int, 1))
    yield from (None for _ in chain.from_iterable(epochs))


def run_plain_steps(config: TrialConfig, data: ResidentData) -> Iterator[None]:
    recipe, split, device = config.recipe, data.splits["train"], data.device
    built = build_regressor(config.model, data.manifest.features, config.seed)
    regressor = prepare_model(built, recipe, device, Ranks())
    model, scaler = wrap_for_steps(regressor, recipe, Ranks()), make_loss_scaler(recipe, device)
    optimizer = torch.optim.Adam(regressor.parameters(), lr=recipe.learning_rate)
    (stored,) = split.read([torch.arange(recipe.batch_size)])
    inputs = to_memory_format({"image": stored["image"].float() / 255}, recipe)
    labels = split.labels[: recipe.batch_size]
    while True:
        optimizer.zero_grad(set_to_none=True)
        with make_autocast(recipe, device):
            predictions = model(inputs).predictions
        scaler.scale(nn.functional.l1_loss(predictions, labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        yield


def measure(steps: Iterator[None], config: TrialConfig, count: int, device: torch.device) -> Measurement:
    before = _reset_memory(device)
    _run(steps, WARM_UP, device)
    seconds = _run(steps, count, device)
    rate = count * config.recipe.batch_size / seconds
    if device.type == "cpu":
        return Measurement(rate, None)
    return Measurement(rate, (torch.cuda.max_memory_allocated(device) - before) / 2**20)


def _reset_memory(device: torch.device) -> int:
    if device.type == "cpu":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _run(steps: Iterator[None], count: int, device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    for _ in islice(steps, count):
        pass
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


LOOPS: dict[str, Callable[[TrialConfig, ResidentData], Iterator[None]]] = {
    "plain": run_plain_steps,
    "dirtune": run_dirtune_steps,
}


def show(options: argparse.Namespace, device: torch.device) -> None:
    pixels = options.pixels or PIXELS.get(options.encoder, 224)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}: {options.encoder}, {pixels} px, batches of {options.batch}")
    print(
        f"{'precision':10}{'layout':15}{'plain/s':>10}{'dirtune/s':>11}{'ratio':>7}{'plain MB':>10}{'dirtune MB':>12}"
    )
    data = make_data(ROWS_IN_BATCHES * options.batch, pixels, device)
    for precision in options.precision:
        for channels_last in (False, True):
            config = make_config(
                options.encoder,
                options.batch,
                precision=precision,
                channels_last=channels_last,
                compile=options.compile,
            )
            found = {loop: measure(steps(config, data), config, options.steps, device) for loop, steps in LOOPS.items()}
            print(_format_line(config, found["plain"], found["dirtune"]), flush=True)


def _format_line(config: TrialConfig, plain: Measurement, ours: Measurement) -> str:
    rates = plain.images_per_second, ours.images_per_second
    memory = "".join(
        f"{'-' if peak is None else f'{peak:.0f}':>{width}}"
        for peak, width in ((plain.peak_mb, 10), (ours.peak_mb, 12))
    )
    layout = "channels_last" if config.recipe.channels_last else "contiguous"
    return f"{config.recipe.precision:10}{layout:15}{rates[0]:10.1f}{rates[1]:11.1f}{rates[1] / rates[0]:7.2f}{memory}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--pixels", type=int, help="a side; default: 224, of the cnn 24")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    show(options, torch.device(options.device))


if __name__ == "__main__":
    main()
