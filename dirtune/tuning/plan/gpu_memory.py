"""GPU memory warning: trials that share a GPU and need more memory than it has, by the peaks of recorded trials.

    needed = trials on one GPU * (largest peak of a recorded trial like them + CONTEXT_BYTES)

A trial records the peak of torch's allocated memory on its GPU (`peak_memory_bytes`) and the memory of that GPU
(`device_memory_bytes`), so that a study can be planned on a machine without a GPU. A trial is like another one if it
has the same data, encoder, batch, views and speed options, as in `dirtune.tuning.plan.runtime`; trials of the arm
itself are preferred, because terms need memory of their own. Limitation: a peak is a lower bound, since torch's cache
fragments; the warning stops no sweep, and no warning is no guarantee.
"""

from pathlib import Path

from dirtune.data.memory_budget import count_sharers
from dirtune.study.resolve import ResolvedStudy
from dirtune.tuning.plan.runtime import read_trial_rows, select_similar_trials

CONTEXT_BYTES = 2**29
"""Memory of CUDA and its libraries in every process, which torch does not count: an estimate."""

_COLUMNS = ("peak_memory_bytes", "device_memory_bytes")
_GIB = 2**30


def get_gpu_memory_warning(study: ResolvedStudy, results: str | Path) -> str | None:
    """Return a warning if the trials that share one GPU need more memory than it has, else None.

    Args:
        results: root of the results, with the recorded trials to compare with.
    """
    need = study.resources
    if not 0 < need.gpus < 1:
        return None
    on_one_gpu = count_sharers(cpus=need.cpus, gpus=need.gpus)
    number = min(on_one_gpu, (need.concurrent or on_one_gpu) * need.workers)
    if number == 1:
        return None
    rows = [row for row in read_trial_rows(study, results, _COLUMNS) if row["device_memory_bytes"]]
    similar = {arm.name: select_similar_trials(study, arm, rows)[0] for arm in study.arms}
    peaks = {arm: max(int(row["peak_memory_bytes"]) for row in found) for arm, found in similar.items() if found}
    if not peaks:
        return None
    # The arms run in turn, so that any trials can meet on one GPU: the largest arm decides.
    largest = max(peaks, key=peaks.__getitem__)
    # The records may come from several kinds of GPU.
    total = min(row["device_memory_bytes"] for row in similar[largest])
    each = peaks[largest] + CONTEXT_BYTES
    if number * each <= total:
        return None
    fitting = max(1, int(total // each))
    return (
        f"{number} trials on one GPU need {number} x {each / _GIB:.1f} GiB, as recorded trials like those of {largest} "
        f"did, and a GPU has {total / _GIB:.1f} GiB: resources.gpus must leave room for {fitting} at most"
    )
