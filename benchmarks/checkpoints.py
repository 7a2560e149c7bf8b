"""Seconds that training waits for a checkpoint of a large model: written by the training thread, and by a thread of its own.

    python benchmarks/checkpoints.py [--encoder resnet50] [--checkpoints 5] [--results FOLDER]

The state is that of a run after a step: the model, Adam's averages and the weights of the best epoch. In each round the best epoch
is first another one and then the same. "in training" is one file that the training thread writes, as checkpoints were before they
had a thread. Waited is the time until the next step can begin; the process time includes the thread's. The rate of a plain write
and flush of the same number of bytes shows what the disk allows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import training as bare  # noqa: E402
from dirtune.io.storage import Storage  # noqa: E402
from dirtune.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint  # noqa: E402
from dirtune.training.loop import run_steps  # noqa: E402
from dirtune.training.state import Training, begin_training  # noqa: E402

MIB = 2**20


def begin_run(encoder: str) -> Training:
    """Return a run after one step, so that the optimizer has its averages."""
    data = bare.make_data(4, 64, torch.device("cpu"))
    training = begin_training(bare.make_config(encoder, 4), data)
    next(run_steps(training))
    return training


def keep_best(training: Training, epoch: int) -> None:
    """Make the current weights those of the best epoch, as the loop does."""
    training.best_epoch = epoch
    training.best_weights = {name: value.clone() for name, value in training.model.state_dict().items()}


def measure(act: Callable[[], None], finish: Callable[[], None]) -> tuple[float, float, float]:
    """Return the seconds until `act` returns, those until `finish` returns, and the process time of both."""
    started, cpu = time.perf_counter(), time.process_time()
    act()
    waited = time.perf_counter() - started
    finish()
    return waited, time.perf_counter() - started, time.process_time() - cpu


def count_bytes(folder: Storage) -> int:
    return sum(path.stat().st_size for path in Path(folder.path()).rglob("*.pt"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--checkpoints", type=int, default=5, help="rounds")
    parser.add_argument("--results", default=tempfile.gettempdir(), help="folder to which checkpoints are written")
    options = parser.parse_args()
    training = begin_run(options.encoder)
    parameters = sum(each.numel() for each in training.model.parameters())
    print(
        f"{options.encoder}: {parameters / 1e6:.1f} M parameters, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="dirtune-checkpoints-", dir=options.results) as scratch:
        whole, apart = (Storage.open(f"{scratch}/{name}") for name in ("whole", "apart"))
        checkpoints, plain = Checkpoints(apart, torch.device("cpu")), Path(scratch) / "plain"
        for number in range(1, options.checkpoints + 1):
            for kind in ("another best epoch", "the same best epoch"):
                if kind == "another best epoch":
                    keep_best(training, number)
                state = {"training": training.get_state()}
                row = measure(lambda state=state: save_checkpoint(whole, state), lambda: None)
                found.setdefault(f"in training, {kind}", []).append(row)
                row = measure(lambda state=state: checkpoints.begin(state), checkpoints.wait)
                found.setdefault(f"in a thread, {kind}", []).append(row)
            content = os.urandom(count_bytes(whole))
            row = measure(lambda content=content: Storage.open(scratch).write(plain.name, content), lambda: None)
            found.setdefault("a plain write", []).append(row)
        loaded = load_checkpoint(apart)
        assert loaded is not None
        for part in ("model", "optimizer", "best_weights"):
            torch.testing.assert_close(loaded["training"][part], training.get_state()[part], rtol=0, atol=0)
        sizes = {path.name.split("-")[0]: path.stat().st_size / MIB for path in Path(apart.path()).rglob("*.pt")}
        print(f"{count_bytes(whole) / MIB:.0f} MiB in one file, {sizes['state.pt']:.0f} MiB without the best weights")
    print(f"{'':<36} {'waited':>8} {'until written':>14} {'process time':>13}   seconds, medians (smallest)")
    for name, rows in found.items():
        values = [f"{median(column):.2f} ({min(column):.2f})" for column in zip(*rows, strict=True)]
        print(f"{name:<36} {values[0]:>12} {values[1]:>14} {values[2]:>14}")


if __name__ == "__main__":
    main()
