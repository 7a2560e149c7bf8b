"""Training on several ranks against training in one process: how far the weights are apart after some steps.

Run: `.venv/bin/python benchmarks/ranks.py [--data data] [--steps 20] [--arms conr accon] [--optimizers adam sgd]`

The arms are those of the study `quickstart`, on the ingested digits: two shifted views, batches of 128 over all ranks, the
product's own steps. Ranks are processes on this machine that talk by gloo, one thread each; every run starts from the same
weights and sees the same global batches. The encoder `cnn` has no batch normalisation, so there is nothing to synchronise
(torch can do that on GPUs only, and `recipe.sync_batch_norm` is refused on CPUs).

Printed, for float64 and float32: the loss of the last step in one process, the largest difference of any step's loss from
it, the largest difference of any weight after the last step, and, as a scale for that, how far a weight has moved
at most since the start. float64 shows whether the computation is the same; float32 what rounding makes of it. Adam divides
each gradient by its size, so that one which is almost zero moves its weight as far as any other, whatever its sign.
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
from dirtune.config import TrialConfig, merged
from dirtune.data.store import read_manifest
from dirtune.data.stream import read_directly
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.study.resolve import load_study
from dirtune.training.distributed import Ranks
from dirtune.training.loop import first_steps
from dirtune.training.state import Training, begin

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
    """What a run came to on its first rank."""

    losses: list[float]
    """Of each step, over the global batch."""
    weights: dict[str, Tensor]
    moved: float
    """The largest change of a weight since the start."""


def outcomes(world: int, runs: list[Run], data: str, steps: int) -> list[Outcome]:
    """Each run on `world` processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_on_a_rank, (world, folder, runs, data, steps), nprocs=world)
        plain = torch.load(Path(folder) / "outcomes.pt", weights_only=True)
    return [Outcome(**each) for each in plain]


def _on_a_rank(rank: int, world: int, folder: str, runs: list[Run], data: str, steps: int) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        found = [vars(outcome) for outcome in _outcomes(Ranks(rank, world), runs, data, steps)]
        if rank == 0:
            torch.save(found, Path(folder) / "outcomes.pt")
    finally:
        dist.destroy_process_group()


def _outcomes(ranks: Ranks, runs: list[Run], data: str, steps: int) -> Iterator[Outcome]:
    storage = Storage.at(data)
    digits = read_directly(storage, read_manifest(storage, "digits"), torch.device("cpu"))
    for run in runs:
        training = begin(run.config, digits, ranks)
        if PRECISIONS[run.precision] == torch.float64:
            _compute_in_float64(training.model)
        start = _weights(training)
        losses = [float(loss.total) for loss in islice(first_steps(training), steps)]
        weights = _weights(training)
        yield Outcome(losses, weights, _largest_difference(weights, start))


def _compute_in_float64(model: nn.Module) -> None:
    """The views are made in float32, as in every training, and are float64 from the encoder's input on."""

    def in_float64(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs: Inputs = arguments[0]
        return ({name: value.double() for name, value in inputs.items()}, *arguments[1:])

    model.double().register_forward_pre_hook(in_float64)


def _weights(training: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def _largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def planned(arms: list[str], optimizers: list[str]) -> list[Run]:
    configs = {arm.name: arm.config for arm in load_study("quickstart").arms}
    return [
        Run(arm, optimizer, precision, _with_optimizer(configs[arm], optimizer))
        for arm in arms
        for optimizer in optimizers
        for precision in PRECISIONS
    ]


def _with_optimizer(config: TrialConfig, optimizer: str) -> TrialConfig:
    changed = merged(config.plain(), {"recipe": {"optimizer": optimizer}})
    return read(TrialConfig, changed, where="benchmark")


def compared(run: Run, world: int, alone: Outcome, together: Outcome) -> str:
    pairs = zip(together.losses, alone.losses, strict=True)
    cells = (
        run.arm,
        run.optimizer,
        run.precision,
        str(world),
        f"{alone.losses[-1]:.6f}",
        f"{max(abs(one - other) for one, other in pairs):.1e}",
        f"{_largest_difference(together.weights, alone.weights):.1e}",
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
    runs = planned(options.arms, options.optimizers)
    alone = outcomes(1, runs, options.data, options.steps)
    print(f"after {options.steps} steps, against one process; torch {torch.__version__}")
    print("".join(f"{name:>{width}}" for name, width in zip(COLUMNS, WIDTHS, strict=True)))
    for world in WORLDS:
        together = outcomes(world, runs, options.data, options.steps)
        for run, one, several in zip(runs, alone, together, strict=True):
            print(compared(run, world, one, several), flush=True)


if __name__ == "__main__":
    main()
