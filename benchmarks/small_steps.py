"""Time of a training step of a small network on one thread: dirtune's loop against a bare PyTorch loop of the same arithmetic.

    python benchmarks/small_steps.py [--rows 442] [--columns 10] [--batch 64] [--steps 350] [--repeats 40] [--profile]

The network is the encoder `mlp` with a linear predictor, trained by Adam on the absolute error without re-weighting. The
bare loop has the same layers, weights, order of the rows and optimizer, once with Adam as PyTorch's default makes it, and
once with its fused form, which is dirtune's: these weights must be equal to dirtune's at the end, bit for bit. The loops take
the steps of whole epochs in turn, with the mean of the loss; shown is CPU time, which other work on the machine disturbs
least. `--profile` lists the functions of dirtune's steps by their own time.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from training import draw_data

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, ResidentSplit, make_epoch_order
from dirtune.frozen import read
from dirtune.manifest import InputSpec
from dirtune.models.build import build_regressor
from dirtune.training.loop import run_steps
from dirtune.training.objective import LossMeans
from dirtune.training.state import begin_training


def make_config(batch: int) -> TrialConfig:
    settings = {
        "data": {"name": "synthetic"},
        "model": {"encoder": {"name": "mlp"}, "label_scale": 2.0, "label_offset": 5.0},
        "recipe": {"batch_size": batch},
    }
    return read(TrialConfig, settings, where="benchmark")


def run_dirtune(config: TrialConfig, data: ResidentData, epochs: int) -> tuple[float, list[Tensor]]:
    """Return the seconds of CPU time of some times the first epoch, and the weights after it."""
    training = begin_training(config, data)
    started = time.process_time()
    for _ in range(epochs):
        means = LossMeans(epoch=1)
        for loss in run_steps(training):
            means.add(loss)
        means.compute()
    return time.process_time() - started, [parameter.detach() for parameter in training.model.parameters()]


def run_bare(
    config: TrialConfig, data: ResidentData, epochs: int, *, fused: bool = False
) -> tuple[float, list[Tensor]]:
    """Do as `run_dirtune`, in the fewest calls of PyTorch."""
    built = build_regressor(config.model, data.manifest.features, config.seed)
    layers = [layer for layer in built.modules() if isinstance(layer, nn.Linear | nn.ReLU)]
    model, recipe, split = nn.Sequential(*layers), config.recipe, data.splits["train"]
    assert isinstance(split, ResidentSplit)
    features, labels = split.inputs["features"], split.labels
    scale, offset = config.model.get_label_units()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
    )
    started = time.process_time()
    for _ in range(epochs):
        total = torch.zeros(())
        for rows in make_epoch_order(config.seed, 1, len(split)).split(recipe.batch_size):
            optimizer.zero_grad()
            predictions = offset + scale * model(features.index_select(0, rows)).squeeze(-1)
            loss = (predictions / scale - labels.index_select(0, rows) / scale).abs().mean()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()
    return time.process_time() - started, [parameter.detach() for parameter in model.parameters()]


SIDES: dict[str, Callable[[TrialConfig, ResidentData, int], tuple[float, list[Tensor]]]] = {
    "bare": run_bare,
    "fused": partial(run_bare, fused=True),
    "dirtune": run_dirtune,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=442)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--profile", action="store_true", help="list the functions of dirtune's steps")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    spec = InputSpec(kind="vector", shape=(chosen.columns,))
    data = draw_data("features", spec, chosen.rows, torch.randn, torch.device("cpu"))
    config = make_config(chosen.batch)
    per_epoch = -(-chosen.rows // chosen.batch)
    epochs = -(-chosen.steps // per_epoch)
    if chosen.profile:
        with cProfile.Profile(time.process_time) as profile:
            run_dirtune(config, data, epochs)
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        return
    micros: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(chosen.repeats):
        weights = {}
        for side, run in SIDES.items():
            seconds, weights[side] = run(config, data, epochs)
            micros[side].append(1e6 * seconds / (epochs * per_epoch))
        equal = all(map(torch.equal, weights["fused"], weights["dirtune"]))
        assert equal, "both loops must compute the same numbers"
    for side, found in micros.items():
        ratios = {
            other: [mine / theirs for mine, theirs in zip(found, micros[other], strict=True)]
            for other in ("bare", "fused")
        }
        print(
            f"{side:8}{statistics.median(found):7.0f} us of CPU a step ({min(found):.0f} to {max(found):.0f})"
            + "".join(
                f"{statistics.median(each):7.2f} x {other} ({min(each):.2f} to {max(each):.2f})"
                for other, each in ratios.items()
            )
        )
    print(f"torch {torch.__version__}, load average {', '.join(f'{each:.1f}' for each in os.getloadavg())}")


if __name__ == "__main__":
    main()
