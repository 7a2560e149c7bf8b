"""Optuna's TPE against random search on digits: best configuration by budget.

Run: `.venv/bin/python benchmarks/samplers.py [--seeds 4] [--samplers tpe random] [--trials 20] [--data data] [--figure FILE]`

The searches of `digits_search`, arms ConR and ACCon, once per sampler and seed; the seed is that of the sampler and of the
trials. Printed: the best validation error of a complete trial by number of configurations, as mean and standard deviation over the
seeds, and the final difference of the samplers, paired by seed. Configurations count in the order in which they
start, and a pruned one counts too.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray

import dirtune
from dirtune.data.session import ray_session
from dirtune.results.statistics.paired import compare_by_seed
from dirtune.study.files import find_study

ARMS = ("conr", "accon")
Curves = Mapping[tuple[str, str], NDArray[np.float64]]
"""By arm and sampler, the best error so far; shape `(seeds, configurations)`."""


def write_study_file(folder: Path, sampler: str, seed: int, trials: int) -> Path:
    raw = find_study("digits_search").read_plain()
    raw |= {"name": f"{sampler}-{seed}", "seeds": [seed], "reference": ARMS[0]}
    raw["arms"] = {arm: raw["arms"][arm] for arm in ARMS}
    raw["search"] |= {"sampler": sampler, "seed": seed, "trials": trials}
    path = folder / f"{sampler}-{seed}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def compute_best_so_far(results: Path, study: str, arm: str) -> NDArray[np.float64]:
    sql = f"select objective, status from trials where study = '{study}' and arm = '{arm}' order by started_at"
    rows = dirtune.query(sql, results=results).to_dict("records")
    values = [row["objective"] if row["status"] == "complete" else np.inf for row in rows]
    return np.minimum.accumulate(values)


def read_curves(results: Path, samplers: Sequence[str], seeds: Sequence[int]) -> Curves:
    return {
        (arm, sampler): np.stack([compute_best_so_far(results, f"{sampler}-{seed}", arm) for seed in seeds])
        for arm in ARMS
        for sampler in samplers
    }


def show(found: Curves, samplers: Sequence[str]) -> None:
    print("best validation MAE after n configurations, mean ± sd over seeds")
    trials = next(iter(found.values())).shape[1]
    shown = sorted({math.ceil(trials * part) for part in (0.2, 0.4, 0.6, 0.8, 1.0)})
    print("arm    sampler " + "".join(f"{n:>15}" for n in shown))
    for (arm, sampler), values in found.items():
        cells = [f"{values[:, n - 1].mean():.2f} ± {values[:, n - 1].std(ddof=1):.2f}" for n in shown]
        print(f"{arm:6} {sampler:7} " + "".join(f"{cell:>15}" for cell in cells))
    first, *others = samplers
    for arm in ARMS:
        for other in others:
            ends = (dict(enumerate(found[arm, each][:, -1])) for each in (first, other))
            difference = compare_by_seed(*ends)
            print(
                f"{arm}: {first} minus {other} at the end {difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}], n = {difference.n}"
            )


def draw(found: Curves, file: str) -> None:
    mpl.use("agg")
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    for axes, arm in zip(figure.subplots(1, len(ARMS), sharey=True), ARMS, strict=True):
        for (of, sampler), values in found.items():
            if of == arm:
                steps = np.arange(1, values.shape[1] + 1)
                axes.plot(steps, values.mean(axis=0), marker="o", markersize=3, label=sampler)
                axes.fill_between(steps, values.min(axis=0), values.max(axis=0), alpha=0.2)
        axes.set(title=arm, xlabel="configurations", ylabel="best validation MAE [degrees]")
        axes.legend()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    parser.add_argument("--trials", type=int, default=20, help="configurations of an arm")
    parser.add_argument("--data", default="data")
    parser.add_argument("--results", help="keep the results here; recorded trials are not run again")
    parser.add_argument("--figure", help="PNG, PDF or SVG")
    options = parser.parse_args()
    seeds = range(options.seeds)
    with tempfile.TemporaryDirectory() as scratch, ray_session():
        results = Path(options.results or scratch)
        for seed in seeds:
            for sampler in options.samplers:
                file = write_study_file(Path(scratch), sampler, seed, options.trials)
                dirtune.sweep(str(file), data=options.data, results=results)
        found = read_curves(results, options.samplers, seeds)
    show(found, options.samplers)
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
