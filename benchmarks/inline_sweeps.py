"""Sweeps in one process: Ray, Tune and the reading of data are replaced, everything else is real.

The replaced parts start processes, which takes seconds and hides where a fault came from. Folder, lock, queue, Optuna,
driver, workers, trials, schedulers, records and the command line are those of a real sweep. Trials run one after another, so
that two sweeps of a study have equal tables. The data set is written here: 84 samples, on which an epoch takes a
millisecond.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import torch
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from dirtune.cli import main
from dirtune.data.blocks import Blocks
from dirtune.data.columns import to_arrow
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.verify import hash_digests, read_shards
from dirtune.io.jsonfile import encode_json_object
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution import failures, run, scheduler, worker
from dirtune.tuning.execution.driver import Driver
from dirtune.tuning.execution.trainable import JOB, RESULT
from dirtune.tuning.execution.tune_run import WORKER_RESTARTS
from dirtune.tuning.folder.records import read_learning_curves
from dirtune.tuning.plan.capacity import Node

DATASET = "small"
_T = TypeVar("_T")


def write_dataset(root: Path) -> None:
    """Write a data set of one input vector, with groups, as an ingest writes it."""
    inputs = {"vector": InputSpec(kind="vector", shape=(3,))}
    label = LabelSpec(name="length", unit="m", low=0, high=10, bin_width=1, num_bins=10)
    home, rows, drawn = Storage.open(root / DATASET), {}, np.random.default_rng(0)
    for split, count in {"train": 44, "val": 20, "test": 20}.items():
        labels = 10 * drawn.random(count) ** 2
        columns = {
            "sample_id": np.array([f"{split}-{row}" for row in range(count)], dtype=object),
            "group": np.array([f"{split}-{row // 2}" for row in range(count)], dtype=object),
            "label": labels,
            "vector": (labels[:, None] / 10 + drawn.normal(0, 0.1, (count, 3))).astype(np.float32),
        }
        file = f"version-1/{split}/part_0.parquet"
        Path(home.path(file)).parent.mkdir(parents=True)
        table = to_arrow(columns, inputs, has_groups=True)
        pq.write_table(table, home.path(file), compression="zstd", write_page_checksum=True)
        rows[split] = read_shards(home, split, [file], inputs)
    manifest = Manifest(
        name=DATASET,
        inputs=inputs,
        label=label,
        shot_rules={"small": ShotRule(many_above=5, few_below=3)},
        default_shot_rule="small",
        splits={split: found.make_split_info(label) for split, found in rows.items()},
        content_hash=hash_digests(found.content_digests for found in rows.values()),
        split_fingerprint=hash_digests(found.split_digests for found in rows.values()),
        group="person",
    )
    home.write(MANIFEST, encode_json_object(manifest.model_dump(mode="json")))


def run_inline(driver: Driver, settings: worker.WorkerSettings, blocks: Blocks, *_: object) -> None:
    """Run a driver's queue as `tune_run.run_with_tune` does, one trial after another on one resident worker."""
    study = driver.folder.study
    rule = scheduler.build_scheduler(study, read_learning_curves(driver.storage, study))
    small = MemoryBudget(device_bytes=2**24, host_bytes=2**24)
    workers = _Workers(replace(settings, budget=small), blocks)
    while not driver.is_stopped and (job := driver.start_trial()) is not None:
        _run_trial(driver, rule, job, workers)


@dataclass
class _Workers:
    """A resident worker, and the next one after an error."""

    settings: worker.WorkerSettings
    blocks: Blocks
    _worker: worker.ResidentWorker | None = None

    def get(self) -> worker.ResidentWorker:
        if self._worker is None:
            self._worker = worker.ResidentWorker(self.settings, self.blocks, torch.device("cpu"))
        return self._worker

    def discard(self) -> None:
        self._worker = None


def _run_trial(driver: Driver, rule: scheduler.PerArmScheduler, job: TrialJob, workers: _Workers) -> None:
    trial = Trial("inline", config={JOB: job}, stub=True)
    rule.on_trial_add(None, trial)
    for attempt in range(WORKER_RESTARTS + 1):
        driver.on_trial_started(job)
        try:
            _run_epochs(driver, rule, job, trial, workers.get())
            return
        except Exception as error:
            workers.discard()
            failure = failures.get_final_failure(error)
            if failure is not None:
                driver.on_trial_ended(job, worker.StepResult(trial_id=job.trial_id, failure=failure))
                return
            if attempt == WORKER_RESTARTS:
                driver.on_trial_failed(job, error)
            else:
                driver.on_worker_lost(job, error)


def _run_epochs(
    driver: Driver, rule: scheduler.PerArmScheduler, job: TrialJob, trial: Trial, resident: worker.ResidentWorker
) -> None:
    resident.start(job)
    while not driver.is_stopped:
        result = resident.step()
        driver.on_epoch_ended(job, result)
        if result.has_ended:
            rule.on_trial_complete(None, trial, {RESULT: result})
        elif rule.on_trial_result(None, trial, {RESULT: result}) != TrialScheduler.STOP:
            continue
        driver.on_trial_ended(job, result)
        return


@contextlib.contextmanager
def without_ray() -> Iterator[None]:
    """Let sweeps of this process run inline."""
    with (
        mock.patch.object(run.session, "ray_session", contextlib.nullcontext),
        mock.patch.object(run, "list_cluster_nodes", return_value=(Node(2.0),)),
        mock.patch.object(run.blocks, "materialize", lambda storage, manifest, **_: Blocks(storage, None)),
        mock.patch.object(run.tune_run, "run_with_tune", run_inline),
        # Of all sweeps that are compared, also if the code is edited meanwhile
        mock.patch.object(run.provenance, "get_code_version", return_value="inline"),
    ):
        yield


@dataclass(frozen=True)
class Ended:
    """End of a command: its exit code, negative for a signal, and everything that it printed."""

    code: int
    output: str


def run_command(
    arguments: Sequence[str],
    log: Path,
    prepare: Callable[[], Any] = lambda: None,
    finish: Callable[[], Any] = lambda: None,
) -> Ended:
    """Run a command of dirtune in a fork of this process, in which everything is imported.

    Args:
        arguments: of the command line.
        log: file for the output.
        prepare: called in the fork, before the command.
        finish: called in the fork, after the command.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))
    code = 1
    try:
        with log.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.argv = ["dirtune", *arguments]
        prepare()
        with without_ray():
            code = _get_exit_code(main)
        finish()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def import_what_commands_need(arguments: Sequence[str], log: Path) -> None:
    """Import the modules that a command imports, which then cost its later runs nothing."""
    names = log.with_name("modules")

    def write_names() -> None:
        names.write_text("\n".join(sorted(sys.modules)))

    run_command(arguments, log, finish=write_names)
    for name in names.read_text().splitlines():
        # Such as modules that their packages have replaced
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _get_exit_code(command: Callable[[], None]) -> int:
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def run_in_fork(function: Callable[[], _T]) -> _T:
    """Return the picklable result of a function that runs in a fork of this process.

    Raises:
        RuntimeError: the function raised.
    """
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.close(readable)
        try:
            with os.fdopen(writable, "wb") as stream:
                pickle.dump(function(), stream)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    os.close(writable)
    with os.fdopen(readable, "rb") as stream:
        content = stream.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the function failed with status {status}")
    result: _T = pickle.loads(content)
    return result
