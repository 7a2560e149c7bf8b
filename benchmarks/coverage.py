"""How often a 95 % interval of a paired difference contains the true difference, by simulation.

    python benchmarks/coverage.py [--repetitions 2000] [--resamples 999] [--seeds 5 10]

Three tables. *Over seeds*: each arm's result is what both arms share plus its own luck, and the interval is over the
differences by seed. *Over seeds and 200 test samples*: absolute errors are products of a sample's difficulty (heavy-tailed,
shared by the arms), the luck of the seed in each arm, how well the sample suits the arm (the same for every seed), and
noise; `suits` is the size of that third factor. The luck is normal, skewed (exponential in the arm, normal in the reference),
or heavy (t with three degrees of freedom). *Over groups*: the interquartile mean of the runs of several groups (data sets)
whose means lie one standard deviation apart. Each coverage stands with its own standard error; `width` is the median.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dirtune.results.statistics.bootstrap import Interval, Kind, mean_interval, stratified_interval
from dirtune.results.statistics.hierarchical import hierarchical_interval, two_way_interval
from dirtune.results.statistics.paired import PairedDifference, iqm, paired_difference, paired_values

Array = NDArray[np.float64]
Ends = Interval | PairedDifference

LUCKS = ("normal", "skewed", "heavy")
SUITS = (0.0, 0.3)
SAMPLES = 200
GROUPS = (1, 3)
# Runs that stand for all runs there could be
MANY = 500_000
# Of a reference of mean one
TRUE_DIFFERENCE = -0.05


@dataclass
class Coverage:
    """How often one kind of interval contained the truth, and how wide it was."""

    hits: int
    repetitions: int
    width: float

    @property
    def share(self) -> float:
        return self.hits / self.repetitions

    @property
    def error(self) -> float:
        return math.sqrt(self.share * (1 - self.share) / self.repetitions)

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} ± {100 * self.error:.1f} ({self.width:.3f})"


def over_seeds(luck: str, seeds: int, *, repetitions: int, resamples: int) -> dict[str, Coverage]:
    """Coverage of the intervals over seeds, by kind."""
    random = np.random.default_rng([LUCKS.index(luck), seeds])

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        ours, theirs = lucks(luck, seeds, random)
        shared = 1 + 0.1 * random.normal(size=seeds)
        arm = dict(enumerate(shared + TRUE_DIFFERENCE + 0.05 * ours))
        reference = dict(enumerate(shared + 0.05 * theirs))
        yield "Student's t", paired_difference(arm, reference), TRUE_DIFFERENCE
        differences, draw = paired_values(arm, reference), int(random.integers(2**31))
        for kind in get_args(Kind):
            found = mean_interval(differences, kind=kind, resamples=resamples, seed=draw)
            yield kind, found, TRUE_DIFFERENCE

    return counted(intervals, repetitions)


def over_samples(luck: str, suits: float, seeds: int, *, repetitions: int, resamples: int) -> dict[str, Coverage]:
    """Coverage of the intervals over seeds and test samples, by kind.

    Student's t is asked twice: for the difference on these test samples, and on new ones like all the others.
    """
    random = np.random.default_rng([LUCKS.index(luck), int(10 * suits), seeds, SAMPLES])

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        arm, reference, here = errors(luck, suits, seeds, random)
        by_seed = paired_difference(
            {seed: float(np.abs(error).mean()) for seed, error in arm.items()},
            {seed: float(np.abs(error).mean()) for seed, error in reference.items()},
        )
        yield "t, these samples", by_seed, here
        yield "t, new samples", by_seed, TRUE_DIFFERENCE
        yield "two-way t", two_way_interval(arm, reference), TRUE_DIFFERENCE
        draw = int(random.integers(2**31))
        for samples in ("shared", "own"):
            found = hierarchical_interval(arm, reference, samples=samples, resamples=resamples, seed=draw)
            yield f"bootstrap, {samples}", found, TRUE_DIFFERENCE

    return counted(intervals, repetitions)


def over_groups(luck: str, groups: int, seeds: int, *, repetitions: int, resamples: int) -> dict[str, Coverage]:
    """Coverage of the stratified bootstrap of the interquartile mean of all groups' runs."""
    random = np.random.default_rng([LUCKS.index(luck), groups, seeds])

    def runs(count: int) -> list[Array]:
        return [group + lucks(luck, count, random)[0] for group in range(groups)]

    truth = iqm(np.concatenate(runs(MANY)))

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        draw = int(random.integers(2**31))
        found = stratified_interval(
            runs(seeds), lambda drawn: iqm(np.concatenate(drawn)), resamples=resamples, seed=draw
        )
        yield "stratified percentile", found, truth

    return counted(intervals, repetitions)


def errors(
    luck: str, suits: float, seeds: int, random: np.random.Generator
) -> tuple[Mapping[int, Array], Mapping[int, Array], float]:
    """Signed errors of both arms by seed, and their true difference of MAE on exactly these samples."""
    difficulty = mean_one(0.8, SAMPLES, random)
    shared = 1 + 0.05 * random.normal(size=seeds)
    levels, arms, expected = (1 + TRUE_DIFFERENCE, 1.0), [], []
    for level, own in zip(levels, lucks(luck, seeds, random), strict=True):
        here = level * difficulty * mean_one(suits, SAMPLES, random)
        noise = mean_one(0.3, (seeds, SAMPLES), random) * random.choice([-1, 1], (seeds, SAMPLES))
        arms.append(dict(enumerate((shared + 0.03 * own)[:, None] * here * noise)))
        expected.append(here.mean())
    return arms[0], arms[1], float(expected[0] - expected[1])


def lucks(luck: str, seeds: int, random: np.random.Generator) -> tuple[Array, Array]:
    """The luck of each seed in the arm and in the reference; mean zero, standard deviation one (skewed reference: half)."""
    if luck == "skewed":
        return random.exponential(size=seeds) - 1, random.normal(size=seeds) / 2
    if luck == "heavy":
        return tuple(random.standard_t(3, size=(2, seeds)) / math.sqrt(3))
    return tuple(random.normal(size=(2, seeds)))


def mean_one(spread: float, shape: int | tuple[int, ...], random: np.random.Generator) -> Array:
    """Log-normal factors of mean one."""
    return np.exp(spread * random.normal(size=shape) - spread**2 / 2)


def counted(intervals: Callable[[], Iterator[tuple[str, Ends, float]]], repetitions: int) -> dict[str, Coverage]:
    """Repeat an experiment that yields intervals with what they should contain."""
    hits: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for kind, interval, truth in intervals():
            hits.setdefault(kind, []).append(interval.low <= truth <= interval.high)
            widths.setdefault(kind, []).append(interval.high - interval.low)
    return {kind: Coverage(sum(found), repetitions, float(np.median(widths[kind]))) for kind, found in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2_000)
    parser.add_argument("--resamples", type=int, default=999)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10])
    chosen = parser.parse_args()
    effort = {"repetitions": chosen.repetitions, "resamples": chosen.resamples}
    show(
        "over seeds: coverage in % ± its standard error (width)",
        {(luck, str(seeds)): over_seeds(luck, seeds, **effort) for luck, seeds in product(LUCKS, chosen.seeds)},
    )
    show(
        f"over seeds and {SAMPLES} test samples",
        {
            (f"{luck}, suits {suits}", str(seeds)): over_samples(luck, suits, seeds, **effort)
            for suits, luck, seeds in product(SUITS, LUCKS, chosen.seeds)
        },
    )
    show(
        "interquartile mean over groups",
        {
            (f"{luck}, {groups} groups", str(seeds)): over_groups(luck, groups, seeds, **effort)
            for groups, luck, seeds in product(GROUPS, LUCKS, chosen.seeds)
        },
    )


def show(title: str, rows: Mapping[tuple[str, str], Mapping[str, Coverage]]) -> None:
    kinds = list(next(iter(rows.values())))
    table = Table("luck", "seeds", *kinds, title=title)
    for labels, found in rows.items():
        table.add_row(*labels, *(str(found[kind]) for kind in kinds))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
