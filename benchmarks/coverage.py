"""Coverage of the intervals of a paired difference, and false words of whole studies, by simulation.

    python benchmarks/coverage.py [--repetitions 2000] [--resamples 999] [--seeds 5 10] [--studies 1000] [--parts intervals words]

*Intervals*, three tables. Over seeds: each arm's result is what both arms share plus its own luck, and the interval is over
the differences by seed; percentile and BCa bootstraps (scipy's) are there for comparison with Student's t. Over 200 test
samples: absolute errors are products of a sample's difficulty (heavy-tailed, shared by the arms), the luck of the seed in
each arm, how well the sample suits the arm (the same for every seed), and noise; `suits` is the size of that third factor.
Every interval is compared with the difference that it is about: on these samples with new seeds, or on new samples with new
seeds. By metric: the larger of both intervals, for metrics that are not the MAE. The luck is normal, skewed (exponential in
the arm, normal in the reference), or heavy (t with three degrees of freedom). `width` is the median.

*Words*, of studies whose arms do not differ on new seeds and new samples. Family-wise: the share of studies in which any arm
helps or hurts, by the seeds alone and by the joint test. Whole table: a word in the claim's column, and in every column. Same:
the share of arms at exactly the margin that are called the same. Sequential: level, power and seeds. Searched: two identical
methods, each tuned by one search of eight configurations, and by three searches that are the unit of the test; `c` is the
standard deviation between configurations over that between seeds. Splits: equal arms over random splits of one data set, by a t
test that takes the splits for independent, and by the corrected resampled t test; `trained` is the variance between splits that
their training rows cause over that which their test rows cause. Found: the power of the test over seeds.

Each figure has its own standard error.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import special, stats

from dirtune.results.statistics.influence import compute_influence
from dirtune.results.statistics.joint import JointDifference, compare_jointly
from dirtune.results.statistics.paired import compare_by_seed
from dirtune.results.statistics.sequential import LookSchedule

Array = NDArray[np.float64]

LUCKS = ("normal", "skewed", "heavy")
SUITS = (0.0, 0.3)
SAMPLES = 200
TRUE_DIFFERENCE = -0.05
"""Of a reference of mean one."""
POPULATIONS = 30
"""Large draws, of 20 seeds and 4,000 samples each, whose mean is taken for a metric's true difference."""
METRICS = ("mae", "mse", "rmse", "gmean", "pearson", "spearman", "r2")
ARMS, TEST_SAMPLES = (1, 5, 20), (74, 162, 1_000)
REGIONS = {"many": 756, "medium": 170, "few": 74}
"""Test samples of a long-tailed set of 1,000."""
CONFIGURATIONS = 8


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


@dataclass(frozen=True)
class Share:
    """Share of simulated studies."""

    value: float
    count: int

    @classmethod
    def of(cls, found: NDArray[np.bool_]) -> Share:
        return cls(float(found.mean()), found.size)

    @property
    def error(self) -> float:
        return math.sqrt(self.value * (1 - self.value) / self.count)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ± {100 * self.error:.1f}"


@dataclass
class SimulatedErrors:
    """Signed errors of two arms by seed, with the true differences of their MAE."""

    arm: Mapping[int, Array]
    reference: Mapping[int, Array]
    these_samples: float
    """New seeds on exactly these samples."""
    labels: Array


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


def compare_errors(drawn: SimulatedErrors, metric: str) -> JointDifference:
    """Compare two arms by a metric, as a table does from values and stored predictions."""
    influences = [
        {seed: compute_influence(metric, drawn.labels, drawn.labels + error) for seed, error in side.items()}
        for side in (drawn.arm, drawn.reference)
    ]
    arm, reference = ({seed: float(each.mean()) for seed, each in side.items()} for side in influences)
    parts = np.stack([influences[0][seed] - influences[1][seed] for seed in arm])
    return compare_jointly(arm, reference, parts)


def measure_over_samples(luck: str, suits: float, seeds: int, *, repetitions: int) -> dict[str, Coverage]:
    """Return the coverage of the intervals over seeds, and of the larger of both intervals.

    Student's t over seeds appears twice: for the difference on these test samples, and on new ones.
    """
    random = np.random.default_rng([LUCKS.index(luck), int(10 * suits), seeds, SAMPLES])

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        drawn = draw_errors(luck, suits, seeds, random)
        found = compare_errors(drawn, "mae")
        yield "seeds, these samples", found.over_seeds, drawn.these_samples
        yield "seeds, new samples", found.over_seeds, TRUE_DIFFERENCE
        yield "larger of both, new samples", found, TRUE_DIFFERENCE

    return count_hits(intervals, repetitions)


def measure_by_metric(
    luck: str, suits: float, seeds: int, *, repetitions: int, populations: int = POPULATIONS
) -> dict[str, Coverage]:
    """Return the coverage of the larger of both intervals for new seeds and samples, by metric."""
    random = np.random.default_rng([LUCKS.index(luck), int(10 * suits), seeds, SAMPLES, 1])
    drawn_populations = [draw_errors(luck, suits, 20, random, samples=20 * SAMPLES) for _ in range(populations)]
    truths = {metric: np.mean([compare_errors(p, metric).mean for p in drawn_populations]) for metric in METRICS}

    def intervals() -> Iterator[tuple[str, Ends, float]]:
        drawn = draw_errors(luck, suits, seeds, random)
        for metric, truth in truths.items():
            yield metric, compare_errors(drawn, metric), truth

    return count_hits(intervals, repetitions)


def draw_errors(
    luck: str, suits: float, seeds: int, random: np.random.Generator, *, samples: int = SAMPLES
) -> SimulatedErrors:
    """Draw the signed errors of both arms."""
    difficulty = draw_factors(0.8, samples, random)
    shared = 1 + 0.05 * random.normal(size=seeds)
    levels, arms, by_sample = (1 + TRUE_DIFFERENCE, 1.0), [], []
    for level, own in zip(levels, draw_luck(luck, seeds, random), strict=True):
        here = level * difficulty * draw_factors(suits, samples, random)
        noise = draw_factors(0.3, (seeds, samples), random) * random.choice([-1, 1], (seeds, samples))
        arms.append(dict(enumerate((shared + 0.03 * own)[:, None] * here * noise)))
        by_sample.append(here.mean())
    return SimulatedErrors(
        arm=arms[0],
        reference=arms[1],
        these_samples=float(by_sample[0] - by_sample[1]),
        labels=random.uniform(0, 10, samples),
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


@dataclass(frozen=True)
class Judged:
    """Tests of many studies at once; arrays have the shape `(studies, arms)`."""

    mean: Array
    errors: tuple[Array, Array]
    """Standard errors over seeds, and over seeds and samples."""
    freedoms: tuple[Array, Array]

    def compute_p(self, shift: float = 0.0, *, side: int = 0) -> tuple[Array, Array]:
        """Return p of both tests of a mean `shift`, two-sided or of the alternative with this sign."""
        t = [(self.mean - shift) / error for error in self.errors]
        if side:
            return tuple(special.stdtr(df, -side * each) for each, df in zip(t, self.freedoms, strict=True))
        return tuple(2 * special.stdtr(df, -np.abs(each)) for each, df in zip(t, self.freedoms, strict=True))


def judge(parts: Array) -> Judged:
    """Compute the tests of `dirtune.results.statistics.joint` for many studies.

    Args:
        parts: each sample's part in each seed's difference, shape `(..., seeds, samples)`.
    """
    seeds, samples = parts.shape[-2:]
    by_seed = parts.mean(axis=-1)
    own = by_seed.var(axis=-1, ddof=1) / seeds
    by_sample = parts.mean(axis=-2)
    between = seeds * by_sample.var(axis=-1, ddof=1)
    # Of all squares around the grand mean, those that neither factor explains.
    whole = np.square(parts).mean(axis=(-2, -1)) - np.square(by_seed.mean(axis=-1))
    explained = by_seed.var(axis=-1) + by_sample.var(axis=-1)
    residual = (whole - explained) * seeds * samples / ((seeds - 1) * (samples - 1))
    total = own + np.maximum(between - residual, 0) / (seeds * samples)
    freedom = np.full(own.shape, seeds - 1.0)
    return Judged(by_seed.mean(axis=-1), (np.sqrt(own), np.sqrt(total)), (freedom, freedom * (total / own) ** 2))


def find_any_word(p: Array, level: float = 0.05) -> NDArray[np.bool_]:
    """Return for each study if any of its arms has a word: Holm rejects something where Bonferroni does."""
    return np.min(p, axis=-1) * p.shape[-1] < level


def draw_parts(
    random: np.random.Generator,
    shape: tuple[int, int, int, int],
    *,
    suits: float = 0.3,
    levels: float = 1.0,
) -> Array:
    """Draw the parts of the samples of studies, arms and seeds in the difference of absolute errors to a reference.

    Args:
        random: the generator.
        shape: studies, arms without the reference, seeds and samples.
        suits: spread of how well a sample suits an arm.
        levels: mean error of the arms; that of the reference is one.
    """
    studies, arms, seeds, samples = shape
    difficulty = draw_factors(0.8, (studies, 1, 1, samples), random)
    shared = 1 + 0.05 * random.normal(size=(studies, 1, seeds, 1))
    luck = shared + 0.03 * random.normal(size=(studies, arms + 1, seeds, 1))
    own = draw_factors(suits, (studies, arms + 1, 1, samples), random)
    errors = difficulty * luck * own * draw_factors(0.3, (studies, arms + 1, seeds, samples), random)
    return levels * errors[:, 1:] - errors[:, :1]


def split_studies(studies: int, numbers: int) -> Iterator[int]:
    """Yield numbers of studies whose parts fit into memory, 16 MB each."""
    at_once = max(1, 2_000_000 // numbers)
    for start in range(0, studies, at_once):
        yield min(at_once, studies - start)


def measure_false_words(arms: int, seeds: int, samples: int, *, studies: int, suits: float = 0.3) -> dict[str, Share]:
    """Return the share of studies of equal arms with a false word about new samples, by the rule of the word."""
    random = np.random.default_rng([arms, seeds, samples])
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for count in split_studies(studies, (arms + 1) * seeds * samples):
        p_seeds, p_both = judge(draw_parts(random, (count, arms, seeds, samples), suits=suits)).compute_p()
        for rule, p in {"seeds": p_seeds, "two-way": p_both, "joint": np.maximum(p_seeds, p_both)}.items():
            found.setdefault(rule, []).append(find_any_word(p))
    return {rule: Share.of(np.concatenate(each)) for rule, each in found.items()}


def measure_whole_tables(arms: int, seeds: int, *, studies: int) -> dict[str, Share]:
    """Return the share of tables of equal arms with a false word: in the claim's column, in any of four, and by eye."""
    random = np.random.default_rng([arms, seeds])
    edges = np.cumsum([0, *REGIONS.values()])
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for count in split_studies(studies, (arms + 1) * seeds * int(edges[-1])):
        parts = draw_parts(random, (count, arms, seeds, int(edges[-1])))
        columns = [parts, *(parts[..., low:high] for low, high in pairwise(edges))]
        joint = [np.maximum(*judge(column).compute_p()) for column in columns]
        seeds_only = [judge(column).compute_p()[0] for column in columns]
        rules = {
            "claim, joint": find_any_word(joint[0]),
            "every column, joint": np.any([find_any_word(p) for p in joint], axis=0),
            "every column, seeds": np.any([find_any_word(p) for p in seeds_only], axis=0),
        }
        for rule, each in rules.items():
            found.setdefault(rule, []).append(each)
    return {rule: Share.of(np.concatenate(each)) for rule, each in found.items()}


def measure_false_same(seeds: int, samples: int, *, studies: int, margin: float = 0.05) -> dict[str, Share]:
    """Return the share of arms that differ by exactly the margin on new samples and are called the same."""
    random = np.random.default_rng([seeds, samples, 7])
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for count in split_studies(studies, 2 * seeds * samples):
        # Little luck, so that the tests have power; the samples' part is what they may overlook.
        found_studies = judge(draw_parts(random, (count, 1, seeds, samples), suits=0.1, levels=1 + margin))
        low = found_studies.compute_p(-margin, side=1)
        high = found_studies.compute_p(margin, side=-1)
        tests = [np.maximum(*each) for each in zip(low, high, strict=True)]
        for rule, p in {"seeds": tests[0], "joint": np.maximum(*tests)}.items():
            found.setdefault(rule, []).append(p[:, 0] < 0.05)
    return {rule: Share.of(np.concatenate(each)) for rule, each in found.items()}


def measure_sequential(effect: float, *, arms: int, most: int, studies: int) -> dict[str, Share | float]:
    """Return the share of studies in which looks at growing numbers of seeds find any arm, and the mean seeds of an arm.

    Args:
        effect: true difference over the standard deviation of the differences.
        arms: compared ones.
        most: largest number of seeds; the first look is at three.
        studies: simulated ones.
    """
    random = np.random.default_rng([int(10 * effect), arms, most])
    looks = LookSchedule(first=3, step=1, most=most, comparisons=arms)
    drawn = random.normal(effect, 1.0, (studies, arms, most))
    used = np.full((studies, arms), float(most))
    settled = np.zeros((studies, arms), dtype=bool)
    for n in looks.sizes:
        seen = drawn[..., :n]
        t = seen.mean(axis=-1) / (seen.std(axis=-1, ddof=1) / math.sqrt(n))
        new = ~settled & (2 * special.stdtr(n - 1, -np.abs(t)) < looks.get_levels(n).difference)
        used[new] = n
        settled |= new
    t = drawn.mean(axis=-1) / (drawn.std(axis=-1, ddof=1) / math.sqrt(most))
    fixed = find_any_word(2 * special.stdtr(most - 1, -np.abs(t)))
    return {
        "any arm": Share.of(settled.any(axis=1)),
        "an arm": Share.of(settled.ravel()),
        "any arm, fixed seeds": Share.of(fixed),
        "seeds": float(used.mean()),
    }


def measure_sequential_words(arms: int, samples: int, *, studies: int) -> Share:
    """Return the share of sequential studies with a false word about new samples: the last look's joint test."""
    random, most = np.random.default_rng([arms, samples, 3]), 10
    looks = LookSchedule(first=3, step=1, most=most, comparisons=arms)
    words = []
    for count in split_studies(studies, (arms + 1) * most * samples):
        parts = draw_parts(random, (count, arms, most, samples))
        ended, word = np.zeros((2, count, arms), dtype=bool)
        for n in looks.sizes:
            p_seeds, p_both = judge(parts[..., :n, :]).compute_p()
            level = looks.get_levels(n).difference
            new = ~ended & (p_seeds < level)
            word |= new & (p_both < level)
            ended |= new
        words.append(word.any(axis=1))
    return Share.of(np.concatenate(words))


def measure_searched(ratio: float, seeds: int, *, studies: int, repeats: int = 1) -> Share:
    """Return the share of pairs of identical methods, each tuned by itself, that the t test over seeds finds different.

    Args:
        ratio: standard deviation between configurations over that between seeds.
        seeds: of each selected configuration.
        studies: pairs of methods.
        repeats: searches of each method; with several, seed `s` has the selection of search `s mod repeats`, and the test is
            over searches.
    """
    random = np.random.default_rng([int(10 * ratio), seeds, repeats])
    quality = ratio * random.normal(size=(studies, 2, repeats, CONFIGURATIONS))
    validation = quality + random.normal(size=quality.shape)
    selected = np.take_along_axis(quality, validation.argmin(axis=-1)[..., None], axis=-1)[..., 0]
    searches = np.arange(seeds) % repeats
    results = selected[..., searches] + random.normal(size=(studies, 2, seeds))
    differences = results[:, 0] - results[:, 1]
    if repeats > 1:
        differences = np.stack([differences[:, searches == each].mean(axis=1) for each in range(repeats)], axis=1)
    return Share.of(stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05)


def measure_found(effect: float, seeds: int, *, arms: int, studies: int) -> Share:
    """Return the share of studies whose one arm that truly differs has a word over the seeds, corrected by Holm.

    Args:
        effect: its true difference over the standard deviation of the differences by seed.
        seeds: of each arm.
        arms: compared ones, of which the others equal the reference.
        studies: simulated ones.
    """
    random = np.random.default_rng([int(100 * effect), seeds, arms])
    differences = random.normal(size=(studies, arms, seeds))
    differences[:, 0] += effect
    p = stats.ttest_1samp(differences, 0.0, axis=2).pvalue
    # Holm rejects the k-th smallest of m if each of the k smallest passes its own level.
    passes = np.sort(p, axis=1) * np.arange(arms, 0, -1) < 0.05
    rank = (p < p[:, :1]).sum(axis=1)
    return Share.of(np.logical_and.accumulate(passes, axis=1)[np.arange(studies), rank])


def measure_splits(
    test_share: float, splits: int, *, trained: float, studies: int, rows: int = 100
) -> dict[str, Share]:
    """Return the share of comparisons of equal arms over random splits of one data set with a false word about new samples.

    A row's part in the difference is heavy-tailed and the same in every split that tests the row; so is the effect of a row that
    is trained on. The rows of a data set are a sample of the population in which the arms do not differ.

    Args:
        test_share: of the rows, and the same again for validation.
        splits: of each study.
        trained: variance of a split's difference by its training rows, over that by its test rows.
        studies: simulated ones.
        rows: of the data set, or of a region.
    """
    random = np.random.default_rng([int(100 * test_share), splits, int(10 * trained), rows])
    tested = round(test_share * rows)
    trained_rows = rows - 2 * tested
    by_test = draw_factors(0.8, (studies, rows), random) * random.normal(size=(studies, rows))
    scale = math.exp(0.8**2 / 2) * math.sqrt(trained * trained_rows / tested)
    by_train = scale * random.normal(size=(studies, rows))
    differences = np.empty((studies, splits))
    common = np.zeros((studies, rows))
    for split in range(splits):
        order = random.permuted(np.tile(np.arange(rows), (studies, 1)), axis=1)
        test, train = order[:, :tested], order[:, 2 * tested :]
        differences[:, split] = np.take_along_axis(by_test, test, 1).mean(axis=1)
        differences[:, split] += np.take_along_axis(by_train, train, 1).mean(axis=1)
        np.put_along_axis(common, test, np.take_along_axis(common, test, 1) + 1, axis=1)
    # The observed share of common test samples of two splits, as a table computes it
    share = (common * (common - 1)).sum(axis=1) / (splits * (splits - 1) * tested)
    variance = differences.var(axis=1, ddof=1)
    growth = {"as if independent": 0.0, "corrected": share / (1 - share)}
    t = {rule: differences.mean(axis=1) / np.sqrt((1 / splits + each) * variance) for rule, each in growth.items()}
    return {rule: Share.of(2 * special.stdtr(splits - 1, -np.abs(each)) < 0.05) for rule, each in t.items()}


def show(title: str, rows: Mapping[tuple[str, ...], Mapping[str, object]], labels: tuple[str, ...]) -> None:
    """Print one table."""
    kinds = list(next(iter(rows.values())))
    table = Table(*labels, *kinds, title=title)
    for label, found in rows.items():
        table.add_row(*label, *(f"{each:.1f}" if isinstance(each, float) else str(each) for each in found.values()))
    Console(width=160).print(table)


def show_intervals(seeds: list[int], repetitions: int, resamples: int) -> None:
    show(
        "over seeds: coverage in % ± its standard error (width)",
        {
            (luck, str(n)): measure_over_seeds(luck, n, repetitions=repetitions, resamples=resamples)
            for luck, n in product(LUCKS, seeds)
        },
        ("luck", "seeds"),
    )
    for title, measure in (
        (f"over {SAMPLES} test samples, MAE: coverage", measure_over_samples),
        (f"over seeds and {SAMPLES} test samples, by metric: coverage", measure_by_metric),
    ):
        show(
            title,
            {
                (f"{luck}, suits {suits}", str(n)): measure(luck, suits, n, repetitions=repetitions)
                for suits, luck, n in product(SUITS, LUCKS, seeds)
            },
            ("luck", "seeds"),
        )


def show_words(studies: int) -> None:
    show(
        "studies of equal arms with a false word about new samples, in %",
        {
            (str(arms), str(samples), str(seeds)): measure_false_words(arms, seeds, samples, studies=studies)
            for arms, samples, seeds in product(ARMS, TEST_SAMPLES, (3, 5, 10))
        },
        ("arms", "samples", "seeds"),
    )
    show(
        "whole tables of equal arms with a false word, in %",
        {
            (str(arms), str(seeds)): measure_whole_tables(arms, seeds, studies=studies)
            for arms, seeds in product((1, 5), (3, 5, 10))
        },
        ("arms", "seeds"),
    )
    show(
        "arms at the margin that are called the same, in %",
        {
            (str(samples), str(seeds)): measure_false_same(seeds, samples, studies=4 * studies)
            for samples, seeds in product(TEST_SAMPLES, (3, 5, 10))
        },
        ("samples", "seeds"),
    )
    show(
        "sequential, at most 10 seeds: found in % (effect in standard deviations)",
        {
            (f"{effect:g}", str(arms)): measure_sequential(effect, arms=arms, most=10, studies=10 * studies)
            for effect, arms in product((0.0, 1.0, 2.0, 4.0), (1, 3, 5))
        },
        ("effect", "arms"),
    )
    show(
        "sequential studies of equal arms with a false word about new samples, in %",
        {
            (str(arms), str(samples)): {"joint": measure_sequential_words(arms, samples, studies=studies)}
            for arms, samples in product((1, 5), (74, 1_000))
        },
        ("arms", "samples"),
    )
    show(
        "identical methods told apart, each tuned by itself, in %",
        {
            (f"{ratio:g}", str(seeds)): {
                "one search": measure_searched(ratio, seeds, studies=10 * studies),
                "three searches": measure_searched(ratio, seeds, studies=10 * studies, repeats=3),
            }
            for ratio, seeds in product((0.0, 0.5, 1.0, 2.0), (3, 6, 9))
        },
        ("c", "seeds"),
    )
    show(
        "one of five arms with a true effect of 1.25 standard deviations has a word over the seeds, in %",
        {(str(seeds),): {"found": measure_found(1.25, seeds, arms=5, studies=10 * studies)} for seeds in (2, 3, 5, 10)},
        ("seeds",),
    )
    show(
        "equal arms over random splits of 100 rows with a false word about new samples, in %",
        {
            (f"{share:.2f}", str(splits), f"{trained:g}"): measure_splits(
                share, splits, trained=trained, studies=5 * studies
            )
            for share, splits, trained in product((0.1, 0.2, 1 / 3), (3, 5, 10), (0.0, 0.25, 1.0))
        },
        ("test share", "splits", "trained"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2_000)
    parser.add_argument("--resamples", type=int, default=999)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--studies", type=int, default=1_000)
    parser.add_argument("--parts", nargs="+", choices=("intervals", "words"), default=["intervals", "words"])
    chosen = parser.parse_args()
    if "intervals" in chosen.parts:
        show_intervals(chosen.seeds, chosen.repetitions, chosen.resamples)
    if "words" in chosen.parts:
        show_words(chosen.studies)


if __name__ == "__main__":
    main()
