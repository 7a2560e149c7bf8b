"""Whether the trials that share a GPU fit onto it together, judged by what trials like them have taken on one.

    needed = trials on one GPU * (largest peak of a recorded trial like them + what a process takes besides)

A trial records the most memory that torch had in use on its GPU (`peak_memory_bytes`) and how much that GPU has
(`device_memory_bytes`), so that the question is answered where the study is planned, on a machine without a GPU, too. Like
a trial are those of the same data, encoder, batch, views and options of speed, as in `dirtune.tuning.plan.runtime`; of the arm
itself if there are any, because terms take memory of their own. Trade-off: a peak is a lower bound, fragments of torch's
cache come on top, so that this is a warning, which refuses nothing, and silence is no promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dirtune.data.memory_budget import count_sharers
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Resources
from dirtune.tuning.plan.runtime import Row, read_trial_rows, select_similar_trials

CONTEXT_BYTES = 2**29
"""What CUDA and its libraries are taken to use in every process, which torch does not count: an estimate."""

_COLUMNS = ("peak_memory_bytes", "device_memory_bytes")
_GIB = 2**30


def get_gpu_memory_warning(study: ResolvedStudy, results: str | Path) -> str | None:
    """One sentence if the trials that the study puts on one GPU need more memory than it has; none: nothing says so.

    Args:
        results: root of the results; recorded trials there tell what a trial takes.
    """
    number = _on_one_gpu(study.resources)
    if number == 1:
        return None
    rows = [row for row in read_trial_rows(study, results, _COLUMNS) if row["device_memory_bytes"]]
    of_arms = {arm.name: select_similar_trials(study, arm, rows)[0] for arm in study.arms}
    peaks = {name: _peak(found) for name, found in of_arms.items() if found}
    if not peaks:
        return None
    hungriest = max(peaks, key=peaks.__getitem__)
    total = min(row["device_memory_bytes"] for row in of_arms[hungriest])
    each = peaks[hungriest] + CONTEXT_BYTES
    if number * each <= total:
        return None
    fit = max(1, int(total // each))
    return (
        f"{number} trials on one GPU need {number} x {each / _GIB:.1f} GiB, as recorded trials like those of {hungriest} "
        f"did, and a GPU has {total / _GIB:.1f} GiB: resources.gpus must leave room for {fit} at most"
    )


def _on_one_gpu(need: Resources) -> int:
    """Workers of trials that are put on one GPU."""
    if not 0 < need.gpus < 1:
        return 1
    on_one = count_sharers(cpus=need.cpus, gpus=need.gpus)
    return min(on_one, (need.concurrent or on_one) * need.workers)


def _peak(rows: Sequence[Row]) -> int:
    return max(int(row["peak_memory_bytes"]) for row in rows)
