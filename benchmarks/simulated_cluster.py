"""The driver of a sweep against hundreds of pretended workers: trials per second, CPU, memory, and idle workers.

    python benchmarks/simulated_cluster.py [--workers 512] [--trials 4096] [--seconds 30] [--sampler tpe] [--scheduler asha]

Real: the study folder and its lock, the queue, Optuna and its journal, the scheduler, the driver, every record and its progress on
the disk. Pretended: the workers, whose trials last `--seconds` on a simulated clock (with 10 % of jitter, an epoch each third of
it) and whose errors are a formula; and Ray Tune, whose own time per event is not in these figures (`many_trials.py` has it with
real workers). The clock waits for the driver: while it handles an event, for as long as that really takes, other workers that have
ended a trial are idle (`--clock cpu` counts only its CPU time, without its waits for the disk and for the CPUs of a busy machine). What workers do themselves in a real sweep, such as writing the record, is not counted as the driver's.

Printed for each fifth of the trials: the driver's time by activity, its memory, and the trials per second that it could hand out; then
the share of the workers' time that was idle. `--profile` shows the functions that the driver spends its time in.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import heapq
import json
import os
import pstats
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dirtune.io.jsonfile import encode_json_object  # noqa: E402
from dirtune.io.storage import Storage  # noqa: E402
from dirtune.metrics import REGIONS  # noqa: E402
from dirtune.nested import get_leaf  # noqa: E402
from dirtune.results.analysis.status import PROGRESS  # noqa: E402
from dirtune.results.records.store import write_record  # noqa: E402
from dirtune.study.resolve import resolve  # noqa: E402
from dirtune.training.trial import CONFIG, Progress, TrialJob, get_trial_folder, remove_temporary_files  # noqa: E402
from dirtune.tuning.execution import scheduler  # noqa: E402
from dirtune.tuning.execution.driver import Driver  # noqa: E402
from dirtune.tuning.execution.trainable import JOB, RESULT  # noqa: E402
from dirtune.tuning.execution.worker import StepResult  # noqa: E402
from dirtune.tuning.folder import stop_request  # noqa: E402
from dirtune.tuning.folder.reconcile import StudyFolder  # noqa: E402
from dirtune.tuning.folder.records import read_learning_curves  # noqa: E402
from dirtune.tuning.interface import View  # noqa: E402
from dirtune.tuning.search.queue import TrialQueue  # noqa: E402
from tests.tuning.plan.test_checks import MANIFEST  # noqa: E402

EPOCHS, JITTER, PARTS, TEST_ROWS = 3, 0.1, 5, 200
_T = TypeVar("_T")


def make_study(arms: int, trials: int, sampler: str, with_scheduler: bool) -> dict[str, Any]:
    """Return a study of searched arms, which share the trials."""
    return {
        "name": "simulated",
        "question": "How many trials can a driver hand out?",
        "reference": "arm_0",
        "seeds": [0],
        "base": {
            "data": {"name": "toy"},
            "model": {"encoder": {"name": "cnn"}, "label_scale": 1, "label_offset": 0},
            "recipe": {"epochs": EPOCHS},
        },
        "arms": {
            f"arm_{number}": {"terms": {"conr": {"beta": 1.0 + number}}, "model": {"projection_dim": 8}}
            for number in range(arms)
        },
        "search": {
            "trials": trials // arms,
            "sampler": sampler,
            **({"scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 3}} if with_scheduler else {}),
        },
        "space": {
            "terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0},
            "recipe.learning_rate": {"distribution": "loguniform", "low": 1e-5, "high": 1e-1},
        },
    }


def compute_error(job: TrialJob, epoch: int) -> float:
    """Return the error of an epoch, smallest at omega 4 and a learning rate of 0.001."""
    plain = job.config.to_plain()
    omega = float(get_leaf(plain, "terms.conr.omega"))
    rate = np.log10(float(get_leaf(plain, "recipe.learning_rate")))
    return float(abs(omega - 4.0) + abs(rate + 3.0) + 1.0 / epoch)


@dataclass
class Usage:
    """Use of the driver's process, by activity, within a part of the sweep."""

    seconds: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0
    memory: float = 0.0
    """MiB."""


@dataclass
class Cluster:
    """Pretended workers around a real driver, on a simulated clock.

    Args:
        seconds: time of a trial.
    """

    driver: Driver
    rule: scheduler.PerArmScheduler
    workers: int
    seconds: float
    trials: int
    by_cpu: bool
    """Count the driver's CPU time on the clock instead of its real time."""
    usages: list[Usage] = field(default_factory=lambda: [Usage()])
    idle: float = 0.0
    """Seconds of all workers between two trials."""
    all_busy_at: float = 0.0
    ended: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    _random: random.Random = field(default_factory=lambda: random.Random(0))
    _driver_free_at: float = 0.0

    def run(self) -> float:
        """Run the sweep; return the seconds on the simulated clock."""
        # Time, number, worker, what, and what it needs
        events: list[tuple[float, int, int, TrialJob | None, Trial | None, int]] = []
        waiting: list[tuple[float, int]] = []
        for worker in range(self.workers):
            heapq.heappush(events, (0.0, worker, worker, None, None, 0))
        number, started, last = self.workers, 0, 0.0
        while events:
            at, _, worker, job, trial, epoch = heapq.heappop(events)
            has_ended = job is None
            if job is not None and trial is not None:
                has_ended = self._end_epoch(at, job, trial, epoch)
                last = max(last, self._driver_free_at)
            if not has_ended:
                epoch += 1
                heapq.heappush(events, (at + self._draw_seconds(), number, worker, job, trial, epoch))
                number += 1
                continue
            waiting.append((at, worker))
            # One trial whose end frees a place may start, as may those for which a search had none before
            while waiting and (found := self._start(at)) is not None:
                since, free = waiting.pop(0)
                begins = max(at, self._driver_free_at)
                # Before the first trial a worker is not idle, it starts.
                self.idle += begins - since if started >= self.workers else 0.0
                started += 1
                if started == self.workers:
                    self.all_busy_at = begins
                heapq.heappush(events, (begins + self._draw_seconds(), number, free, *found, 1))
                number += 1
        return last

    def _draw_seconds(self) -> float:
        return self.seconds / EPOCHS * self._random.uniform(1 - JITTER, 1 + JITTER)

    def _start(self, at: float) -> tuple[TrialJob, Trial] | None:
        self._measure("check_stop", at, self.driver.check_stop)
        job = self._measure("start_trial", at, self.driver.start_trial)
        if job is None:
            return None
        trial = Trial("pretended", config={JOB: job}, stub=True)
        self._measure("scheduler", at, lambda: self.rule.on_trial_add(None, trial))
        self._measure("on_trial_started", at, lambda: self.driver.on_trial_started(job))
        get_trial_folder(self.driver.storage, job.trial_id).write(CONFIG, encode_json_object(job.config.to_plain()))
        return job, trial

    def _end_epoch(self, at: float, job: TrialJob, trial: Trial, epoch: int) -> bool:
        """Report the end of an epoch; return True if the trial ends with it."""
        errors = [compute_error(job, each) for each in range(1, epoch + 1)]
        is_last = epoch == EPOCHS
        progress = make_progress(job, errors)
        folder = get_trial_folder(self.driver.storage, job.trial_id)
        folder.write(PROGRESS, encode_json_object(vars(progress)))
        if is_last:
            write_record(self.driver.storage, make_record(progress, errors))
            remove_temporary_files(self.driver.storage, job.trial_id)
        step = StepResult(
            trial_id=job.trial_id,
            epoch=epoch,
            objective=errors[-1],
            best_objective=min(errors),
            status="complete" if is_last else None,
        )
        result = {RESULT: step}
        self._measure("on_epoch_ended", at, lambda: self.driver.on_epoch_ended(job, step))
        if is_last:
            self._measure("scheduler", at, lambda: self.rule.on_trial_complete(None, trial, result))
        else:
            decision = self._measure("scheduler", at, lambda: self.rule.on_trial_result(None, trial, result))
            if decision != TrialScheduler.STOP:
                return False
        self.statuses["complete" if is_last else "pruned"] += 1
        self._measure("on_trial_ended", at, lambda: self.driver.on_trial_ended(job, step))
        self.ended += 1
        if self.ended % max(self.trials // PARTS, 1) == 0 and len(self.usages) < PARTS:
            self.usages[-1].memory = read_memory()
            self.usages.append(Usage())
        self.usages[-1].memory = read_memory()
        return True

    def _measure(self, name: str, at: float, act: Callable[[], _T]) -> _T:
        """Let the driver act at a time, or when it has done what came before; its real time passes on the simulated clock."""
        started, cpu = time.perf_counter(), time.thread_time()
        found = act()
        seconds, usage = time.perf_counter() - started, self.usages[-1]
        usage.seconds[name] += seconds
        usage.counts[name] += 1
        on_cpu = time.thread_time() - cpu
        usage.cpu += on_cpu
        self._driver_free_at = max(at, self._driver_free_at) + (on_cpu if self.by_cpu else seconds)
        if self.driver.storage_failure is not None:
            raise self.driver.storage_failure
        return found


def make_progress(job: TrialJob, errors: list[float]) -> Progress:
    """Return what a worker writes after an epoch."""
    trial = {
        **job.to_row(),
        "epochs_run": len(errors),
        "best_epoch": int(np.argmin(errors)) + 1,
        "objective": min(errors),
        "seconds_train": 25.0,
        "seconds_eval": 3.0,
        "seconds_data": 1.0,
        "seconds_overhead": 1.0,
        "worker": "pretended",
        "data": "toy",
        "data_fingerprint": MANIFEST.fingerprint,
        "data_split": job.config.data.split,
        "started_at": datetime.now(UTC).isoformat(),
    }
    epochs = [{"train/loss": each, "val/all/mae": each, "learning_rate": 0.1} for each in errors]
    return Progress(trial=trial, config=job.config.to_plain(), epochs=epochs)


def make_record(progress: Progress, errors: list[float]) -> Any:
    """Return the record of a complete trial, with metrics of every region and the predictions of the test samples."""
    record = progress.make_record("complete")
    metrics = [
        {
            "split": split,
            "selection": selection,
            "region": region,
            "metric": "mae",
            "value": min(errors),
            "n": TEST_ROWS,
        }
        for split in ("val", "test")
        for selection in ("best_val", "last")
        for region in REGIONS
    ]
    return type(record)(trial=record.trial, config=record.config, epochs=record.epochs, metrics=metrics)


def read_memory() -> float:
    """Return the resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def open_driver(root: Path, raw: dict[str, Any], workers: int) -> Iterator[Driver]:
    """Yield the driver of a new study, with the folder's lock, as a sweep makes it."""
    study = resolve(raw, where="simulated")
    folder = StudyFolder(Storage.open(root / "simulated"), study, MANIFEST, json.dumps(raw))
    with (
        stop_request.watch_for_stop(folder.storage) as stop,
        folder.lock() as lock,
        folder.open_journal() as journal,
    ):
        recorded = folder.reconcile(journal)
        queue = TrialQueue(folder, journal, recorded, code_version="simulated")
        yield Driver(queue, folder, View(), stop, workers, lock.check)


def show(cluster: Cluster, seconds: float) -> None:
    names = list(dict.fromkeys(name for usage in cluster.usages for name in usage.seconds))
    print(f"{'trials':>13} {'ms a trial':>10} {'CPU ms':>7} {'trials/s':>8} {'MiB':>6}   ms a call: {', '.join(names)}")
    size = cluster.trials // PARTS
    for part, usage in enumerate(cluster.usages):
        trials = usage.counts["on_trial_ended"]
        total = real = usage.seconds.total()
        total = usage.cpu if cluster.by_cpu else total
        calls = ", ".join(f"{1000 * usage.seconds[each] / max(usage.counts[each], 1):.1f}" for each in names)
        print(
            f"{part * size + 1:>6}-{part * size + trials:<6} {1000 * real / max(trials, 1):>10.1f} "
            f"{1000 * usage.cpu / max(trials, 1):>7.1f} {trials / total:>8.1f} {usage.memory:>6.0f}   {calls}"
        )
    busy = sum(usage.cpu if cluster.by_cpu else usage.seconds.total() for usage in cluster.usages)
    idle = cluster.idle / (cluster.workers * (seconds - cluster.all_busy_at))
    wanted = cluster.workers / cluster.seconds
    print(
        f"{cluster.ended} trials: {dict(cluster.statuses)}; the workers could end {wanted:.1f} whole trials per second"
    )
    print(
        f"simulated {seconds:.0f} s, of which {cluster.all_busy_at:.1f} s until every worker had a trial; driver busy {busy / seconds:.0%}"
    )
    print(f"workers idle between two trials: {idle:.1%} of their time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=512)
    parser.add_argument("--trials", type=int, default=4096)
    parser.add_argument("--arms", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a whole trial")
    parser.add_argument("--sampler", default="tpe", choices=["tpe", "random", "qmc"])
    parser.add_argument("--scheduler", default="asha", choices=["asha", "none"])
    parser.add_argument("--scratch", default=None, help="folder for the study; default: a temporary one")
    parser.add_argument("--clock", default="real", choices=["real", "cpu"], help="cpu: on a machine with other work")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    raw = make_study(options.arms, options.trials, options.sampler, options.scheduler == "asha")
    profiler = cProfile.Profile() if options.profile else None
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory(prefix="dirtune-simulated-", dir=options.scratch) as scratch:
        with open_driver(Path(scratch), raw, options.workers) as driver:
            rule = scheduler.build_scheduler(
                driver.folder.study, read_learning_curves(driver.storage, driver.folder.study)
            )
            cluster = Cluster(driver, rule, options.workers, options.seconds, options.trials, options.clock == "cpu")
            if profiler is not None:
                profiler.enable()
            seconds = cluster.run()
            if profiler is not None:
                profiler.disable()
        show(cluster, seconds)
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
        print(f"{size / 2**20:.0f} MiB on disk")
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
