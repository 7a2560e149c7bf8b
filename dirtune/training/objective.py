"""Total loss of a trial on one global batch: `alpha * L_reg + sum of weight * term`, with the state of its parts.

The recipe (`dirtune.config.Views.regression`) selects the views of the regression loss and those of the terms; here they
are separated. Every rank evaluates the whole loss on the gathered rows, so the gradients of the loss's own parameters are
equal on all ranks without a reduction.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dirtune import part_errors
from dirtune.batch import Batch, Inputs, TermInputs, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.errors import NonFiniteLoss
from dirtune.losses import Fittable, RawLoss, Term, pairs
from dirtune.models.regressor import RegressorOutput
from dirtune.signatures import describe_value
from dirtune.training.distributed import Ranks
from dirtune.wording import format_count

REGRESSION = "regression"
# Steps whose values become one tensor
_STACKED_TOGETHER = 64
_SCALAR = "must return a scalar, a tensor of floating-point numbers without dimensions"


@dataclass(frozen=True)
class Loss:
    """The total and its unweighted parts by name, all scalars."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]

    def __add__(self, other: "Loss") -> "Loss":
        """Return the sum of two losses with the same parts."""
        parts = {name: part + other.parts[name] for name, part in self.parts.items()}
        return Loss(self.total + other.total, parts)

    def scale(self, factor: float) -> "Loss":
        """Return the total and all parts times a factor."""
        if factor == 1.0:
            return self
        parts = {name: factor * part for name, part in self.parts.items()}
        return Loss(factor * self.total, parts)

    def detach(self) -> "Loss":
        """Return the values without their graph."""
        parts = {name: part.detach() for name, part in self.parts.items()}
        return Loss(self.total.detach(), parts)


def stack_views(views: Sequence[Inputs]) -> Inputs:
    """Return all views of a batch in one, view-major, so that one forward pass serves them all."""
    first = views[0]
    if len(views) == 1:
        return first
    return {name: torch.cat([view[name] for view in views]) for name in first}


def gather_rows(rows: Mapping[str, Tensor], batch: Batch, ranks: Ranks) -> dict[str, Float[Tensor, "rows *rest"]]:
    """Gather tensors of rows, stacked view-major on every rank, in one collective, in at least float32.

    Args:
        rows: by name.
        batch: this rank's part of the batch that the rows are of.
        ranks: this rank in its group.

    Returns:
        The tensors for the samples of the global batch, stacked view-major.
    """
    # The conversion precedes the gather, whose backward pass sums the gradients of all ranks.
    rows = {name: pairs.to_at_least_float32(each) for name, each in rows.items()}
    if ranks.world == 1:
        return rows
    by_sample = [each.unflatten(0, (len(batch.views), -1)).transpose(0, 1) for each in rows.values()]
    gathered = ranks.gather_together(by_sample, batch.counts)
    return {name: each.transpose(0, 1).flatten(0, 1) for name, each in zip(rows, gathered, strict=True)}


def gather_samples(batch: Batch, ranks: Ranks) -> Batch:
    """Return a batch with the labels, bins, weights and positions of all ranks, from one collective; views stay this rank's."""
    if ranks.world == 1:
        return batch
    labels, bins, weights, rows = ranks.gather_together(
        (batch.labels, batch.label_bins, batch.weights, batch.rows), batch.counts
    )
    return replace(batch, labels=labels, label_bins=bins, weights=weights, rows=rows)


def get_term_input(term: object) -> str:
    """Return the input of a term: "representation" (z), "embedding" (e) or "direction" (e / |e|)."""
    kind: str = getattr(term, "reads", "representation")
    return kind


class TrainingLoss(nn.Module):
    """Loss of one stage of a trial; its parameters and buffers are those of its fitted parts.

    Args:
        config: the trial's configuration.
        labels: labels of the training split, to which `dirtune.losses.Fittable` parts are fitted.
        regression_labels: labels to which the regression loss is fitted instead; None means `labels`.
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
        self.label_scale, _ = config.model.get_label_units()
        self.label_range = labels.spec.label_range
        self.first_view_is_apart = config.recipe.views.regression == "first"
        self.regression = config.loss if regression else None
        self.regression_reads_bins = getattr(self.regression, "reads_bins", False)
        self.terms: Mapping[str, Term] = config.terms.get_active() if terms else {}
        # Sorted: every rank must gather in the same order.
        self.kinds = sorted({get_term_input(term) for term in self.terms.values()})
        self.factors = {name: term.weight for name, term in self.terms.items()}
        self.factors[REGRESSION] = config.alpha
        labels_by_part = {REGRESSION: regression_labels or labels}
        parts: dict[str, Any] = {REGRESSION: self.regression, **self.terms}
        fitted = {
            name: self._fit(name, part, labels_by_part.get(name, labels))
            for name, part in parts.items()
            if isinstance(part, Fittable)
        }
        self.fitted = nn.ModuleDict({name: module for name, module in fitted.items() if module is not None}).to(
            labels.labels.device
        )

    def forward(self, output: RegressorOutput, batch: Batch, ranks: Ranks) -> Loss:
        """Return the loss of the global batch that this rank's `output` and `batch` are a part of.

        Args:
            output: the regressor's output for `stack_views(batch.views)`.
            batch: this rank's part of the batch.
            ranks: this rank in its group.
        """
        batch = gather_samples(batch, ranks)
        rows = {kind: _select_vectors(output, kind) for kind in self.kinds}
        rows["predictions"] = output.predictions
        if self.regression is not None and output.raw is not None:
            rows["raw"] = output.raw
        gathered = gather_rows(rows, batch, ranks)
        parts = {}
        if self.regression is not None:
            parts[REGRESSION] = self._compute_regression(gathered, batch)
        inputs = {kind: self._make_term_inputs(gathered, kind, batch) for kind in self.kinds}
        for name, term in self.terms.items():
            parts[name] = self.compute_part(name, inputs[get_term_input(term)])
        return self.sum_parts(parts)

    def _compute_regression(self, output: Mapping[str, Float[Tensor, "rows *rest"]], batch: Batch) -> Float[Tensor, ""]:
        """Return the regression loss of the predictions, or of a head's raw outputs."""
        # A head's outputs are in the unit of the loss already.
        raw = output.get("raw")
        outputs = output["predictions"] / self.label_scale if raw is None else raw
        views, options = len(batch.views), {}
        if self.first_view_is_apart:
            outputs, views = outputs[: batch.labels.shape[0]], 1
        if self.regression_reads_bins:
            options["label_bins"] = _repeat_rows(batch.label_bins, views)
        rows = (_repeat_rows(batch.labels, views) / self.label_scale, _repeat_rows(batch.weights, views))
        if raw is None or isinstance(self.regression, RawLoss):
            return self.compute_part(REGRESSION, outputs, *rows, **options)
        # Copies of the label (`model.target_copies`): each is a prediction of its own.
        copies = [self.compute_part(REGRESSION, copy, *rows, **options) for copy in outputs.unbind(dim=-1)]
        return torch.stack(copies).mean()

    def sum_parts(self, parts: dict[str, Tensor]) -> Loss:
        """Return the loss with its total, the weighted sum of the parts."""
        # A factor of one, and a sum of one part, would be operations of every step, and of its backward pass.
        weighted = [part if self.factors[name] == 1.0 else self.factors[name] * part for name, part in parts.items()]
        return Loss(sum(weighted[1:], start=weighted[0]), parts)

    def make_parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups: one per part with parameters, at its own constant rate and without weight decay."""
        trained = {
            name: [parameter for parameter in module.parameters() if parameter.requires_grad]
            for name, module in self.fitted.items()
        }
        return [
            {"params": parameters, "lr": self.fitted[name].learning_rate, "weight_decay": 0.0, "scheduled": False}
            for name, parameters in trained.items()
            if parameters
        ]

    def get_learned_values(self) -> dict[str, float]:
        """Return the values that fitted parts report of their state by a method `values`, as `<part>/<value>`."""
        found: dict[str, float] = {}
        for part, module in self.fitted.items():
            with self.name_part(part):
                values: dict[str, float] = getattr(module, "values", dict)()
            found |= {f"{part}/{name}": value for name, value in values.items()}
        return found

    def get_part(self, name: str) -> Any:
        """Return a part as a callable: its fitted module, or the configured loss or term itself."""
        if name in self.fitted:
            return self.fitted[name]
        return self.regression if name == REGRESSION else self.terms[name]

    def name_part(self, name: str) -> AbstractContextManager[None]:
        """Name a part in the errors that it raises."""
        return part_errors.name_part(*self._identify(name))

    def compute_part(self, name: str, *inputs: Any, **options: Any) -> Float[Tensor, ""]:
        """Return the value of a part.

        Raises:
            InputError: the part of a plug-in raises, or returns no scalar.
        """
        with self.name_part(name):
            value = self.get_part(name)(*inputs, **options)
        if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
            return value
        got = describe_value(value)
        if isinstance(value, Tensor):
            got = f"a tensor of {format_count(value.ndim, 'dimension') if value.ndim else value.dtype}"
        raise part_errors.make_part_error(*self._identify(name), _SCALAR, got)

    def check_gradient(self, loss: Loss) -> None:
        """Raise if no part of a loss has a gradient; one alone may have none, as a term of a batch without pairs.

        Raises:
            InputError: the total does not depend on what is trained.
        """
        if not loss.total.requires_grad:
            first = next(iter(loss.parts))
            rule = "must depend on what it is given, to have a gradient"
            raise part_errors.make_part_error(*self._identify(first), rule, "a constant")

    def _identify(self, name: str) -> tuple[str, str, Any]:
        """Return the kind of a part, its name, and the configured loss or term."""
        if name == REGRESSION:
            return "loss", getattr(self.regression, "name", REGRESSION), self.regression
        return "term", name, self.terms[name]

    def _fit(self, name: str, part: Fittable, labels: TrainingLabels) -> nn.Module | None:
        with self.name_part(name):
            module = part.fit(labels)
        if module is not None and not isinstance(module, nn.Module):
            rule = "`fit` must return a torch module or None"
            raise part_errors.make_part_error(*self._identify(name), rule, describe_value(module))
        is_trained = module is not None and any(each.requires_grad for each in module.parameters())
        rate = getattr(module, "learning_rate", None)
        if is_trained and not isinstance(rate, int | float):
            rule = "a fitted module with parameters needs a number `learning_rate`"
            raise part_errors.make_part_error(*self._identify(name), rule, describe_value(rate))
        return module

    def _make_term_inputs(
        self, output: Mapping[str, Float[Tensor, "rows *rest"]], kind: str, batch: Batch
    ) -> TermInputs:
        """Return the inputs of a term of this kind (`get_term_input`)."""
        representations, predictions, views = output[kind], output["predictions"], len(batch.views)
        if self.first_view_is_apart:
            first = len(batch.labels)
            representations, predictions, views = representations[first:], predictions[first:], views - 1
        return TermInputs(
            representations=representations,
            labels=_repeat_rows(batch.labels, views),
            weights=_repeat_rows(batch.weights, views),
            label_bins=_repeat_rows(batch.label_bins, views),
            samples=_repeat_rows(batch.rows, views),
            # Detached: terms compare predictions (ConR) but train the representation alone.
            predictions=predictions.detach(),
            num_views=views,
            label_range=self.label_range,
            label_scale=self.label_scale,
            draw_seed=batch.draw_seed,
        )


def _select_vectors(output: RegressorOutput, kind: str) -> Float[Tensor, "rows dim"]:
    """Return the vectors that terms of a kind read (`get_term_input`)."""
    vectors = output.representations if kind == "representation" else output.embeddings
    return pairs.normalize_rows(vectors) if kind == "direction" else vectors


def _repeat_rows(rows: Tensor, times: int) -> Tensor:
    # `repeat`, not `repeat_interleave`: stacked views are view-major.
    return rows if times == 1 else rows.repeat(times, *[1] * (rows.ndim - 1))


class LossMeans:
    """Means of the loss and its parts over an epoch, kept on the device so that no step waits for it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.steps = 0
        self.names: tuple[str, ...] = ()
        """The parts, then the loss."""
        self._stacked: list[Tensor] = []
        """Values of earlier steps, of shape (steps, names)."""
        self._latest: list[Tensor] = []
        """Values of the steps since, one after the other: stacked together, they take no operation of each step."""

    def add(self, loss: Loss) -> None:
        """Add the loss of a step, without its graph."""
        self.steps += 1
        self.names = (*loss.parts, "loss")
        self._latest += (*loss.parts.values(), loss.total)
        if self.steps % _STACKED_TOGETHER == 0:
            self._stack_latest()

    def get_state(self) -> dict[str, Any]:
        """Return all that a resumed epoch needs, as tensors and plain data."""
        self._stack_latest()
        values = torch.cat(self._stacked) if self._stacked else None
        return {"steps": self.steps, "names": self.names, "values": values}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore a state from `get_state`."""
        self.steps, self.names = state["steps"], tuple(state["names"])
        self._stacked = [] if state["values"] is None else [state["values"].to(device)]

    def compute(self) -> dict[str, float]:
        """Return the means by name.

        Raises:
            NonFiniteLoss: in some step a part was NaN or infinite.
        """
        self._stack_latest()
        values = torch.cat(self._stacked)
        means = dict(zip(self.names, values.double().mean(0).tolist(), strict=True))
        if all(map(math.isfinite, means.values())):
            return means
        # The first part in time is named: after a step with weights that are not finite, every part is not.
        finite_steps = values.isfinite().long().cumprod(0).sum(0).tolist()
        first = min(range(len(self.names)), key=finite_steps.__getitem__)
        raise NonFiniteLoss(self.names[first], self.epoch, finite_steps[first] + 1)

    def _stack_latest(self) -> None:
        if self._latest:
            self._stacked.append(torch.stack(self._latest).reshape(-1, len(self.names)))
            self._latest = []
