"""A sweep killed at random moments must leave the tables of an undisturbed one: a seeded campaign of `kill -9`.

Run: `.venv/bin/python benchmarks/kills.py [--kills 20] [--seed 7]`

A small study on digits is swept once without kills. Then it is swept with kills: after a random time the driver, a trial
worker, the raylet (the process of a Ray node) or the server that forks workers receives SIGKILL, each as often as the others;
when the driver has ended, the sweep is resumed. A complete study is compared and started again in another folder, until the
given number of kills is reached; the last one is completed without kills. All four tables are compared bit for bit as multisets
of rows, without the columns of time, memory and process. A driver that has lost its Ray and does not end by itself within
`EXIT_TIMEOUT` seconds counts as a difference, as does a sweep that makes no progress.

Printed: a line per kill, and the verdict; the exit code is 1 on a difference. The seed determines victims and times, but not
the state of the machine then.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dirtune.frozen import to_canonical_json
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table
from dirtune.tuning.execution.trainable import TrialWorker

VICTIMS = ("driver", "worker", "raylet", "server")
WORKER_TITLES = (f"ray::{TrialWorker.__name__}", "ray::ResourceTrainable.")
"""Starts of the title of a process that runs trials: between two calls, and in one, of a class that Tune derives."""
KILL_SECONDS = (5.0, 40.0)
"""Range of the time from a start, or from the last kill, to the next kill."""
EXIT_TIMEOUT = 180.0
"""Seconds."""
MAX_RESUMES = 5
VARYING = {
    "seconds_train",
    "seconds_eval",
    "seconds_data",
    "seconds_overhead",
    "samples_per_second",
    "peak_memory_bytes",
    "worker",
    "started_at",
    "finished_at",
}
STUDY: dict[str, Any] = {
    "name": "killed",
    "question": "Do the tables of a sweep depend on what has been killed?",
    "reference": "vanilla",
    "seeds": [0, 1, 2],
    "base": {
        "data": {"name": "digits"},
        "model": {"encoder": {"name": "cnn", "channels": 4}, "label_scale": 60},
        "recipe": {"epochs": 20, "batch_size": 512, "views": {"count": 2, "augmentation": "shift"}},
    },
    "arms": {"vanilla": {}, "conr": {"model": {"projection_dim": 8}, "terms": {"conr": {"beta": 0.1, "omega": 3.0}}}},
    "resources": {"checkpoint_seconds": 0.5},
}


@dataclass(frozen=True)
class Kill:
    """One kill: seconds since the last start or kill, victim, and progress of the sweep."""

    seconds: float
    victim: str
    recorded: int
    """Number of trials."""
    round: int


@dataclass
class Campaign:
    """Repeated sweeps of one study, whose processes are killed.

    Args:
        study: the study's file; its trials must be reproducible.
        data: root with the ingested data.
        scratch: an empty folder for the results.
    """

    study: Path
    data: Path
    scratch: Path
    random: random.Random
    kills: list[Kill] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    _round: int = 0
    _driver: subprocess.Popen[bytes] | None = None

    def run(self, kills: int, *, victims: tuple[str, ...] = VICTIMS) -> None:
        """Sweep without kills, then with that many kills; `differences` has the result."""
        self._complete()
        expected = self._tables()
        while len(self.kills) < kills and not self.differences:
            self._round += 1
            self._sweep_with_kills(kills, victims)
            self._complete()
            self.differences += find_differences(expected, self._tables())

    def _sweep_with_kills(self, kills: int, victims: tuple[str, ...]) -> None:
        """Sweep this round's folder until it is complete or the number of kills is reached."""
        while len(self.kills) < kills and not self.differences:
            driver = self._driver or self._start()
            seconds = self.random.uniform(*KILL_SECONDS)
            # The one that was killed least often
            counts = Counter(kill.victim for kill in self.kills)
            victim = min(victims, key=lambda name: (counts[name], self.random.random()))
            try:
                ended = driver.wait(seconds)
            except subprocess.TimeoutExpired:
                self._kill(driver, victim, seconds)
                continue
            self._driver = None
            if ended == 0:
                return

    def _kill(self, driver: subprocess.Popen[bytes], victim: str, seconds: float) -> None:
        while not (found := [pid for pid, name in list_processes(driver.pid) if name == victim]):
            # No worker has started yet, or all have ended.
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(0.2)
                return
        recorded = len(list(self._folder.glob("results/trials/*.parquet")))
        os.kill(self.random.choice(found), signal.SIGKILL)
        self.kills.append(Kill(seconds, victim, recorded, self._round))
        if victim in ("driver", "raylet"):
            self._wait(driver)

    def _wait(self, driver: subprocess.Popen[bytes]) -> None:
        """Wait for a driver that was killed or has lost its Ray; record a difference if it does not end."""
        try:
            driver.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.differences.append(f"the driver did not end after kill {len(self.kills)}")
            driver.kill()
            driver.wait()
        self._driver = None

    def _complete(self) -> None:
        """Complete this round's sweep without kills."""
        for _ in range(MAX_RESUMES):
            driver = self._driver or self._start()
            self._driver = None
            if driver.wait() == 0:
                return
        self.differences.append(f"the sweep of round {self._round} is not completed by resuming")

    def _start(self) -> subprocess.Popen[bytes]:
        command = ["sweep", str(self.study), "--data", str(self.data), "--results", str(self._root)]
        log = (self.scratch / f"round_{self._round}.log").open("ab")
        with log:
            self._driver = subprocess.Popen([sys.executable, "-m", "dirtune.cli", *command], stdout=log, stderr=log)
        return self._driver

    def _tables(self) -> dict[str, Counter[str]]:
        return {table: count_rows(Storage.open(self._folder), table) for table in TABLES}

    @property
    def _root(self) -> Path:
        # Round 0 has no kills.
        return self.scratch / f"round_{self._round}"

    @property
    def _folder(self) -> Path:
        return self._root / str(yaml.safe_load(self.study.read_text())["name"])


def count_rows(folder: Storage, table: str) -> Counter[str]:
    """Return the rows of a table as canonical JSON, which is equal only for equal bits, with their counts."""
    rows = read_table(folder, table).to_pylist()
    kept = [{key: value for key, value in row.items() if key not in VARYING} for row in rows]
    # Floats are written so that they read back
    return Counter(to_canonical_json(row) for row in kept)


def find_differences(expected: dict[str, Counter[str]], found: dict[str, Counter[str]]) -> Iterator[str]:
    """Return one sentence for every table that is not as expected, with an example of each kind."""
    for table in expected:
        missing, added = expected[table] - found[table], found[table] - expected[table]
        if missing or added:
            examples = "".join(f"\n  {each[:200]}" for each in [*missing][:1] + [*added][:1])
            yield f"{table}: {missing.total()} rows missing, {added.total()} too many{examples}"


def list_processes(driver: int) -> Iterator[tuple[int, str]]:
    """Return the processes of a sweep with their roles, from `/proc`.

    They are the driver, its raylet, the server that forks workers (`dirtune.data.fork_server`), and the workers.
    """
    yield driver, "driver"
    children = list_children()
    for child in children.get(driver, []):
        if read_command(child).split(" ")[0].endswith("/raylet"):
            yield child, "raylet"
        elif read_command(child) == read_command(driver):
            yield child, "server"
        for worker in children.get(child, []):
            if read_command(worker).startswith(WORKER_TITLES):
                yield worker, "worker"


def list_children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        # The process has ended since it was listed.
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.setdefault(parent, []).append(int(entry.parent.name))
    return found


def read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def show(campaign: Campaign, seconds: float) -> None:
    print(f"{'kill':>4} {'round':>5} {'after s':>8}  {'victim':<8} {'trials recorded':>15}")
    for number, kill in enumerate(campaign.kills, start=1):
        print(f"{number:>4} {kill.round:>5} {kill.seconds:>8.1f}  {kill.victim:<8} {kill.recorded:>15}")
    by_victim = Counter(kill.victim for kill in campaign.kills)
    counts = ", ".join(f"{by_victim[victim]} {victim}" for victim in VICTIMS)
    verdict = "DIFFERENT" if campaign.differences else "equal to the undisturbed tables"
    print(f"{len(campaign.kills)} kills ({counts}) in {seconds:.0f} s: {verdict}")
    for difference in campaign.differences:
        print(difference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dirtune-kills-") as name:
        scratch, started = Path(name), time.monotonic()
        study = scratch / "killed.yaml"
        study.write_text(yaml.safe_dump(STUDY))
        ingest = ["ingest", "digits", "--data", str(scratch / "data")]
        subprocess.run([sys.executable, "-m", "dirtune.cli", *ingest], check=True)
        campaign = Campaign(study, scratch / "data", scratch, random.Random(options.seed))
        campaign.run(options.kills)
        show(campaign, time.monotonic() - started)
        sys.exit(1 if campaign.differences else 0)


if __name__ == "__main__":
    main()
