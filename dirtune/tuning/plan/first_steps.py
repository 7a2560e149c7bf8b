"""How a run begins: loss, gradient and updates of its first steps, taken down so that two runs can be compared.

The steps are those of the real training loop, on the first batches of the epoch, from the start that the seed gives. Two
configurations with one seed therefore differ here by their settings alone, and on a CPU a setting that enters nothing
leaves every number as it was, bit for bit.

Trade-off: of a large tensor some entries and the norm are kept, so that the beginnings of many arms fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, cut_out
from dirtune.training.loop import first_steps
from dirtune.training.smoothing import update_smoothing
from dirtune.training.stages import stages
from dirtune.training.state import Training, begin

MOST_ENTRIES = 4096
"""Entries that are kept of a tensor, evenly spaced."""

Sketch = Mapping[str, Float[Tensor, " kept"]]
"""Of each parameter, by name and shape: some entries of a tensor of its shape, and that tensor's norm."""


@dataclass(frozen=True)
class Beginning:
    """The first steps of one stage."""

    loss: float
    """Of the first step."""
    gradient: Sketch
    """Of the first step, as the optimizer is given it."""
    updates: Sketch
    """Of all steps together."""


def first_step(config: TrialConfig, data: ResidentData, vocabulary: list[str] | None = None) -> Beginning:
    """The first step of the first stage."""
    return _beginning(begin(config, data, vocabulary=vocabulary), steps=1)


def beginnings(
    config: TrialConfig, data: ResidentData, vocabulary: list[str] | None = None, *, steps: int
) -> Iterator[Beginning]:
    """The first steps of every stage; a later stage goes on from the first steps of the one before."""
    training = begin(config, data, vocabulary=vocabulary)
    yield _beginning(training, steps=steps)
    for stage in stages(config)[1:]:
        training.switch(stage)
        yield _beginning(training, steps=steps)


def smoothed_updates(
    config: TrialConfig, data: ResidentData, vocabulary: list[str] | None = None, *, epochs: int
) -> Sketch:
    """The updates of `epochs` epochs of one step each, after each of which features are smoothed as after a real one.

    All epochs see the first batch, and the statistics of the smoothing are taken of it alone.
    """
    training = begin(config, data, vocabulary=vocabulary)
    split, batch_size = data.splits["train"], config.recipe.batch_size
    order = split.order(config.seed, 1, batch_size=batch_size, world=1)
    batch, before = cut_out(split, order[:batch_size]), _values(training)
    for _ in range(epochs):
        next(first_steps(training))
        update_smoothing(training.model, batch, training.ranks, data.manifest.label)
    return _updates(training, before)


def change(one: Sketch, other: Sketch) -> float:
    """`|a - b| / max(|a|, |b|)`; a parameter that one of the two lacks counts there as zero."""
    none = torch.zeros(1)
    names = one.keys() | other.keys()
    difference = _norm([one.get(name, none) - other.get(name, none) for name in names])
    largest = max(_norm([*one.values()]), _norm([*other.values()]))
    return difference / largest if largest else 0.0


def misalignment(one: Sketch, other: Sketch) -> float:
    """`change` of the two after both have been scaled to length one."""
    return change(_scaled(one), _scaled(other))


def _beginning(training: Training, *, steps: int) -> Beginning:
    before, loss = _values(training), math.nan
    gradient: Sketch = {}
    for step, found in enumerate(islice(first_steps(training), steps)):
        if step == 0:
            loss, gradient = float(found.total.detach()), _gradients(training)
    return Beginning(loss, gradient, _updates(training, before))


def _gradients(training: Training) -> Sketch:
    return {
        _key(name, parameter): _sketched(parameter.grad)
        for name, parameter in _parameters(training)
        if parameter.grad is not None
    }


def _updates(training: Training, before: Mapping[str, Tensor]) -> Sketch:
    """Of what the loss moves: weight decay alone moves parameters that nothing reads."""
    return {
        _key(name, parameter): _sketched(parameter.detach() - before[name])
        for name, parameter in _parameters(training)
        if parameter.grad is not None and bool(parameter.grad.any())
    }


def _values(training: Training) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in _parameters(training)}


def _parameters(training: Training) -> Iterator[tuple[str, nn.Parameter]]:
    """Those of the regressor and those of the loss."""
    yield from training.model.named_parameters()
    yield from training.loss.named_parameters(prefix="loss")


def _key(name: str, parameter: Tensor) -> str:
    return f"{name} {tuple(parameter.shape)}"


def _sketched(values: Tensor) -> Tensor:
    flat = values.detach().flatten().float().cpu()
    kept = flat[:: math.ceil(len(flat) / MOST_ENTRIES)]
    return torch.cat([kept, flat.norm()[None]])


def _scaled(sketch: Sketch) -> Sketch:
    length = _norm([*sketch.values()])
    return {name: values / length for name, values in sketch.items()} if length else sketch


def _norm(parts: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))
