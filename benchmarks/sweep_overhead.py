"""Overhead of a sweep: 20 trials on digits, as a sweep and as a bare PyTorch loop.

Run: `.venv/bin/python benchmarks/sweep_overhead.py [--trials 20] [--epochs 8] [--group]`

The bare loop is one script per core, each training its share of the seeds one after another, without Ray, files, or
metrics other than the validation error. Printed: wall times and their ratio, and the recorded overhead per trial
(`seconds_overhead`; that of the first trial of each worker includes the worker's start).
`--group` measures a resident two-worker Ray Train group instead of in-process workers; without the bare loop.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

import dirtune
from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import make_epoch_order, make_train_batches
from dirtune.data.store import read_manifest
from dirtune.io.storage import Storage
from dirtune.study.resolve import load_study
from dirtune.study.schema import Arm
from dirtune.training.objective import stack_views

ARM = "vanilla"


def train_bare(data: str, epochs: int, seeds: list[int]) -> None:
    """Train the trials of the sweep in a plain loop."""
    from dirtune.models.build import build_regressor

    torch.set_num_threads(1)
    storage = Storage.open(data)
    manifest = read_manifest(storage, "digits")
    resident = read_without_ray(storage, manifest, torch.device("cpu"))
    arm = find_arm(load_study("quickstart").arms)
    recipe, train, val = arm.config.recipe, resident.splits["train"], resident.splits["val"]
    for seed in seeds:
        model = build_regressor(arm.config.model, manifest.inputs, seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        for epoch in range(1, epochs + 1):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * recipe.schedule.compute_factor(epoch, epochs)
            batches = make_train_batches(
                train,
                torch.ones(len(train)),
                make_epoch_order(seed, epoch, len(train)),
                batch_size=recipe.batch_size,
                views=recipe.views,
                seed=seed,
                epoch=epoch,
            )
            for batch in batches:
                predictions = model(stack_views(batch.views)).predictions
                loss = (predictions - batch.labels.repeat(recipe.views.count)).abs().mean() / 60
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            with torch.inference_mode():
                (model(val.transform.apply_evaluation(val.inputs)).predictions - val.labels).abs().mean().item()


def find_arm(arms: tuple[Arm, ...]) -> Arm:
    return next(arm for arm in arms if arm.name == ARM)


def time_bare(data: str, epochs: int, trials: int, cores: int) -> float:
    shares = [list(range(trials))[core::cores] for core in range(cores)]
    started = time.perf_counter()
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--bare", ",".join(map(str, share)), "--epochs", str(epochs), "--data", data]
        )
        for share in shares
    ]
    assert not any(child.wait() for child in children)
    return time.perf_counter() - started


def write_study_file(folder: Path, epochs: int, trials: int, workers: int) -> Path:
    """Write a study of the quickstart's vanilla arm with many seeds."""
    from dirtune.study.files import find_study

    raw = find_study("quickstart").read_plain()
    raw |= {"name": "overhead", "arms": {ARM: {}}, "reference": ARM, "seeds": list(range(trials))}
    raw["base"]["recipe"] |= {"epochs": epochs, "learning_rate": 2e-3}
    raw["resources"] = {"workers": workers}
    path = folder / "overhead.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def time_sweep(data: str, epochs: int, trials: int, workers: int) -> tuple[float, list[float], float]:
    """Return wall seconds, recorded overhead per trial by start, and mean training seconds per trial."""
    with tempfile.TemporaryDirectory() as scratch:
        path = write_study_file(Path(scratch), epochs, trials, workers)
        started = time.perf_counter()
        dirtune.sweep(str(path), data=data, results=scratch)
        wall = time.perf_counter() - started
        sql = (
            "select seconds_overhead, seconds_train + seconds_eval + seconds_data as spent, status "
            "from trials order by started_at"
        )
        rows = dirtune.query(sql, results=scratch).to_dict("records")
    assert [row["status"] for row in rows] == ["complete"] * trials
    return (wall, [row["seconds_overhead"] for row in rows], sum(row["spent"] for row in rows) / trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--data", default="data")
    parser.add_argument("--group", action="store_true")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        train_bare(options.data, options.epochs, [int(seed) for seed in options.bare.split(",")])
        return
    workers = 2 if options.group else 1
    wall, overhead, spent = time_sweep(options.data, options.epochs, options.trials, workers)
    slots = 1 if options.group else options.cores
    later = overhead[slots:]
    print(f"sweep: {options.trials} trials x {options.epochs} epochs, {workers} worker(s) each: {wall:.1f} s wall")
    print(f"  own time of a trial (train + eval + data): {spent:.2f} s")
    print(
        f"  recorded overhead per trial once workers are up: mean {sum(later) / len(later):.3f} s, max {max(later):.3f} s"
    )
    print(f"  first trial of each worker: {', '.join(f'{value:.2f} s' for value in overhead[:slots])}")
    if not options.group:
        bare = time_bare(options.data, options.epochs, options.trials, options.cores)
        print(f"bare loop on {options.cores} cores: {bare:.1f} s wall; sweep / bare = {wall / bare:.2f}")


if __name__ == "__main__":
    main()
