"""Total loss of a trial on one global batch: `alpha * L_reg + sum of weight * term`, with the state of its parts.

The recipe (`dirtune.config.Views.regression`) selects the views of the regression loss and those of the terms; here they
are separated. Every rank evaluates the whole loss on the gathered rows, so the gradients of the loss's own parameters are
equal on all ranks without a reduction.
"""

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
# Steps whose values are checked by one call for all of them
_CHECKED_TOGETHER = 64
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


def gather_views(
    rows: Mapping[str, Tensor], batch: Batch, ranks: Ranks
) -> dict[str, Float[Tensor, "views batch *rest"]]:
    """Gather tensors of rows, stacked view-major on every rank, in one collective, in at least float32.

    Args:
        rows: by name.
        batch: this rank's part of the batch that the rows are of.
        ranks: this rank in its group.

    Returns:
        The tensors as (view, sample of the global batch, ...).
    """
    # The conversion precedes the gather, whose backward pass sums the gradients of all ranks.
    by_view = {
        name: pairs.to_at_least_float32(each).unflatten(0, (len(batch.views), -1)) for name, each in rows.items()
    }
    if ranks.world == 1:
        return by_view
    gathered = ranks.gather_together([each.transpose(0, 1) for each in by_view.values()], batch.counts)
    return {name: each.transpose(0, 1) for name, each in zip(rows, gathered, strict=True)}


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
        self.terms: Mapping[str, Term] = config.terms.get_active() if terms else {}
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
        # Sorted: every rank must gather in the same order.
        kinds = sorted({get_term_input(term) for term in self.terms.values()})
        rows = {kind: _select_vectors(output, kind) for kind in kinds}
        rows["predictions"] = output.predictions
        if self.regression is not None and output.raw is not None:
            rows["raw"] = output.raw
        gathered = gather_views(rows, batch, ranks)
        parts = {}
        if self.regression is not None:
            parts[REGRESSION] = self._compute_regression(gathered, batch)
        inputs = {kind: self._make_term_inputs(gathered, kind, batch) for kind in kinds}
        for name, term in self.terms.items():
            parts[name] = self.compute_part(name, inputs[get_term_input(term)])
        return self.sum_parts(parts)

    def _compute_regression(
        self, output: Mapping[str, Float[Tensor, "views batch *rest"]], batch: Batch
    ) -> Float[Tensor, ""]:
        """Return the regression loss of the predictions, or of a head's raw outputs."""
        # A head's outputs are in the unit of the loss already.
        raw = output.get("raw")
        outputs = output["predictions"] / self.label_scale if raw is None else raw
        if self.first_view_is_apart:
            outputs = outputs[:1]
        views, options = len(outputs), {}
        if getattr(self.regression, "reads_bins", False):
            options["label_bins"] = _repeat_rows(batch.label_bins, views)
        rows = (_repeat_rows(batch.labels, views) / self.label_scale, _repeat_rows(batch.weights, views))
        if raw is None or isinstance(self.regression, RawLoss):
            return self.compute_part(REGRESSION, outputs.flatten(0, 1), *rows, **options)
        # Copies of the label (`model.target_copies`): each is a prediction of its own.
        copies = outputs.flatten(0, 1).unbind(dim=-1)
        return torch.stack([self.compute_part(REGRESSION, copy, *rows, **options) for copy in copies]).mean()

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
        self, output: Mapping[str, Float[Tensor, "views batch *rest"]], kind: str, batch: Batch
    ) -> TermInputs:
        """Return the inputs of a term of this kind (`get_term_input`)."""
        of_terms = slice(int(self.first_view_is_apart), None)
        # Detached: terms compare predictions (ConR) but train the representation alone.
        seen = output["predictions"][of_terms].detach()
        return TermInputs(
            representations=output[kind][of_terms].flatten(0, 1),
            labels=_repeat_rows(batch.labels, len(seen)),
            weights=_repeat_rows(batch.weights, len(seen)),
            label_bins=_repeat_rows(batch.label_bins, len(seen)),
            samples=_repeat_rows(batch.rows, len(seen)),
            predictions=seen.flatten(0, 1),
            num_views=len(seen),
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
        """The parts, then the loss; an element of each of the tensors."""
        self.sums: Tensor | None = None
        self.finite_steps: Tensor | None = None
        """Number of steps before the first NaN or infinite value, without the unchecked ones."""
        self._unchecked: list[Tensor] = []

    def add(self, loss: Loss) -> None:
        """Add the loss of a step."""
        self.steps += 1
        values = torch.stack([value.detach() for value in (*loss.parts.values(), loss.total)])
        if self.sums is None:
            self.names, self.sums, self.finite_steps = (
                (*loss.parts, "loss"),
                values.clone(),
                values.new_zeros(len(values)).long(),
            )
        else:
            self.sums += values
        self._unchecked.append(values)
        if len(self._unchecked) == _CHECKED_TOGETHER:
            self._check_steps()

    def _check_steps(self) -> None:
        """Count the finite steps among the unchecked ones; on the device, because a `bool` would wait for the step."""
        if not self._unchecked or self.finite_steps is None:
            return
        is_finite = torch.isfinite(torch.stack(self._unchecked))
        were_finite = self.finite_steps == self.steps - len(self._unchecked)
        self.finite_steps += were_finite * is_finite.long().cumprod(0).sum(0)
        self._unchecked = []

    def get_state(self) -> dict[str, Any]:
        """Return all that a resumed epoch needs, as tensors and plain data."""
        self._check_steps()
        return {"steps": self.steps, "names": self.names, "sums": self.sums, "finite_steps": self.finite_steps}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore a state from `get_state`."""
        self.steps, self.names = state["steps"], tuple(state["names"])
        self.sums, self.finite_steps = (
            None if state[key] is None else state[key].to(device) for key in ("sums", "finite_steps")
        )

    def compute(self) -> dict[str, float]:
        """Return the means by name.

        Raises:
            NonFiniteLoss: in some step a part was NaN or infinite.
        """
        self._check_steps()
        assert self.sums is not None, "an epoch has a step"
        assert self.finite_steps is not None
        # The first part in time is named: after a step with weights that are not finite, every part is not.
        finite_steps = dict(zip(self.names, self.finite_steps.tolist(), strict=True))
        first = min(finite_steps, key=finite_steps.__getitem__)
        if finite_steps[first] < self.steps:
            raise NonFiniteLoss(first, self.epoch, finite_steps[first] + 1)
        return {name: total / self.steps for name, total in zip(self.names, self.sums.tolist(), strict=True)}
