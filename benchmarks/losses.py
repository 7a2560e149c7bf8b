"""Time and peak memory of forward and backward of every term, and of losses that compare rows, against a direct implementation.

    python benchmarks/losses.py [--rows 128 512 2048 8192] [--terms accon conr ...]

Random unit vectors of 128 dimensions, integer labels 0..100 (all distinct for RankSim), float32, one thread. Each case runs
in a process of its own: time is the best of several runs, memory the growth of the process's largest resident size. Both
must give the same loss. SupCon is also compared with pytorch-metric-learning. The column "mse x" has the time in that of the
plain squared error of as many rows, measured first in the same run. The growth of time and memory with the rows, as a power
of their number between the last two sizes, is in the second table.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import direct_losses as direct
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dirtune.batch import EvaluatedRows, TermInputs, TrainingLabels
from dirtune.data.memory_budget import keep_freed_memory
from dirtune.losses import LOSSES, TERMS
from dirtune.manifest import LabelSpec

DIM = 128
OMEGA, TAU = direct.OMEGA, direct.TAU
LABEL = LabelSpec(name="y", unit="", low=0, high=direct.LABEL_RANGE, bin_width=1, num_bins=101)

VECTORS = ("representation", "embedding", "direction")

Loss = Callable[[Tensor, Tensor], Tensor]

SETTINGS: dict[str, dict[str, object]] = {
    "accon": {"tau": TAU, "variant": "paper"},
    "acconr": {"tau": TAU, "omega": OMEGA, "variant": "paper"},
    "adasupcon": {"tau": TAU},
    "ccc": {},
    "conr": {"tau": TAU, "omega": OMEGA, "variant": "paper"},
    "dist": {"sorting": direct.SORTING},
    # Every gap above a tenth is pooled, which is the soft sort's slow path.
    "dist pooled": {"sorting": direct.POOLING},
    "group_rnc": {"tau": 2.0},
    "mse": {},
    "multi_similarity": {},
    "ordinal_entropy": {},
    "phreg": {"ties": "rows", "dimension": 0},
    "phreg default": {},
    "prime": {},
    "ranksim": {"interpolation": 2.0},
    "rnc": {"tau": 2.0},
    "rotreg": {},
    "rotreg all": {"rows": 8192},
    "srl": {},
    "supcon": {"tau": TAU, "variant": "paper"},
    # Shares of mixed negatives within 0.001 of one half, so that a form without draws has the same loss
    "supremix": {"beta": (1e6, 1e6), "window": 5.0, "growth": 1.0},
}
"""Settings by case; the first word of a case is the name of its term or loss."""
LOOPS = {"phreg", "ranksim", "rnc", "supremix"}
LOOP_ROWS = 512
"""Maximum for loops: with an autograd node per row, more rows take minutes and many gigabytes."""
MOST_ROWS = {"rotreg all": 2048}
"""Maximum of cases with hundreds of iterations over all pairs."""
SAME = 1e-3
"""Relative tolerance of the two losses; RankSim breaks ties in another order."""


@dataclass(frozen=True)
class Cost:
    seconds: float
    megabytes: float
    value: float


def make_batch(rows: int, *, distinct: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(rows, DIM, generator=generator), dim=1)
    labels = torch.randint(0, 101, (rows,), generator=generator).float()
    return z, torch.randperm(rows, generator=generator).float() if distinct else labels


def make_dirtune_loss(case: str) -> Loss:
    name = case.split()[0]
    part = (TERMS if name in TERMS else LOSSES)[name](**SETTINGS[case])

    def loss(z: Tensor, labels: Tensor) -> Tensor:
        bins = labels.long()
        given = TrainingLabels(labels=labels, label_bins=bins, spec=LABEL, dims=dict.fromkeys(VECTORS, DIM))
        fitted = (part.fit(given) if hasattr(part, "fit") else None) or part
        if name in LOSSES:
            return fitted(direct.predict(z), labels, torch.ones_like(labels))
        if hasattr(fitted, "end_epoch"):
            rows = EvaluatedRows(
                vectors=z.detach(), predictions=labels, labels=labels, label_bins=bins, samples=torch.arange(len(z))
            )
            fitted.end_epoch(fitted.compute_statistics(rows))
        inputs = TermInputs(
            representations=z,
            labels=labels,
            label_bins=bins,
            predictions=labels.flip(0),
            weights=torch.ones_like(labels),
            samples=torch.arange(len(z)),
            num_views=1,
            label_range=direct.LABEL_RANGE,
        )
        return fitted(inputs)

    return loss


def compute_metric_learning_supcon(z: Tensor, labels: Tensor) -> Tensor:
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=TAU)(z, labels.long())


def measure_cost(loss: Loss, rows: int, *, distinct: bool) -> Cost:
    """Measure in this process: one warm-up on few rows, then the largest growth and the best time of several runs."""
    torch.set_num_threads(1)
    # As in the workers of a sweep
    keep_freed_memory()
    run(loss, 64, distinct=distinct)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, times = 0.0, []
    while not times or (len(times) < 20 and sum(times) < 2.0):
        started = time.perf_counter()
        value = run(loss, rows, distinct=distinct)
        times.append(time.perf_counter() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Cost(min(times), grown / 1024, value)


def run(loss: Loss, rows: int, *, distinct: bool) -> float:
    z, labels = make_batch(rows, distinct=distinct)
    z.requires_grad_()
    value = loss(z, labels)
    value.backward()
    return float(value.detach())


def measure_kind(kind: str, case: str, rows: int) -> Cost:
    if kind == "pml":
        loss = compute_metric_learning_supcon
    else:
        loss = make_dirtune_loss(case) if kind == "dirtune" else direct.LOSSES[case]
    return measure_cost(loss, rows, distinct=case == "ranksim")


def compare(case: str, kind: str, rows: int) -> tuple[Cost, Cost | None]:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        ours = pool.apply(measure_kind, ("dirtune", case, rows))
        if (case in LOOPS and rows > LOOP_ROWS) or (kind == "direct" and case not in direct.LOSSES):
            return ours, None
        other = pool.apply(measure_kind, (kind, case, rows))
    if kind == "direct" and abs(ours.value - other.value) > SAME * abs(other.value):
        raise SystemExit(f"{case} at {rows} rows: {ours.value} here, {other.value} directly")
    return ours, other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--terms", nargs="+", default=sorted(SETTINGS), choices=sorted(SETTINGS))
    chosen = parser.parse_args()
    table = Table("term", "against", "rows", "ms", "MB", "mse x", "its ms", "its MB", "time x", "memory x")
    growth = Table("term", "rows", "time ~ rows to the power", "memory ~ rows to the power")
    plain = {rows: compare("mse", "direct", rows)[0] for rows in chosen.rows}
    for case in chosen.terms:
        for kind in ("direct", "pml") if case == "supcon" else ("direct",):
            costs: dict[int, Cost] = {}
            for rows in sorted(rows for rows in chosen.rows if rows <= MOST_ROWS.get(case, rows)):
                costs[rows], other = compare(case, kind, rows)
                table.add_row(*format_cells(case, kind, rows, costs[rows], plain[rows], other))
        if len(costs) > 1:
            growth.add_row(case, *format_growth(costs))
    Console(width=120).print(table, growth)


def format_growth(costs: dict[int, Cost]) -> list[str]:
    """Return the last two numbers of rows, and the powers of their ratio by which time and memory grow between them."""
    few, many = list(costs)[-2:]
    seconds = math.log(costs[many].seconds / costs[few].seconds, many / few)
    # Below a megabyte, pages that the process had already are all that is used.
    megabytes = math.log(max(costs[many].megabytes, 1) / max(costs[few].megabytes, 1), many / few)
    return [f"{few:,} to {many:,}", f"{seconds:.1f}", f"{megabytes:.1f}"]


def format_cells(name: str, kind: str, rows: int, ours: Cost, plain: Cost, other: Cost | None) -> list[str]:
    shown = [name, kind, f"{rows:,}", f"{ours.seconds * 1e3:.1f}", f"{ours.megabytes:.0f}"]
    shown.append(f"{ours.seconds / plain.seconds:,.1f}")
    if other is None:
        return [*shown, "-", "-", "-", "-"]
    return [
        *shown,
        f"{other.seconds * 1e3:.1f}",
        f"{other.megabytes:.0f}",
        f"{other.seconds / ours.seconds:.1f}",
        f"{other.megabytes / max(ours.megabytes, 1):.1f}",
    ]


if __name__ == "__main__":
    main()
