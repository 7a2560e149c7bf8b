"""What a sweep costs beyond its trainings: 20 trials on digits, as a sweep and as a bare PyTorch loop.

Run: `.venv/bin/python benchmarks/sweep_overhead.py [--trials 20] [--epochs 8] [--group]`

The bare loop is what a user would write instead: one script per core, each training its share of the seeds one after
another, no Ray, no files, no metrics beyond the validation error. Printed: wall times and their ratio, and the overhead
per trial that the sweep itself has recorded (`seconds_overhead`; the first trial of each worker pays for its start).
`--group` measures a resident two-worker Ray Train group instead of in-process workers; the bare loop is left out.
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
from dirtune.data.cache import epoch_order, train_batches
from dirtune.data.store import read_manifest
from dirtune.data.stream import read_directly
from dirtune.data.views import plain_view
from dirtune.io.storage import Storage
from dirtune.study.resolve import Arm, load_study
from dirtune.training.objective import stacked_views

ARM = "vanilla"


def bare_loop(data: str, epochs: int, seeds: list[int]) -> None:
    """The trainings of the sweep, written down plainly."""
    from dirtune.models.regressor import build_regressor

    torch.set_num_threads(1)
    storage = Storage.at(data)
    manifest = read_manifest(storage, "digits")
    resident = read_directly(storage, manifest, torch.device("cpu"))
    arm = arm_of(load_study("quickstart").arms)
    recipe, train, val = arm.config.recipe, resident.splits["train"], resident.splits["val"]
    for seed in seeds:
        model = build_regressor(arm.config.model, manifest.inputs, seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        for epoch in range(1, epochs + 1):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * recipe.schedule.factor(epoch, epochs)
            batches = train_batches(
                train,
                torch.ones(len(train)),
                epoch_order(seed, epoch, len(train)),
                batch_size=recipe.batch_size,
                views=recipe.views,
                seed=seed,
                epoch=epoch,
            )
            for batch in batches:
                predictions = model(stacked_views(batch)).predictions
                loss = (predictions - batch.labels.repeat(recipe.views.count)).abs().mean() / 60
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            with torch.inference_mode():
                (model(plain_view(val.inputs)).predictions - val.labels).abs().mean().item()


def arm_of(arms: tuple[Arm, ...]) -> Arm:
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


def study_file(folder: Path, epochs: int, trials: int, workers: int) -> Path:
    """The quickstart's vanilla arm with many seeds, as a study of its own."""
    from dirtune.study.files import find_study

    raw = find_study("quickstart").raw()
    raw |= {"name": "overhead", "arms": {ARM: {}}, "reference": ARM, "seeds": list(range(trials))}
    raw["base"]["recipe"] |= {"epochs": epochs, "learning_rate": 2e-3}
    raw["resources"] = {"workers": workers}
    path = folder / "overhead.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def time_sweep(data: str, epochs: int, trials: int, workers: int) -> tuple[float, list[float], float]:
    """Wall seconds, recorded overhead per trial by start, and the mean seconds of training per trial."""
    with tempfile.TemporaryDirectory() as scratch:
        path = study_file(Path(scratch), epochs, trials, workers)
        started = time.perf_counter()
        dirtune.sweep(str(path), data=data, results=scratch)
        wall = time.perf_counter() - started
        sql = (
            "select seconds_overhead, seconds_train + seconds_eval + seconds_data as spent, status "
            "from trials order by started_at"
        )
        rows = dirtune.query(sql, scratch).to_pylist()
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
        bare_loop(options.data, options.epochs, [int(seed) for seed in options.bare.split(",")])
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
