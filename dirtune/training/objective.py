"""The total loss of a trial on one global batch: `alpha * L_reg + sum of weight * term`, with the state of its parts.

Views are kept apart here: which of them enter the regression loss and which the terms is the recipe's choice
(`dirtune.config.Views.regression`). Every rank evaluates the whole loss on the gathered rows, so the gradients of the
loss's own parameters are equal on all ranks without a reduction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dirtune.batch import Batch, Inputs, TermInputs, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.errors import NonFiniteLoss
from dirtune.losses import Fittable, Term
from dirtune.losses.pairs import at_least_float32
from dirtune.models.regressor import RegressorOutput, normalised
from dirtune.training.distributed import Ranks

REGRESSION = "regression"


@dataclass(frozen=True)
class Loss:
    """The total and its unweighted parts by name, all scalars."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]

    def __add__(self, other: Loss) -> Loss:
        """The sum of two that have the same parts."""
        parts = {name: part + other.parts[name] for name, part in self.parts.items()}
        return Loss(self.total + other.total, parts)

    def scaled(self, factor: float) -> Loss:
        """The total and all parts times a factor."""
        if factor == 1.0:
            return self
        parts = {name: factor * part for name, part in self.parts.items()}
        return Loss(factor * self.total, parts)

    def detached(self) -> Loss:
        """The values alone, without what a backward pass needs."""
        parts = {name: part.detach() for name, part in self.parts.items()}
        return Loss(self.total.detach(), parts)


def stacked_views(batch: Batch) -> Inputs:
    """All views of a batch in one, view-major, so that one forward pass serves them all."""
    first = batch.views[0]
    if len(batch.views) == 1:
        return first
    return {name: torch.cat([view[name] for view in batch.views]) for name in first}


def reads(term: object) -> str:
    """What a term is given: "representation" (z), "embedding" (e) or "direction" (e / |e|)."""
    what: str = getattr(term, "reads", "representation")
    return what


class TrainingLoss(nn.Module):
    """The loss of one stage of a trial; its parameters and buffers are those of the parts that are fitted.

    Args:
        labels: of the training split, which `dirtune.losses.Fittable` parts are fitted to.
        regression_labels: what the regression loss is fitted to instead, if given.
        regression: whether the regression loss is a part.
        terms: whether the terms are parts.
    """

    def __init__(
        self,
        config: TrialConfig,
        labels: TrainingLabels,
        *,
        regression: bool = True,
        terms: bool = True,
        regression_labels: TrainingLabels | None = None,
    ) -> None:
        super().__init__()
        self.label_scale = config.model.label_scale
        self.label_range = labels.spec.label_range
        self.first_view_is_apart = config.recipe.views.regression == "first"
        self.regression = config.loss if regression else None
        self.terms: Mapping[str, Term] = config.terms.active() if terms else {}
        self.factors = {name: term.weight for name, term in self.terms.items()}
        self.factors[REGRESSION] = config.alpha
        of_part = {REGRESSION: regression_labels or labels}
        self.fitted = nn.ModuleDict(
            {
                name: module
                for name, part in {REGRESSION: self.regression, **self.terms}.items()
                if isinstance(part, Fittable) and (module := part.fit(of_part.get(name, labels))) is not None
            }
        ).to(labels.labels.device)

    def forward(self, output: RegressorOutput, batch: Batch, ranks: Ranks) -> Loss:
        """The loss of the global batch that this rank's `output` and `batch` are a part of.

        Args:
            output: the regressor's output for `stacked_views(batch)`.
        """
        predictions = by_view(output.predictions, len(batch.views), ranks)
        labels, weights = ranks.gather(batch.labels), ranks.gather(batch.weights)
        parts = {}
        if self.regression is not None:
            parts[REGRESSION] = self._regression(predictions, labels, weights)
        inputs = self._term_inputs(output, batch, predictions, labels, weights, ranks)
        for name, term in self.terms.items():
            parts[name] = self.part(name)(inputs[reads(term)])
        return self.summed(parts)

    def summed(self, parts: dict[str, Tensor]) -> Loss:
        """The total of unweighted parts."""
        total = next(iter(parts.values())).new_zeros(())
        for name, part in parts.items():
            total = total + self.factors[name] * part
        return Loss(total, parts)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups: one for each part with parameters, at its own constant rate and without weight decay."""
        trained = {
            name: [parameter for parameter in module.parameters() if parameter.requires_grad]
            for name, module in self.fitted.items()
        }
        return [
            {"params": parameters, "lr": self.fitted[name].learning_rate, "weight_decay": 0.0, "scheduled": False}
            for name, parameters in trained.items()
            if parameters
        ]

    def learned(self) -> dict[str, float]:
        """What the fitted parts say of their state, as `<part>/<value>`: whatever their method `values` returns."""
        return {
            f"{part}/{name}": value
            for part, module in self.fitted.items()
            for name, value in getattr(module, "values", dict)().items()
        }

    def part(self, name: str) -> Any:
        """A part as it is called: fitted, or as it was configured."""
        if name in self.fitted:
            return self.fitted[name]
        return self.regression if name == REGRESSION else self.terms[name]

    def _regression(
        self,
        predictions: Float[Tensor, "views batch *label"],
        labels: Float[Tensor, "batch *label"],
        weights: Float[Tensor, " batch"],
    ) -> Float[Tensor, ""]:
        seen = predictions[:1] if self.first_view_is_apart else predictions
        value: Tensor = self.part(REGRESSION)(
            seen.flatten(0, 1) / self.label_scale,
            _repeated(labels, len(seen)) / self.label_scale,
            _repeated(weights, len(seen)),
        )
        return value

    def _term_inputs(
        self,
        output: RegressorOutput,
        batch: Batch,
        predictions: Float[Tensor, "views batch *label"],
        labels: Float[Tensor, "batch *label"],
        weights: Float[Tensor, " batch"],
        ranks: Ranks,
    ) -> dict[str, TermInputs]:
        """What the terms see, by what they read of the regressor; only what one of them reads is gathered."""
        if not self.terms:
            return {}
        of_terms = slice(int(self.first_view_is_apart), None)
        seen = predictions[of_terms].detach()
        inputs = partial(
            TermInputs,
            labels=_repeated(labels, len(seen)),
            weights=_repeated(weights, len(seen)),
            label_bins=_repeated(ranks.gather(batch.label_bins), len(seen)),
            samples=_repeated(ranks.gather(batch.rows), len(seen)),
            predictions=seen.flatten(0, 1),
            num_views=len(seen),
            label_range=self.label_range,
        )
        views = len(batch.views)
        return {
            what: inputs(representations=by_view(_vectors(output, what), views, ranks)[of_terms].flatten(0, 1))
            for what in sorted({reads(term) for term in self.terms.values()})
        }


def _vectors(output: RegressorOutput, what: str) -> Float[Tensor, "rows dim"]:
    if what == "direction":
        return normalised(output.embeddings)
    return output.embeddings if what == "embedding" else output.representations


class LossMeans:
    """Means of the loss and its parts over an epoch, kept on the device so that no step waits for it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.steps = 0
        self.sums: dict[str, Tensor] = {}
        # Number of finite steps before the first other one
        self.first_bad: dict[str, Tensor] = {}

    def add(self, loss: Loss) -> None:
        self.steps += 1
        for name, value in {**loss.parts, "loss": loss.total}.items():
            value = value.detach()
            finite = torch.isfinite(value).long()
            if name not in self.sums:
                self.sums[name], self.first_bad[name] = value.clone(), finite
                continue
            self.sums[name] += value
            self.first_bad[name] += finite * (self.first_bad[name] == self.steps - 1)

    def values(self) -> dict[str, float]:
        """The means by name.

        Raises:
            NonFiniteLoss: in some step a part was NaN or infinite.
        """
        # Of several, the first in time: once the weights are not finite, every part is not.
        finite_steps = {name: int(steps) for name, steps in self.first_bad.items()}
        first = min(finite_steps, key=finite_steps.__getitem__)
        if finite_steps[first] < self.steps:
            raise NonFiniteLoss(first, self.epoch, finite_steps[first] + 1)
        return {name: float(total) / self.steps for name, total in self.sums.items()}


def by_view(rows: Tensor, views: int, ranks: Ranks) -> Float[Tensor, "views batch *rest"]:
    """Rows stacked view-major on every rank, as (view, sample of the global batch, ...), in float32 at least."""
    # Before the gather, whose backward pass adds up the gradients of all ranks.
    by_view = at_least_float32(rows).unflatten(0, (views, -1))
    return ranks.gather(by_view.transpose(0, 1)).transpose(0, 1)


def _repeated(rows: Tensor, times: int) -> Tensor:
    """All rows `times` times, one after the other."""
    return rows.repeat(times, *[1] * (rows.ndim - 1))
