"""How long a trial takes here: a few steps and a part of an evaluation, counted up to all epochs.

    an epoch   median step * steps of an epoch + evaluation of the validation split (+ the statistics of feature smoothing)
    at the end validation and test twice, diagnostics of the test split

The rows that are probed are taken into memory first, as a sweep holds its data. What a probe cannot see: that trials beside
each other share caches and memory bandwidth, that ranks wait for each other (`workers` count as if they shared a step
without loss), and a set so large that it is read from disk in every epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from statistics import median

import torch

from dirtune.data.cache import ResidentData, cut_out
from dirtune.data.memory_budget import keep_freed_memory
from dirtune.errors import Fault, InputError
from dirtune.results.records.names import EVALUATED_SPLITS
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm
from dirtune.training.loop import MOST_DIAGNOSED, assess, evaluate_representations, first_steps
from dirtune.training.smoothing import update_smoothing
from dirtune.training.stages import stages
from dirtune.training.state import Training, begin
from dirtune.tuning.plan.runtime import TimeEstimate

STEPS = 10
STAGE_SECONDS = 5.0
"""After this much time a stage is left, whatever the number of its steps; two it has at least."""
EVALUATED_ROWS = 512


def get_probe_device(study: ResolvedStudy) -> torch.device:
    """Where the trials of a study would run on this machine.

    Raises:
        InputError: they ask for a GPU, and there is none.
    """
    gpus = study.resources.gpus
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        rule = "a probe needs a machine with the GPU that trials ask for; here is none"
        raise InputError(Fault(where=study.name, key="resources.gpus", rule=rule, got=gpus))
    return torch.device("cuda")


def estimate_from_probe(
    study: ResolvedStudy, data: ResidentData, vocabulary: list[str] | None = None
) -> dict[str, TimeEstimate]:
    """The time of a trial of every arm, from a probe of each."""
    need = study.resources
    # As workers do
    keep_freed_memory()
    with _threads(need.cpus):
        return {arm.name: _probed(arm, data, need.workers, vocabulary) for arm in study.arms}


def _probed(arm: Arm, data: ResidentData, workers: int, vocabulary: list[str] | None) -> TimeEstimate:
    training = begin(arm.config, _small(arm, data), vocabulary=vocabulary)
    rows, seconds, steps = _rows(data), 0.0, 0
    for stage in stages(arm.config):
        if training.stage != stage:
            training.switch(stage)
        timed = _seconds_of_steps(training)
        steps += len(timed)
        evaluated = _evaluation(training, "val", rows) if stage.trains_predictor else 0.0
        smoothed = _smoothing(training, rows) if stage.trains_representation else 0.0
        in_epoch = math.ceil(rows["train"] / arm.config.recipe.batch_size)
        seconds += stage.epochs * (median(timed) * in_epoch + evaluated + smoothed) / workers
    seconds += _last_evaluation(training, rows) / workers
    return TimeEstimate(seconds, f"from a probe of {steps} steps of every arm")


def _small(arm: Arm, data: ResidentData) -> ResidentData:
    """The rows that are probed, in memory."""
    config = arm.config
    order = data.splits["train"].order(config.seed, 1, batch_size=config.recipe.batch_size, world=1)
    chosen = {
        name: (order if name == "train" else split.reading_order)[: _most(name, config.recipe.batch_size)]
        for name, split in data.splits.items()
    }
    return replace(data, splits={name: cut_out(data.splits[name], rows) for name, rows in chosen.items()})


def _most(split: str, batch_size: int) -> int:
    return batch_size * (STEPS + 1) if split == "train" else EVALUATED_ROWS


def _rows(data: ResidentData) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def _seconds_of_steps(training: Training) -> list[float]:
    """The time of each step but the first, which makes memory ready."""
    found: list[float] = []
    before = None
    # A small set has fewer steps in an epoch: then they are taken again.
    steps = chain.from_iterable(first_steps(training) for _ in range(STEPS + 1))
    for loss in islice(steps, STEPS + 1):
        # A GPU works on after the call; this waits for it
        float(loss.total.detach())
        now = time.perf_counter()
        if before is not None:
            found.append(now - before)
        before = now
        if len(found) > 1 and sum(found) > STAGE_SECONDS:
            break
    return found


def _evaluation(training: Training, split: str, rows: dict[str, int]) -> float:
    return _timed(lambda: assess(training, split)) * _share(training, split, rows)


def _last_evaluation(training: Training, rows: dict[str, int]) -> float:
    """Of the last and of the best epoch; the diagnostics look at pairs."""
    splits = sum(_evaluation(training, split, rows) for split in EVALUATED_SPLITS)
    share = min(rows["test"], MOST_DIAGNOSED) / len(training.data.splits["test"])
    return 2 * splits + _timed(lambda: evaluate_representations(training, "test")) * share**2


def _smoothing(training: Training, rows: dict[str, int]) -> float:
    if training.model.smoothing is None:
        return 0.0
    split, label = training.data.splits["train"], training.data.manifest.label
    seconds = _timed(lambda: update_smoothing(training.model, split, training.ranks, label))
    return seconds * _share(training, "train", rows)


def _share(training: Training, split: str, rows: dict[str, int]) -> float:
    return rows[split] / len(training.data.splits[split])


def _timed(call: Callable[[], object]) -> float:
    """Seconds of a second call; the first one makes memory ready."""
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
