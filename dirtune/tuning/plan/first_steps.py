"""First steps of a training run: loss, gradient and updates, recorded so that two runs can be compared.

The steps are those of the real training loop, on the first batches of the epoch, from the seed's initial weights. Two
configurations with one seed therefore differ only by their settings, and on a CPU a setting without effect leaves every
number unchanged, bit for bit.

Trade-off: of a large tensor some entries and the norm are stored, so that the first steps of many arms fit into memory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, select_rows
from dirtune.training import loop, smoothing, stages, state

MOST_ENTRIES = 4096
"""Stored entries of a tensor, evenly spaced."""

TensorSummary = Mapping[str, Float[Tensor, " entries"]]
"""Some entries and the norm of one tensor per parameter, by the parameter's name and shape."""


@dataclass(frozen=True)
class FirstSteps:
    """The first steps of one stage."""

    loss: float
    """Loss of the first step."""
    gradient: TensorSummary
    """Gradient of the first step, as the optimizer receives it."""
    updates: TensorSummary
    """Sum of the updates of all steps."""


def record_first_step(config: TrialConfig, data: ResidentData, vocabulary: list[str] | None = None) -> FirstSteps:
    """Train the first step of the first stage."""
    return _record_stage(state.begin_training(config, data, vocabulary=vocabulary), steps=1)


def record_first_steps(
    config: TrialConfig, data: ResidentData, vocabulary: list[str] | None = None, *, steps: int
) -> Iterator[FirstSteps]:
    """Train the first steps of every stage; a later stage starts from the first steps of the one before."""
    training = state.begin_training(config, data, vocabulary=vocabulary)
    yield _record_stage(training, steps=steps)
    for stage in stages.list_stages(config)[1:]:
        # Not after all epochs of the first stage: that would be a training, and the question is about single steps.
        training.start_stage(stage)
        yield _record_stage(training, steps=steps)


def record_smoothed_updates(
    config: TrialConfig, data: ResidentData, vocabulary: list[str] | None = None, *, epochs: int
) -> TensorSummary:
    """Train `epochs` epochs of one step each, with an update of the feature-smoothing statistics after each.

    All epochs train on the first batch, and the statistics are those of this batch.
    """
    training = state.begin_training(config, data, vocabulary=vocabulary)
    split, batch_size = data.splits["train"], config.recipe.batch_size
    order = split.make_order(config.seed, 1, batch_size=batch_size, world=1)
    batch, before = select_rows(split, order[:batch_size]), _copy_parameters(training)
    for _ in range(epochs):
        next(loop.run_steps(training))
        smoothing.update_smoothing(training.model, batch, training.ranks, training.task)
    return _summarize_updates(training, before)


def compute_change(one: TensorSummary, other: TensorSummary) -> float:
    """Return `|a - b| / max(|a|, |b|)`, where a parameter that is missing in one of them is zero."""
    none = torch.zeros(1)
    names = one.keys() | other.keys()
    difference = _compute_norm([one.get(name, none) - other.get(name, none) for name in names])
    largest = max(_compute_norm([*one.values()]), _compute_norm([*other.values()]))
    return difference / largest if largest else 0.0


def compute_direction_change(one: TensorSummary, other: TensorSummary) -> float:
    """Return the change between both after scaling them to unit length."""
    return compute_change(_normalize(one), _normalize(other))


def _record_stage(training: state.Training, *, steps: int) -> FirstSteps:
    before, loss = _copy_parameters(training), math.nan
    gradient: TensorSummary = {}
    for step, found in enumerate(islice(loop.run_steps(training), steps)):
        if step == 0:
            loss = float(found.total.detach())
            gradient = {
                _format_key(name, parameter): _summarize(parameter.grad)
                for name, parameter in _iter_parameters(training)
                if parameter.grad is not None
            }
    return FirstSteps(loss, gradient, _summarize_updates(training, before))


def _summarize_updates(training: state.Training, before: Mapping[str, Tensor]) -> TensorSummary:
    # Only of parameters with a gradient: weight decay alone also moves parameters that no output depends on.
    return {
        _format_key(name, parameter): _summarize(parameter.detach() - before[name])
        for name, parameter in _iter_parameters(training)
        if parameter.grad is not None and bool(parameter.grad.any())
    }


def _copy_parameters(training: state.Training) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in _iter_parameters(training)}


def _iter_parameters(training: state.Training) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of the regressor and of the loss."""
    yield from training.model.named_parameters()
    yield from training.loss.named_parameters(prefix="loss")


def _format_key(name: str, parameter: Tensor) -> str:
    # With the shape, since arms of different widths share names.
    return f"{name} {tuple(parameter.shape)}"


def _summarize(values: Tensor) -> Tensor:
    # On the CPU and in float32, whatever the device: arms with different precision are compared.
    flat = values.detach().flatten().float().cpu()
    entries = flat[:: math.ceil(len(flat) / MOST_ENTRIES)]
    # The norm also covers the entries that are not stored.
    return torch.cat([entries, flat.norm()[None]])


def _normalize(summary: TensorSummary) -> TensorSummary:
    length = _compute_norm([*summary.values()])
    return {name: values / length for name, values in summary.items()} if length else summary


def _compute_norm(parts: Sequence[Tensor]) -> float:
    # In float64, or the squares of many small entries would vanish in a large sum.
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))
