"""Training on several ranks against training in one process: difference of the weights after some steps.

Run: `.venv/bin/python benchmarks/ranks.py [--data data] [--steps 20] [--arms conr accon] [--optimizers adam sgd]`

The arms are those of the study `quickstart`, on the ingested digits: two shifted views, batches of 128 over all ranks, and
the steps of a sweep. Ranks are processes on this machine that communicate by gloo, with one thread each; every run starts from the same
weights and has the same global batches. The encoder `cnn` has no batch normalization, so there is nothing to synchronize
(torch can do that on GPUs only, and `recipe.sync_batch_norm` is refused on CPUs).

Printed, for float64 and float32: the loss of the last step in one process, the largest difference of the losses over all
steps, the largest difference of the weights after the last step and, as its scale, the largest change of a weight since the
start. float64 shows that the computation is the same, float32 the effect of rounding. Adam divides each gradient by its
size, so that one that is almost zero moves its weight by as much as any other, whatever its sign.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from dirtune.batch import Inputs
from dirtune.config import TrialConfig
from dirtune.data.blocks import read_without_ray
from dirtune.data.store import read_manifest
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.nested import merge
from dirtune.study.resolve import load_study
from dirtune.training.distributed import Ranks
from dirtune.training.loop import run_steps
from dirtune.training.state import Training, begin_training

WORLDS = (2, 4)
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
COLUMNS = ("arm", "optimizer", "precision", "ranks", "loss", "its difference", "of weights", "moved")
WIDTHS = (12, 11, 11, 7, 11, 16, 12, 10)


@dataclass(frozen=True)
class Run:
    """One training of some steps."""

    arm: str
    optimizer: str
    precision: str
    config: TrialConfig


@dataclass(frozen=True)
class Outcome:
    """Result of a run on its first rank."""

    losses: list[float]
    """Loss of each step over the global batch."""
    weights: dict[str, Tensor]
    moved: float
    """The largest change of a weight since the start."""


def run_on_ranks(world: int, runs: list[Run], data: str, steps: int) -> list[Outcome]:
    """Return the outcome of each run on `world` processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_run_on_rank, (world, folder, runs, data, steps), nprocs=world)
        plain = torch.load(Path(folder) / "outcomes.pt", weights_only=True)
    return [Outcome(**each) for each in plain]


def _run_on_rank(rank: int, world: int, folder: str, runs: list[Run], data: str, steps: int) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        found = [vars(outcome) for outcome in _run_all(Ranks(rank, world), runs, data, steps)]
        if rank == 0:
            torch.save(found, Path(folder) / "outcomes.pt")
    finally:
        dist.destroy_process_group()


def _run_all(ranks: Ranks, runs: list[Run], data: str, steps: int) -> Iterator[Outcome]:
    storage = Storage.open(data)
    digits = read_without_ray(storage, read_manifest(storage, "digits"), torch.device("cpu"))
    for run in runs:
        training = begin_training(run.config, digits, ranks)
        if PRECISIONS[run.precision] == torch.float64:
            _compute_in_float64(training.model)
        start = _copy_weights(training)
        losses = [float(loss.total) for loss in islice(run_steps(training), steps)]
        weights = _copy_weights(training)
        yield Outcome(losses, weights, _compute_largest_difference(weights, start))


def _compute_in_float64(model: nn.Module) -> None:
    """Convert a model to float64; views are float32, as in every training, until the encoder's input."""

    def in_float64(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs: Inputs = arguments[0]
        return ({name: value.double() for name, value in inputs.items()}, *arguments[1:])

    model.double().register_forward_pre_hook(in_float64)


def _copy_weights(training: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def _compute_largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def make_runs(arms: list[str], optimizers: list[str]) -> list[Run]:
    configs = {arm.name: arm.config for arm in load_study("quickstart").arms}
    return [
        Run(arm, optimizer, precision, _set_optimizer(configs[arm], optimizer))
        for arm in arms
        for optimizer in optimizers
        for precision in PRECISIONS
    ]


def _set_optimizer(config: TrialConfig, optimizer: str) -> TrialConfig:
    changed = merge(config.to_plain(), {"recipe": {"optimizer": optimizer}})
    return read(TrialConfig, changed, where="benchmark")


def format_comparison(run: Run, world: int, alone: Outcome, together: Outcome) -> str:
    pairs = zip(together.losses, alone.losses, strict=True)
    cells = (
        run.arm,
        run.optimizer,
        run.precision,
        str(world),
        f"{alone.losses[-1]:.6f}",
        f"{max(abs(one - other) for one, other in pairs):.1e}",
        f"{_compute_largest_difference(together.weights, alone.weights):.1e}",
        f"{alone.moved:.1e}",
    )
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="data")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--arms", nargs="+", default=["conr", "accon"])
    parser.add_argument("--optimizers", nargs="+", default=["adam", "sgd"])
    options = parser.parse_args()
    runs = make_runs(options.arms, options.optimizers)
    alone = run_on_ranks(1, runs, options.data, options.steps)
    print(f"after {options.steps} steps, against one process; torch {torch.__version__}")
    print("".join(f"{name:>{width}}" for name, width in zip(COLUMNS, WIDTHS, strict=True)))
    for world in WORLDS:
        together = run_on_ranks(world, runs, options.data, options.steps)
        for run, one, several in zip(runs, alone, together, strict=True):
            print(format_comparison(run, world, one, several), flush=True)


if __name__ == "__main__":
    main()
