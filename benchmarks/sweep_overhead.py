"""Overhead of a sweep: 20 trials on digits, as a sweep, as a bare PyTorch loop, and as the same loop under Optuna with joblib.

Run: `.venv/bin/python benchmarks/sweep_overhead.py [--trials 20] [--epochs 8] [--group]`

The bare loop is one script per core, each training its share of the seeds one after another, without Ray, files, or
metrics other than the validation error. Optuna runs the same function as its objective, in one joblib process per core that
share a study in SQLite. Printed: wall times and their ratios, the files that the sweep and Optuna leave, and the recorded
overhead per trial (`seconds_overhead`; that of the first trial of each worker includes the worker's start).
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


class BareLoop:
    """Trials of the sweep in a plain loop.

    Args:
        data: the data root.
        epochs: of a trial.
    """

    def __init__(self, data: str, epochs: int) -> None:
        torch.set_num_threads(1)
        storage = Storage.open(data)
        self.manifest = read_manifest(storage, "digits")
        self.data = read_without_ray(storage, self.manifest, torch.device("cpu"))
        self.config, self.epochs = find_arm(load_study("quickstart").arms).config, epochs

    def train(self, seed: int) -> float:
        """Train one trial; return its last validation error."""
        from dirtune.models.build import build_regressor

        recipe, epochs = self.config.recipe, self.epochs
        train, val = self.data.splits["train"], self.data.splits["val"]
        model = build_regressor(self.config.model, self.manifest.inputs, seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        error = float("nan")
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
                predictions = model(val.transform.apply_evaluation(val.inputs)).predictions
                error = float((predictions - val.labels).abs().mean())
        return error


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


def time_optuna(data: str, epochs: int, trials: int, cores: int) -> tuple[float, str]:
    """Return wall seconds and what is left on disk."""
    import optuna
    from joblib import Parallel, delayed

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        url = f"sqlite:///{scratch}/optuna.db"
        optuna.create_study(study_name="overhead", storage=url)
        shares = [trials // cores + (core < trials % cores) for core in range(cores)]
        Parallel(n_jobs=cores)(delayed(_optimize)(url, data, epochs, share) for share in shares)
        wall = time.perf_counter() - started
        found = optuna.load_study(study_name="overhead", storage=url).trials
        assert [trial.state.name for trial in found] == ["COMPLETE"] * trials
        return wall, describe_files(Path(scratch))


def _optimize(url: str, data: str, epochs: int, trials: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loop = BareLoop(data, epochs)
    study = optuna.load_study(study_name="overhead", storage=url)
    study.optimize(lambda trial: loop.train(trial.suggest_int("seed", 0, 2**31)), n_trials=trials)


def describe_files(folder: Path) -> str:
    """Return the number and the size of the files of a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"


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


def time_sweep(data: str, epochs: int, trials: int, workers: int) -> tuple[float, list[float], float, str]:
    """Return wall seconds, recorded overhead per trial by start, mean training seconds per trial, and what is left on disk."""
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
        files = describe_files(Path(scratch) / "overhead")
    assert [row["status"] for row in rows] == ["complete"] * trials
    return wall, [row["seconds_overhead"] for row in rows], sum(row["spent"] for row in rows) / trials, files


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
        loop = BareLoop(options.data, options.epochs)
        for seed in options.bare.split(","):
            loop.train(int(seed))
        return
    workers = 2 if options.group else 1
    wall, overhead, spent, files = time_sweep(options.data, options.epochs, options.trials, workers)
    slots = 1 if options.group else options.cores
    later = overhead[slots:]
    print(
        f"sweep: {options.trials} trials x {options.epochs} epochs, {workers} worker(s) each: {wall:.1f} s wall; {files}"
    )
    print(f"  own time of a trial (train + eval + data): {spent:.2f} s")
    print(
        f"  recorded overhead per trial once workers are up: mean {sum(later) / len(later):.3f} s, max {max(later):.3f} s"
    )
    print(f"  first trial of each worker: {', '.join(f'{value:.2f} s' for value in overhead[:slots])}")
    if not options.group:
        bare = time_bare(options.data, options.epochs, options.trials, options.cores)
        print(f"bare loop on {options.cores} cores: {bare:.1f} s wall; sweep / bare = {wall / bare:.2f}")
        optuna, files = time_optuna(options.data, options.epochs, options.trials, options.cores)
        print(
            f"Optuna and joblib, {options.cores} processes: {optuna:.1f} s wall; {files}; sweep / Optuna = {wall / optuna:.2f}"
        )


if __name__ == "__main__":
    main()
