"""Many tiny trials in one sweep: overhead per trial, and growth of memory and open files.

Run: `.venv/bin/python benchmarks/many_trials.py [--trials 200] [--data data]`

One arm on 5 % of the digits for one epoch, so that the overhead dominates. Once a second, the memory of the driver and of
the trial workers and the driver's open files are read from /proc. Printed: a line for every fifth of the sweep; the last
two must be similar.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml
from kills import WORKER_TITLES

import dirtune
from dirtune.study.files import find_study

PARTS = 5


@dataclass
class Memory:
    """Samples of resident memory, once a second."""

    times: list[float] = field(default_factory=list)
    driver: list[float] = field(default_factory=list)
    """MB."""
    workers: list[float] = field(default_factory=list)
    """MB, of the largest worker."""
    files: list[int] = field(default_factory=list)

    def watch(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            self.times.append(time.time())
            self.driver.append(read_resident_mb(Path("/proc/self")))
            self.files.append(len(list(Path("/proc/self/fd").iterdir())))
            self.workers.append(max(map(read_resident_mb, find_workers()), default=0.0))


def find_workers() -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cmdline").read_text().startswith(WORKER_TITLES):
                found.append(process)
        # The process has ended since it was listed.
        except OSError:
            continue
    return found


def read_resident_mb(process: Path) -> float:
    try:
        pages = int(process.joinpath("statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * 4096 / 2**20


def write_study_file(folder: Path, trials: int) -> Path:
    """Write a study of the quickstart's vanilla arm, very short, with many seeds."""
    raw = find_study("quickstart").read_plain()
    raw |= {"name": "many", "arms": {"vanilla": {}}, "reference": "vanilla", "seeds": list(range(trials))}
    del raw["representations"]
    raw["base"]["data"]["fraction"] = 0.05
    raw["base"]["recipe"]["epochs"] = 1
    path = folder / "many.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def select_between(times: Sequence[float], values: Sequence[float], start: float, stop: float) -> list[float]:
    return [value for at, value in zip(times, values, strict=True) if start <= at <= stop]


def show(rows: Sequence[dict[str, Any]], memory: Memory) -> None:
    print("trials      s per trial   overhead, s   driver, MB   largest worker, MB   open files")
    size = len(rows) // PARTS
    for part in range(PARTS):
        of_part = rows[part * size : (part + 1) * size]
        start, stop = (of_part[at]["finished_at"].timestamp() for at in (0, -1))
        driver, largest, files = (
            max(select_between(memory.times, values, start, stop), default=0.0)
            for values in (memory.driver, memory.workers, memory.files)
        )
        print(
            f"{part * size + 1:4}-{(part + 1) * size:<4} {(stop - start) / (size - 1):12.3f} "
            f"{mean(row['seconds_overhead'] for row in of_part):13.3f} {driver:12.0f} {largest:20.0f} {files:12.0f}"
        )
    print(f"own time of a trial, median: {median(row['spent'] for row in rows):.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--data", default="data")
    options = parser.parse_args()
    memory, stop = Memory(), threading.Event()
    with tempfile.TemporaryDirectory() as scratch:
        path = write_study_file(Path(scratch), options.trials)
        watcher = threading.Thread(target=memory.watch, args=(stop,), daemon=True)
        watcher.start()
        started = time.perf_counter()
        summary = dirtune.sweep(str(path), data=options.data, results=scratch)
        wall = time.perf_counter() - started
        stop.set()
        watcher.join()
        sql = """select seconds_overhead, seconds_train + seconds_eval + seconds_data as spent, finished_at
                 from trials order by finished_at"""
        rows = dirtune.query(sql, results=scratch).to_dict("records")
        size = sum(file.stat().st_size for file in Path(scratch).rglob("*") if file.is_file())
    assert summary.run == {"complete": options.trials}, summary
    print(f"{options.trials} trials: {wall:.1f} s wall, {size / 2**20:.1f} MB on disk")
    show(rows, memory)


if __name__ == "__main__":
    main()
