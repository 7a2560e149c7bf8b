"""GPU memory warnings: a step that does not fit, and trials that share a GPU and need more than it has by recorded peaks.

    needed = trials on one GPU * (largest peak of a recorded trial like them + CONTEXT_BYTES)

A trial records the peak of torch's allocated memory on its GPU (`peak_memory_bytes`) and the memory of that GPU
(`device_memory_bytes`), so that a study can be planned on a machine without a GPU. A trial is like another one if it
has the same data, encoder, batch, views and speed options, as in `dirtune.tuning.plan.runtime`; trials of the arm
itself are preferred, because terms need memory of their own. Limitation: a peak is a lower bound, since torch's cache
fragments; the warning stops no sweep, and no warning is no guarantee.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from dirtune.config import TrialConfig
from dirtune.data.columns import get_decoded_size
from dirtune.data.memory_budget import FREE_SHARE, count_sharers
from dirtune.errors import InputError
from dirtune.manifest import Manifest
from dirtune.models.regressor import Regressor
from dirtune.recipe import Recipe
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.device import AMPERE
from dirtune.training.task import make_task
from dirtune.tuning.plan.runtime import read_trial_rows, select_similar_trials

CONTEXT_BYTES = 2**29
"""Memory of CUDA and its libraries in every process, which torch does not count: an estimate."""

WORTHWHILE_BYTES = 2**30
"""Smallest saving of memory for which `plan` suggests half precision."""

_COLUMNS = ("peak_memory_bytes", "device_memory_bytes")
_GIB = 2**30
# Batch normalization needs two.
_SAMPLES = 2


def get_gpu_memory_warning(study: ResolvedStudy, results: str | Path) -> str | None:
    """Return a warning if the trials that share one GPU need more memory than it has, else None.

    Args:
        results: root of the results, with the recorded trials to compare with.
    """
    need = study.resources
    if not 0 < need.gpus < 1:
        return None
    on_one_gpu = count_sharers(cpus=need.cores, gpus=need.gpus)
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


def estimate_step_bytes(config: TrialConfig, manifest: Manifest) -> int | None:
    """Estimate the memory of a training step on a GPU: what the backward pass keeps, weights, gradients and optimizer.

        bytes = samples at a time * views * (bytes that the encoder saves for a sample) + parameters * (copies of each)

    The encoder's forward pass runs on shapes alone ("meta"), for two samples. Limitations: kernels need some memory of their
    own, and terms and resident data are not counted, so that the estimate is a lower bound. None if the encoder's sizes depend on
    its input, as those of packed sentences do.
    """
    model = _build_on_meta(config, manifest)
    return None if model is None else _estimate_step_bytes(model, config.recipe, manifest)


def _build_on_meta(config: TrialConfig, manifest: Manifest) -> Regressor | None:
    task = make_task(manifest, config.model.label_transform)
    # Units that the data decides are not known yet, and take no memory.
    spec = config.model.model_copy(update={"label_scale": 1.0, "label_offset": 0.0})
    try:
        return task.build_regressor(config.model_copy(update={"model": spec})).to("meta").train()
    # Word vectors need the vocabulary, which an estimate is not worth to read.
    except InputError:
        return None


def _estimate_step_bytes(model: Regressor, recipe: Recipe, manifest: Manifest) -> int | None:
    saved: dict[int, int] = {}
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            saved[storage._cdata] = storage.nbytes()
            # Alive until the end, so that no other storage gets its address.
            kept.append(tensor)
        return tensor

    inputs = {}
    for name, feature in manifest.features.items():
        # Images may be stored larger than a view.
        shape = feature.shape if feature.view is None else (*feature.shape[:-2], *feature.view)
        dtype = torch.int64 if feature.kind == "tokens" else torch.float32
        inputs[name] = torch.zeros((_SAMPLES, *shape), dtype=dtype, device="meta")
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.encoder(inputs)
    # Shapes that follow from values do not exist here.
    except (NotImplementedError, RuntimeError):
        return None
    per_sample = sum(saved.values()) / _SAMPLES * (0.5 if recipe.precision in ("bf16", "fp16") else 1.0)
    count = sum(parameter.numel() for parameter in model.parameters())
    # Weight, gradient, best weight; Adam has two moments, SGD one
    copies = 4 if recipe.optimizer == "sgd" else 5
    return int(per_sample * recipe.micro_batch * recipe.views.count + 4 * copies * count)


def get_precision_note(study: ResolvedStudy, manifest: Manifest) -> str | None:
    """Return what bf16 would save of a float32 step's memory, or that this machine's GPU emulates bf16, else None.

    None if a step would save less than `WORTHWHILE_BYTES`. The speed is no part of it, because nothing is measured here.
    """
    if not study.resources.gpus:
        return None
    if torch.cuda.is_available() and (gpu := torch.cuda.get_device_properties(0)).major < AMPERE:
        emulated = [arm.name for arm in study.arms if arm.config.recipe.precision == "bf16"]
        if not emulated:
            return None
        of_gpu = f"{gpu.name}, capability {gpu.major}.{gpu.minor}"
        return f"this machine's GPU ({of_gpu}) only emulates the bf16 of {', '.join(emulated)}: set recipe.precision to float32 or fp16"
    is_chosen = any("recipe.precision" in arm.space or arm.config.recipe.precision != "float32" for arm in study.arms)
    # Arms differ by their terms mostly, which are not counted.
    (config,) = [arm.config for arm in study.arms if arm.name == study.reference]
    model = None if is_chosen else _build_on_meta(config, manifest)
    if model is None:
        return None
    half = config.recipe.model_copy(update={"precision": "bf16"})
    needs = [_estimate_step_bytes(model, recipe, manifest) for recipe in (config.recipe, half)]
    before, after = (0 if need is None else need for need in needs)
    if before - after < WORTHWHILE_BYTES:
        return None
    has_convolutions = any(isinstance(layer, nn.Conv2d) for layer in model.encoder.modules())
    options = "bf16, channels_last: true" if has_convolutions else "bf16"
    return (
        f"a step of {study.reference} needs about {before / _GIB:.1f} GiB of GPU memory (an estimate, without the data), "
        f"and about {after / _GIB:.1f} GiB with recipe: {{precision: {options}}}"
    )


def get_step_memory_warning(study: ResolvedStudy, manifest: Manifest, results: str | Path) -> str | None:
    """Return a warning if a step of an arm needs more memory than a trial's share of a GPU, else None.

    The memory of a GPU is that of this machine's, or else of recorded trials'.
    """
    if not study.resources.gpus:
        return None
    rows = [row for row in read_trial_rows(study, results, _COLUMNS) if row["device_memory_bytes"]]
    totals = [int(row["device_memory_bytes"]) for row in rows]
    if torch.cuda.is_available():
        totals = [torch.cuda.get_device_properties(0).total_memory]
    by_settings: dict[str, str] = {}
    for arm in study.arms:
        # Arms differ by their terms mostly, which are not counted.
        relevant = (arm.config.model.encoder, arm.config.recipe)
        by_settings.setdefault(str(relevant), arm.name)
    arms = [arm for arm in study.arms if arm.name in by_settings.values()]
    needs = {arm.name: need for arm in arms if (need := estimate_step_bytes(arm.config, manifest)) is not None}
    if not needs or not totals:
        return None
    largest = max(needs, key=needs.__getitem__)
    share = min(totals) * min(study.resources.gpus, 1.0)
    samples = sum(split.rows for split in manifest.splits.values())
    data = samples * sum(get_decoded_size(spec) for spec in manifest.inputs.values())
    # Larger data is streamed.
    needs[largest] += data if data <= FREE_SHARE * share else 0
    if needs[largest] + CONTEXT_BYTES <= share:
        return None
    return (
        f"a step of {largest} needs about {needs[largest] / _GIB:.1f} GiB of GPU memory with the data, and a trial has "
        f"{share / _GIB:.1f} GiB: "
        "use recipe.accumulation, recipe.precision: bf16 or a smaller batch"
    )
