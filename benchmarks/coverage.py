"""Coverage of the 95 % intervals of a paired difference, by simulation.

    python benchmarks/coverage.py [--repetitions 2000] [--resamples 999] [--seeds 5 10]

Three tables. *Over seeds*: each arm's result is what both arms share plus its own luck, and the interval is over the
differences by seed; percentile and BCa bootstraps (scipy's) are there for comparison with Student's t. *Over 200 test
samples*: absolute errors are products of a sample's difficulty (heavy-tailed, shared by the arms), the luck of the seed in
each arm, how well the sample suits the arm (the same for every seed), and noise; `suits` is the size of that third factor.
Every interval is compared with the difference that it is about: on these samples with new seeds, on new samples with these
models, or on new samples with new seeds. *By metric*: the interval over seeds and samples for metrics that are not the MAE.
The luck is normal, skewed (exponential in the arm, normal in the reference), or heavy (t with three degrees of freedom).
Each coverage has its own standard error; `width` is the median.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from dirtune.results.statistics.paired import compare_by_seed
from dirtune.results.statistics.two_way import SAMPLE_METRICS, compare_by_sample

Array = NDArray[np.float64]

LUCKS = ("normal", "skewed", "heavy")
SUITS = (0.0, 0.3)
SAMPLES = 200
TRUE_DIFFERENCE = -0.05
"""Of a reference of mean one."""
POPULATIONS = 30
"""Large draws, of 50 seeds and 4,000 samples each, whose mean is taken for a metric's true difference."""


class Ends(Protocol):
    """An interval."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass
class Coverage:
    """Coverage and median width of one kind of interval."""

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


@dataclass
class SimulatedErrors:
    """Signed errors of two arms by seed, with the true differences of their MAE."""

    arm: Mapping[int, Array]
    reference: Mapping[int, Array]
    these_samples: float
    """New seeds on exactly these samples."""
    these_models: float
    """Exactly these seeds on new samples."""


def measure_over_seeds(luck: str, seeds: int, *, repetitions: int, resamples: int) -> dict[str, Coverage]:
    """Return the coverage of the intervals over seeds, by kind."""
    random = np.random.default_rng([LUCKS.index(luck), seeds])

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        ours, theirs = draw_luck(luck, seeds, random)
        shared = 1 + 0.1 * random.normal(size=seeds)
        arm = dict(enumerate(shared + TRUE_DIFFERENCE + 0.05 * ours))
        reference = dict(enumerate(shared + 0.05 * theirs))
        yield "Student's t", compare_by_seed(arm, reference), TRUE_DIFFERENCE
        differences = [arm[seed] - reference[seed] for seed in range(seeds)]
        draw = int(random.integers(2**31))
        for kind in ("percentile", "BCa"):
            found = stats.bootstrap((differences,), np.mean, n_resamples=resamples, method=kind, rng=draw)
            yield kind, found.confidence_interval, TRUE_DIFFERENCE

    return count_hits(intervals, repetitions)


def measure_over_samples(luck: str, suits: float, seeds: int, *, repetitions: int) -> dict[str, Coverage]:
    """Return the coverage of the intervals over seeds, over test samples and over both.

    Student's t over seeds appears twice: for the difference on these test samples, and on new ones.
    """
    random = np.random.default_rng([LUCKS.index(luck), int(10 * suits), seeds, SAMPLES])

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        drawn = draw_errors(luck, suits, seeds, random)
        by_seed = compare_by_seed(
            {seed: float(np.abs(error).mean()) for seed, error in drawn.arm.items()},
            {seed: float(np.abs(error).mean()) for seed, error in drawn.reference.items()},
        )
        yield "seeds, these samples", by_seed, drawn.these_samples
        yield "seeds, new samples", by_seed, TRUE_DIFFERENCE
        yield "samples", compare_by_sample(drawn.arm, drawn.reference, over="samples"), drawn.these_models
        yield "both", compare_by_sample(drawn.arm, drawn.reference, over="both"), TRUE_DIFFERENCE

    return count_hits(intervals, repetitions)


def measure_by_metric(luck: str, suits: float, seeds: int, *, repetitions: int) -> dict[str, Coverage]:
    """Return the coverage of the interval over seeds and samples, by metric."""
    random = np.random.default_rng([LUCKS.index(luck), int(10 * suits), seeds, SAMPLES, 1])
    populations = [draw_errors(luck, suits, 50, random, samples=20 * SAMPLES) for _ in range(POPULATIONS)]
    truths = {
        metric: np.mean(
            [compare_by_sample(p.arm, p.reference, over="samples", metric=metric).mean for p in populations]
        )
        for metric in SAMPLE_METRICS
    }

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        drawn = draw_errors(luck, suits, seeds, random)
        for metric, truth in truths.items():
            yield metric, compare_by_sample(drawn.arm, drawn.reference, over="both", metric=metric), truth

    return count_hits(intervals, repetitions)


def draw_errors(
    luck: str, suits: float, seeds: int, random: np.random.Generator, *, samples: int = SAMPLES
) -> SimulatedErrors:
    """Draw the signed errors of both arms."""
    difficulty = draw_factors(0.8, samples, random)
    shared = 1 + 0.05 * random.normal(size=seeds)
    levels, arms, by_sample, by_seed = (1 + TRUE_DIFFERENCE, 1.0), [], [], []
    for level, own in zip(levels, draw_luck(luck, seeds, random), strict=True):
        here = level * difficulty * draw_factors(suits, samples, random)
        noise = draw_factors(0.3, (seeds, samples), random) * random.choice([-1, 1], (seeds, samples))
        arms.append(dict(enumerate((shared + 0.03 * own)[:, None] * here * noise)))
        by_sample.append(here.mean())
        by_seed.append(level * (shared + 0.03 * own).mean())
    return SimulatedErrors(
        arm=arms[0],
        reference=arms[1],
        these_samples=float(by_sample[0] - by_sample[1]),
        these_models=float(by_seed[0] - by_seed[1]),
    )


def draw_luck(luck: str, seeds: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Draw the luck of each seed in the arm and in the reference: mean zero, deviation one (skewed reference: half)."""
    if luck == "skewed":
        return random.exponential(size=seeds) - 1, random.normal(size=seeds) / 2
    if luck == "heavy":
        return tuple(random.standard_t(3, size=(2, seeds)) / math.sqrt(3))
    return tuple(random.normal(size=(2, seeds)))


def draw_factors(spread: float, shape: int | tuple[int, ...], random: np.random.Generator) -> Array:
    """Draw log-normal factors of mean one."""
    return np.exp(spread * random.normal(size=shape) - spread**2 / 2)


def count_hits(intervals: Callable[[], Iterator[tuple[str, Ends, float]]], repetitions: int) -> dict[str, Coverage]:
    """Repeat an experiment that yields intervals, each with the value that it should contain."""
    hits: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for kind, interval, truth in intervals():
            hits.setdefault(kind, []).append(bool(interval.low <= truth <= interval.high))
            widths.setdefault(kind, []).append(interval.high - interval.low)
    return {kind: Coverage(sum(found), repetitions, float(np.median(widths[kind]))) for kind, found in hits.items()}


def show(title: str, rows: Mapping[tuple[str, str], Mapping[str, Coverage]]) -> None:
    """Print one table of coverages."""
    kinds = list(next(iter(rows.values())))
    table = Table("luck", "seeds", *kinds, title=title)
    for labels, found in rows.items():
        table.add_row(*labels, *(str(found[kind]) for kind in kinds))
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2_000)
    parser.add_argument("--resamples", type=int, default=999)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10])
    chosen = parser.parse_args()
    repetitions = chosen.repetitions
    show(
        "over seeds: coverage in % ± its standard error (width)",
        {
            (luck, str(seeds)): measure_over_seeds(luck, seeds, repetitions=repetitions, resamples=chosen.resamples)
            for luck, seeds in product(LUCKS, chosen.seeds)
        },
    )
    for title, measure in (
        (f"over {SAMPLES} test samples, MAE", measure_over_samples),
        (f"over seeds and {SAMPLES} test samples, by metric", measure_by_metric),
    ):
        show(
            title,
            {
                (f"{luck}, suits {suits}", str(seeds)): measure(luck, suits, seeds, repetitions=repetitions)
                for suits, luck, seeds in product(SUITS, LUCKS, chosen.seeds)
            },
        )


if __name__ == "__main__":
    main()
