"""A sweep killed at random moments must leave the tables of an undisturbed one: a seeded campaign of `kill -9`.

Run: `.venv/bin/python benchmarks/kills.py [--kills 20] [--seed 7]`

A small study on digits is swept undisturbed once. Then it is swept under fire: after a random time the driver, a trial
worker or the raylet (the process of a Ray node) gets SIGKILL; when the driver has ended, the sweep is resumed. A study that is
complete is compared and begun anew in another folder, until there were as many kills as asked for; the last one is
completed in peace. Compared are all four tables, bit for bit and as multisets of rows, without the columns that tell time,
memory and process. A driver that has lost its Ray and does not end by itself within `PATIENCE_SECONDS` counts as a
difference, as does a sweep that no longer gets on.

Printed: a line per kill, and the verdict; the exit code is 1 on a difference. The seed decides victims and moments, not what
the machine is doing then.
"""

from __future__ import annotations

import argparse
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

from dirtune.frozen import canonical_json
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table

VICTIMS = ("driver", "worker", "raylet")
# What Ray calls the process of a trial worker
WORKER_TITLE = "ray::ResourceTrainable"
# Seconds from a start, or from the last kill, to the next kill
MOMENTS = (5.0, 40.0)
PATIENCE_SECONDS = 180.0
RESUMES_IN_PEACE = 5
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
    """One kill: how long after the last start or kill, whom, and how far the sweep was."""

    seconds: float
    victim: str
    recorded: int
    """Trials."""
    round: int


@dataclass
class Campaign:
    """Sweeps one study again and again and kills what belongs to it.

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
        """Sweep undisturbed, then under fire until there were that many kills; `differences` says how it ended."""
        self._complete()
        expected = self._tables()
        while len(self.kills) < kills and not self.differences:
            self._round += 1
            self._under_fire(kills, victims)
            self._complete()
            self.differences += differences(expected, self._tables())

    def _under_fire(self, kills: int, victims: tuple[str, ...]) -> None:
        """Sweep this round's folder until it is complete, or there were enough kills."""
        while len(self.kills) < kills and not self.differences:
            driver = self._driver or self._start()
            seconds = self.random.uniform(*MOMENTS)
            victim = self.random.choice(victims)
            try:
                ended = driver.wait(seconds)
            except subprocess.TimeoutExpired:
                self._kill(driver, victim, seconds)
                continue
            self._driver = None
            if ended == 0:
                return

    def _kill(self, driver: subprocess.Popen[bytes], victim: str, seconds: float) -> None:
        found = [pid for pid, name in family(driver.pid) if name == victim]
        # There is no worker yet, or no longer
        if not found:
            return
        recorded = len(list(self._folder.glob("results/trials/*.parquet")))
        os.kill(self.random.choice(found), signal.SIGKILL)
        self.kills.append(Kill(seconds, victim, recorded, self._round))
        if victim != "worker":
            self._wait(driver)

    def _wait(self, driver: subprocess.Popen[bytes]) -> None:
        """A driver that was killed, or has lost its Ray, ends."""
        try:
            driver.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.differences.append(f"the driver did not end after kill {len(self.kills)}")
            driver.kill()
            driver.wait()
        self._driver = None

    def _complete(self) -> None:
        """Finish this round's sweep in peace."""
        for _ in range(RESUMES_IN_PEACE):
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
        return {table: rows_of(Storage.at(self._folder), table) for table in TABLES}

    @property
    def _root(self) -> Path:
        # 0: undisturbed
        return self.scratch / f"round_{self._round}"

    @property
    def _folder(self) -> Path:
        return self._root / str(yaml.safe_load(self.study.read_text())["name"])


def rows_of(folder: Storage, table: str) -> Counter[str]:
    """The rows of a table, as text that is equal only for equal bits, and how often each is there."""
    rows = read_table(folder, table).to_pylist()
    kept = [{key: value for key, value in row.items() if key not in VARYING} for row in rows]
    # Floats are written so that they read back
    return Counter(canonical_json(row) for row in kept)


def differences(expected: dict[str, Counter[str]], found: dict[str, Counter[str]]) -> Iterator[str]:
    """One sentence for every table that is not as expected, with an example of each kind."""
    for table in expected:
        missing, added = expected[table] - found[table], found[table] - expected[table]
        if missing or added:
            examples = "".join(f"\n  {each[:200]}" for each in [*missing][:1] + [*added][:1])
            yield f"{table}: {missing.total()} rows missing, {added.total()} too many{examples}"


def family(driver: int) -> Iterator[tuple[int, str]]:
    """The processes of a sweep and what each is, told from `/proc`: the driver, its raylet, and that one's trial workers."""
    yield driver, "driver"
    children = children_by_parent()
    for child in children.get(driver, []):
        if command_of(child).split(" ")[0].endswith("/raylet"):
            yield child, "raylet"
            for worker in children.get(child, []):
                if command_of(worker).startswith(WORKER_TITLE):
                    yield worker, "worker"


def children_by_parent() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        found.setdefault(parent, []).append(int(entry.parent.name))
    return found


def command_of(pid: int) -> str:
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
