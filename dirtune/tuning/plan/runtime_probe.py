"""Run time of a trial on this machine, extrapolated from a few steps and a part of an evaluation.

    an epoch   median step * steps of an epoch + evaluation of the validation split (+ the statistics of feature
    smoothing) at the end validation and test twice, diagnostics of the test split

The probed rows are read into memory first, as a sweep keeps its data in memory. Limitations: the probe does not measure
that concurrent trials share caches and memory bandwidth, that ranks wait for each other (`workers` count as if they
shared a step without loss), and a data set so large that it is read from disk in every epoch.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from statistics import median

import torch

from dirtune.data import cache, subset
from dirtune.errors import Fault, InputError
from dirtune.process import keep_freed_memory
from dirtune.results.records.names import EVALUATED_SPLITS
from dirtune.study import resolve, schema
from dirtune.training import evaluation, loop, passes, smoothing, stages, state
from dirtune.tuning.plan.runtime import TimeEstimate

TIMED_STEPS = 10
STAGE_SECONDS = 5.0
"""Time limit of a stage's steps; two steps are always timed."""
EVALUATED_ROWS = 512


def get_probe_device(study: resolve.ResolvedStudy) -> torch.device:
    """Return the device on which a study's trials would run on this machine.

    Raises:
        InputError: the trials need a GPU, and this machine has none.
    """
    gpus = study.resources.gpus
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        rule = "a probe needs a machine with the GPU that trials ask for; this one has none"
        raise InputError(Fault(where=study.name, key="resources.gpus", rule=rule, got=gpus))
    return torch.device("cuda")


def estimate_from_probe(
    study: resolve.ResolvedStudy, data: cache.ResidentData, vocabulary: list[str] | None = None
) -> dict[str, TimeEstimate]:
    """Return the time of a trial of every arm, from a probe of each."""
    need = study.resources
    # The allocator settings and the threads of a worker, for comparable times.
    keep_freed_memory()
    with _set_threads(need.cores):
        return {arm.name: _probe_arm(arm, data, need.workers, vocabulary) for arm in study.arms}


def _probe_arm(arm: schema.Arm, data: cache.ResidentData, workers: int, vocabulary: list[str] | None) -> TimeEstimate:
    planned = stages.list_stages(arm.config)
    batch_size = max(stage.recipe.batch_size for stage in planned)
    rows = {name: len(split) for name, split in data.splits.items()}
    rows["train"] = subset.count_rows(rows["train"], arm.config.data.fraction)
    order = data.splits["train"].make_order(arm.config.seed, 1, batch_size=batch_size, world=1)
    probed = {name: split.reading_order[:EVALUATED_ROWS] for name, split in data.splits.items()}
    probed["train"] = order[: batch_size * (TIMED_STEPS + 1)]
    # In memory, as a worker has its data: a probe that reads a file per batch would time the disk.
    part = replace(data, splits={name: cache.select_rows(data.splits[name], probed[name]) for name in data.splits})
    # Among the few probed rows, no label may be rare; synthetic rows take the time of others.
    config = arm.config.model_copy(update={"synthesis": None})
    training = state.begin_training(config, part, vocabulary=vocabulary)
    train = training.data.splits["train"]
    seconds, steps = 0.0, 0
    for stage in planned:
        if training.stage.number != stage.number:
            training.start_stage(stage)
        # Each stage is timed by itself: a second stage computes no gradient of the frozen encoder.
        timed = _time_steps(training)
        steps += len(timed)
        # The median ignores a step that another process has disturbed.
        of_stage = passes.Passes(stage, rows["train"])
        in_epoch = median(timed) * of_stage.steps_per_epoch
        if stage.trains_predictor:
            in_epoch += _time_evaluation(training, "val", rows["val"])
        if stage.trains_representation and training.model.smoothing is not None:
            update = _time_call(
                lambda: smoothing.update_smoothing(training.model, train, training.ranks, training.task)
            )
            in_epoch += update * rows["train"] / len(train) * of_stage.per_epoch
        seconds += stage.recipe.epochs * in_epoch / workers
    # The last and the best epoch are evaluated.
    final = 2 * sum(_time_evaluation(training, split, rows[split]) for split in EVALUATED_SPLITS)
    # The diagnostics compare pairs, so that their time grows with the square of the rows.
    share = min(rows["test"], evaluation.MAX_DIAGNOSED) / len(training.data.splits["test"])
    final += _time_call(lambda: evaluation.evaluate_representations(training, "test")) * share**2
    return TimeEstimate(seconds + final / workers, f"from a probe of {steps} steps of every arm")


def _time_steps(training: state.Training) -> list[float]:
    """Return the seconds of each step except the first, which warms up."""
    found: list[float] = []
    before = None
    # A small data set has fewer steps in an epoch; its epoch is repeated.
    steps = chain.from_iterable(loop.run_steps(training) for _ in range(TIMED_STEPS + 1))
    for loss in islice(steps, TIMED_STEPS + 1):
        # A GPU computes asynchronously; reading the loss waits for it.
        float(loss.total.detach())
        now = time.perf_counter()
        if before is not None:
            found.append(now - before)
        before = now
        if len(found) > 1 and sum(found) > STAGE_SECONDS:
            break
    return found


def _time_evaluation(training: state.Training, split: str, rows: int) -> float:
    """Return the seconds of an evaluation of a split with `rows` rows, of which the training has a part."""
    return _time_call(lambda: evaluation.evaluate(training, split)) * rows / len(training.data.splits[split])


def _time_call(call: Callable[[], object]) -> float:
    """Return the seconds of a second call; the first is a warm-up."""
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextmanager
def _set_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
