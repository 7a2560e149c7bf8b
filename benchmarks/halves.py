"""Half-sample check of a study's intervals on real data, without any assumption.

    python benchmarks/halves.py STUDY [--results results] [--metric mae] [--draws 200]

The test samples are split at random into two halves. An arm is compared with the reference on one half, with the same trained
models, and the other half shows what holds on other samples. An interval for new test samples contains the other half's mean
about as often as it is right (the halves differ by two draws, and two parts of one set pull apart: about 83 % of a 95 %
interval); one for these samples does not. The last column is the share of intervals that exclude zero while the other half has
the opposite sign.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from dirtune.metrics import REGIONS
from dirtune.results.analysis.recompute import read_sample_predictions
from dirtune.results.analysis.sample_parts import SampleParts, select_seeds
from dirtune.results.records.studies import open_study
from dirtune.results.statistics.joint import Array, JointDifference, compare_jointly
from dirtune.results.tables.table import make_arm_table


def compare_half(parts: Array) -> JointDifference:
    """Compare an arm with the reference on some of the test samples."""
    differences = dict(enumerate(parts.mean(axis=1).tolist()))
    return compare_jointly(differences, dict.fromkeys(differences, 0.0), parts)


def measure_halves(parts: Array, draws: int, random: np.random.Generator) -> Array:
    """Return for each draw: inside the interval over seeds, inside the larger one, both with a wrong sign; `(draws, 4)`."""
    rows = []
    for _ in range(draws):
        order = random.permutation(parts.shape[1])
        first, second = np.array_split(order, 2)
        found, other = compare_half(parts[:, first]), float(parts[:, second].mean())
        seeds = found.over_seeds
        rows.append(
            [
                seeds.low <= other <= seeds.high,
                found.low <= other <= found.high,
                (seeds.low > 0 > other) or (seeds.high < 0 < other),
                (found.low > 0 > other) or (found.high < 0 < other),
            ]
        )
    return np.array(rows, dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study")
    parser.add_argument("--results", default="results")
    parser.add_argument("--metric")
    parser.add_argument("--draws", type=int, default=200)
    chosen = parser.parse_args()
    table = make_arm_table(chosen.results, chosen.study, metric=chosen.metric)
    trials = {arm.chosen[seed].trial_id for arm in table.rows for seed in select_seeds(arm.chosen)}
    stored = read_sample_predictions(open_study(chosen.results, chosen.study), trials)
    parts = SampleParts(table.metric, stored)
    base = next(row for row in table.rows if row.arm == table.reference)
    shown = Table("region", "samples", "in seeds", "in larger", "wrong sign, seeds", "wrong sign, larger")
    random = np.random.default_rng(0)
    for region in REGIONS:
        found = []
        for row in table.rows:
            seeds = row.chosen.keys() & base.chosen.keys()
            own, theirs = ({seed: each.chosen[seed].trial_id for seed in seeds} for each in (row, base))
            differences = None if row is base else parts.compute_difference(own, theirs, region)
            if differences is not None and differences.shape[1] > 3:
                found.append(measure_halves(differences, chosen.draws, random))
        shares = np.mean(np.concatenate(found), axis=0) if found else np.full(4, np.nan)
        shown.add_row(region, str(table.samples[region]), *(f"{100 * share:.0f} %" for share in shares))
    Console().print(shown)


if __name__ == "__main__":
    main()
