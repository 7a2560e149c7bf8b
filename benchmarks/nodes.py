"""A sweep on a Ray cluster that loses and gains a node must leave the tables of an undisturbed sweep on one machine.

Run: `.venv/bin/python benchmarks/nodes.py [--trials 30] [--nodes 2] [--seed 7] [--data DATA] [--results RESULTS]`

A small study on digits is swept once without disturbance, in a Ray session of its own. Then a cluster is started on this
machine, of separate `ray start` processes with a temporary folder each: a head without CPUs, where the driver runs, and two
nodes with one CPU. When some trials are recorded, one of the nodes receives SIGKILL during a trial: its raylet (the process of
a Ray node) and all its children. Later a node with two CPUs joins, so that more trials run concurrently than at the beginning.
The driver is not killed: its sweep must end with exit code 0 and without resuming, the new node must have recorded trials
(they take long enough: its first worker needs half a minute on two cores), and all tables must equal those of the undisturbed
sweep, compared as in `kills.py`. With `--nodes 1` the only node is lost, with everything in its memory.

Printed: the events with their times, the trials that every node recorded, and the verdict; the exit code is 1 on a
difference. The seed determines which node is killed and after how many trials, but not the state of the machine then. The
nodes share the cores of this machine, so that the times are not those of a cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kills import count_rows, find_differences
from raylets import Cluster

from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table

NAMES = ("a", "b")
PROGRESS_TIMEOUT = 600.0
"""Seconds for a sweep to record another trial."""
POLL_SECONDS = 0.1
CONTRASTIVE: dict[str, Any] = {
    "conr": {"conr": {"beta": 0.1, "omega": 3.0}},
    "accon": {"accon": {"gamma": 0.1}},
    "ranksim": {"ranksim": {}},
}
STUDY: dict[str, Any] = {
    "name": "nodes",
    "question": "Do the tables of a sweep depend on the nodes that it has lost?",
    "reference": "vanilla",
    "base": {
        "data": {"name": "digits"},
        "model": {"encoder": {"name": "cnn", "channels": 4}, "label_scale": 60},
        "recipe": {"epochs": 10, "batch_size": 512, "views": {"count": 2, "augmentation": "shift"}},
    },
    "resources": {"checkpoint_seconds": 0},
}
ARMS: dict[str, Any] = {
    "vanilla": {},
    "projection": {"model": {"projection_dim": 8}},
    "mse": {"loss": {"name": "mse"}},
    **{name: {"model": {"projection_dim": 8}, "terms": terms} for name, terms in CONTRASTIVE.items()},
}


@dataclass
class Scene:
    """The sweep of a study on a cluster that changes.

    Args:
        folder: of the study.
        kill_after: recorded trials at which a node is killed.
        join_after: recorded trials at which another node joins.
    """

    cluster: Cluster
    driver: subprocess.Popen[bytes]
    folder: Path
    victim: str
    kill_after: int
    join_after: int
    events: list[tuple[float, str, int]] = field(default_factory=list)
    node_of: dict[int, str] = field(default_factory=dict)
    """Names of nodes by process id of the trial worker."""
    interrupted: list[str] = field(default_factory=list)
    """Ids of trials."""
    _began: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Watch the sweep until it ends, kill a node and add one."""
        self.log_event(f"the sweep begins; nodes of one CPU: {', '.join([*self.cluster.nodes][1:])}")
        self._watch_until(self._is_time_to_kill)
        self._kill()
        self._watch_until(lambda: self.count_recorded() >= self.join_after)
        self.cluster.add("c", cpus=2)
        self.log_event("node c with two CPUs has joined")
        self._watch_until(lambda: "c" in self.node_of.values())
        if self.driver.poll() is None:
            self.log_event("the first trial worker has started on node c")
        self._watch_until(lambda: self.driver.poll() is not None)
        self.log_event(f"the sweep has ended with exit code {self.driver.returncode}")

    def log_event(self, what: str) -> None:
        self.events.append((time.monotonic() - self._began, what, self.count_recorded()))

    def count_recorded(self) -> int:
        return len(list(self.folder.glob("results/trials/*.parquet")))

    def _watch_until(self, is_time: Callable[[], bool]) -> None:
        before, since = self.count_recorded(), time.monotonic()
        while not is_time() and self.driver.poll() is None:
            if self.count_recorded() > before:
                before, since = self.count_recorded(), time.monotonic()
            if time.monotonic() - since > PROGRESS_TIMEOUT:
                raise TimeoutError(f"no trial was recorded for {PROGRESS_TIMEOUT:.0f} s")
            for name, node in self.cluster.nodes.items():
                self.node_of |= dict.fromkeys(node.list_trial_workers(), name)
            time.sleep(POLL_SECONDS)

    def _is_time_to_kill(self) -> bool:
        return self.count_recorded() >= self.kill_after and bool(self._list_running(self.victim))

    def _kill(self) -> None:
        self.interrupted = self._list_running(self.victim)
        self.cluster.kill(self.victim)
        self.log_event(f"node {self.victim} is killed in the middle of {len(self.interrupted)} trial")

    def _list_running(self, name: str) -> list[str]:
        """Return the trials of a node that have finished an epoch but not all."""
        found = []
        for file in self.folder.glob("trials/*/progress.json"):
            # A trial that has ended since has no such file.
            with contextlib.suppress(FileNotFoundError):
                pid = parse_pid(json.loads(file.read_text())["trial"]["worker"])
                found += [file.parent.name] if self.node_of.get(pid) == name else []
        return found


def run_campaign(study: Path, data: Path, results: Path, scratch: Path, *, nodes: int, chance: random.Random) -> bool:
    """Sweep a study undisturbed and on a cluster that changes, print the events, and return True without a difference."""
    quiet, disturbed = results / "undisturbed", results / "disturbed"
    began = time.monotonic()
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    start_sweep(study, data, quiet, alone).wait()
    seconds = time.monotonic() - began
    expected = read_tables(quiet / STUDY["name"])
    trials = expected["trials"].total()
    cluster = Cluster(scratch)
    try:
        cluster.start()
        for name in NAMES[:nodes]:
            cluster.add(name, cpus=1)
        driver = start_sweep(study, data, disturbed, cluster.environment)
        kill_after = chance.randint(trials // 8, trials // 5)
        scene = Scene(
            cluster,
            driver,
            disturbed / STUDY["name"],
            chance.choice(NAMES[:nodes]),
            kill_after,
            join_after=kill_after + (max(1, trials // 15) if nodes > 1 else 0),
        )
        try:
            scene.run()
        finally:
            driver.kill()
            driver.wait()
    finally:
        cluster.close()
    print(f"undisturbed: {trials} trials in {seconds:.0f} s")
    return show(scene, list(find_faults(scene, expected)))


def find_faults(scene: Scene, expected: dict[str, Counter[str]]) -> Iterator[str]:
    """Return one sentence for every fault."""
    if scene.driver.returncode:
        yield f"the sweep ended with exit code {scene.driver.returncode}"
    if not scene.interrupted:
        yield "no node was killed in the middle of a trial"
    if not count_recorded_by_node(scene)["c"]:
        yield "the node that joined has recorded no trial"
    yield from find_differences(expected, read_tables(scene.folder))


def show(scene: Scene, wrong: list[str]) -> bool:
    print(f"{'seconds':>8} {'recorded':>9}  event")
    for seconds, what, recorded in scene.events:
        print(f"{seconds:>8.1f} {recorded:>9}  {what}")
    by_node = count_recorded_by_node(scene)
    print("trials recorded by", ", ".join(f"{name}: {by_node[name]}" for name in sorted(by_node)))
    print("DIFFERENT" if wrong else "all tables are equal to the undisturbed ones, bit for bit")
    for sentence in wrong:
        print(sentence)
    return not wrong


def count_recorded_by_node(scene: Scene) -> Counter[str]:
    workers = read_table(Storage.open(scene.folder), "trials", columns=["worker"])["worker"]
    return Counter(scene.node_of.get(parse_pid(worker), "?") for worker in workers.to_pylist())


def read_tables(folder: Path) -> dict[str, Counter[str]]:
    return {table: count_rows(Storage.open(folder), table) for table in TABLES}


def start_sweep(study: Path, data: Path, results: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a sweep, with a log next to its results."""
    command = ["sweep", str(study), "--data", str(data), "--results", str(results)]
    with results.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dirtune.cli", *command], env=environment, stdout=log, stderr=log
        )


def parse_pid(worker: str) -> int:
    return int(worker.rsplit("/", 1)[1])


def write_study(file: Path, trials: int) -> None:
    """Write a study of about that many trials; 30 trials are six arms with five seeds."""
    names = list(ARMS)[: max(2, min(len(ARMS), trials // 2))]
    seeds = list(range(-(-trials // len(names))))
    study = {**STUDY, "seeds": seeds, "arms": {name: ARMS[name] for name in names}}
    file.write_text(yaml.safe_dump(study))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--nodes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data", type=Path, help="root with digits; default: ingested again")
    parser.add_argument("--results", type=Path, help="an empty folder for the results; default: a temporary one")
    options = parser.parse_args()
    # A short path, because it contains sockets.
    scratch = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))
    try:
        write_study(scratch / "nodes.yaml", options.trials)
        data = options.data or scratch / "data"
        if options.data is None:
            ingest = ["ingest", "digits", "--data", str(data)]
            subprocess.run([sys.executable, "-m", "dirtune.cli", *ingest], check=True)
        results = options.results or scratch / "results"
        results.mkdir(parents=True, exist_ok=True)
        is_right = run_campaign(
            scratch / "nodes.yaml", data, results, scratch, nodes=options.nodes, chance=random.Random(options.seed)
        )
        sys.exit(0 if is_right else 1)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
