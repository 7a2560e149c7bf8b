"""Temperature of a contrastive term: a fixed number, one learned number, or one learned number per training sample.

A term inherits the settings from `TemperedTerm` and implements `evaluate_at`, its value at given temperatures; its functional
form takes `tau` as a number or a tensor. Learned temperatures are parameters of the module that `fit` returns, as their
logarithms, and are clipped to `BOUNDS` after each step.

Sources. learnable: Radford et al. (CLIP), ICML 2021, who learn one log temperature with the weights and keep it above
0.01. individual: Qiu et al. (iSogCLR), ICML 2023; code: github.com/Optimization-AI/LibAUC, `GCLoss_v1`.

A term whose loss grows with `1 / tau` for all representations, as ACCon's official form does, drives a learnable temperature
to its upper bound; the entropy keeps an individual one from it.
"""

import math
from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.frozen import Added, Frozen

Temperature = Literal["fixed", "learnable", "individual"]

Tau: TypeAlias = float | Float[Tensor, "*rows"]
"""One temperature for all rows (a number, or a tensor without dimensions), or one per row."""

BOUNDS = (0.01, 10.0)
"""Range of learned temperatures. CLIP: above 0.01; iSogCLR's code: 0.05 to 0.7."""


class TemperedTerm(Frozen):
    """Term with a temperature that can be learned."""

    tau: float = Field(gt=0)
    """Temperature, without unit; where it is learned, its starting value."""
    temperature: Temperature = "fixed"
    """fixed: `tau`; learnable: one parameter that starts there; individual: one per training sample, in the
    distributionally robust form of the loss, `compute_robust_sums`."""
    tau_learning_rate: float = Field(default=0.01, gt=0)
    """Learning rate of the logarithm of a learned temperature. iSogCLR's code: 0.01, of the temperature itself."""
    reads: Annotated[Literal["representation", "direction"], Added()] = "representation"
    """representation (z), as in the papers; direction: of the embedding, e / |e|, before the projection, if there is one."""
    rho: float = Field(default=0.3, ge=0)
    """individual: the Kullback-Leibler divergence, in nats, of the anchor's softmax from the uniform distribution at which
    its temperature rests: the larger, the colder. iSogCLR's code: 0.3, recommended 0.1 to 0.5."""

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return self.evaluate_at(inputs, self.tau)

    def evaluate_at(self, inputs: TermInputs, tau: Tau, *, rho: float | None = None) -> Float[Tensor, ""]:
        """Compute the term with `tau` in place of its own; with `rho`, in the distributionally robust form."""
        raise NotImplementedError

    def fit(self, labels: TrainingLabels) -> nn.Module | None:
        """Return the term with its learned temperatures, or None if the temperature is fixed."""
        if self.temperature == "fixed":
            return None
        if self.temperature == "learnable":
            return LearnableTemperature(self)
        return IndividualTemperatures(self, labels.num_samples)

    @model_validator(mode="after")
    def _check_tau_bounds(self) -> "TemperedTerm":
        low, high = BOUNDS
        if self.temperature != "fixed" and not low <= self.tau <= high:
            raise ValueError(
                f"tau must be within {low} and {high} with temperature {self.temperature!r}, got {self.tau}"
            )
        return self


class LearnableTemperature(nn.Module):
    """Term with one learned temperature."""

    def __init__(self, term: TemperedTerm) -> None:
        super().__init__()
        self.term = term
        self.learning_rate = term.tau_learning_rate
        self.log_tau = nn.Parameter(torch.tensor(math.log(term.tau)))

    def forward(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return self.term.evaluate_at(inputs, _clip_to_bounds(self.log_tau).exp())

    def values(self) -> dict[str, float]:
        """Return the temperature, for the record of an epoch."""
        return {"tau": _clip_to_bounds(self.log_tau).exp().item()}


class IndividualTemperatures(nn.Module):
    """Term with one learned temperature per training sample, which the rows of its views share.

    The robust loss is divided by the starting temperature, so that the term's weight has the same meaning as without.
    """

    def __init__(self, term: TemperedTerm, num_samples: int) -> None:
        super().__init__()
        self.term = term
        self.learning_rate = term.tau_learning_rate
        self.log_taus = nn.Parameter(torch.full((num_samples,), math.log(term.tau)))

    def forward(self, inputs: TermInputs) -> Float[Tensor, ""]:
        taus = _clip_to_bounds(self.log_taus)[inputs.samples].exp()
        return self.term.evaluate_at(inputs, taus, rho=self.term.rho) / self.term.tau

    def values(self) -> dict[str, float]:
        """Return the mean temperature, for the record of an epoch."""
        return {"tau": _clip_to_bounds(self.log_taus).exp().mean().item()}


def expand_temperatures(tau: Tau, rows: Float[Tensor, "rows *shape"]) -> Float[Tensor, " rows"]:
    """Return one temperature per row, in the rows' dtype and connected to `tau` where that is a tensor."""
    if isinstance(tau, Tensor):
        return tau.to(rows.dtype).expand(len(rows))
    return rows.new_full((len(rows),), tau)


def compute_robust_sums(
    sums: Float[Tensor, " anchors"],
    counts: Float[Tensor, " anchors"],
    taus: Float[Tensor, " anchors"],
    *,
    num_others: int | Float[Tensor, " anchors"],
    rho: float | None,
) -> Float[Tensor, " anchors"]:
    """Return an anchor's loss summed over its positives in iSogCLR's form: `tau_i (sum_i + |P_i| (rho - log n_i))`.

    With `sum_i = sum_{P_i} (log Z_i - s_ij / tau_i)` and `n_i` (`num_others`) summands in `Z_i`, a positive's share is
    `tau_i log( mean_k exp((s_ik - s_ij) / tau_i) ) + tau_i rho`: the largest mean of `s_ik - s_ij` over all weightings of
    the others, less `tau_i` times the excess of their divergence from the uniform weighting over `rho`. Without `rho` the
    sums are returned unchanged.

    Departures from iSogCLR: (1) the logarithm is that of the mini-batch mean; the paper's moving average of `Z_i` over the
    steps, which removes the bias of small batches, is left out; (2) `Z_i` is the term's own, which holds the positives too;
    (3) the term's optimizer replaces the momentum step on `tau_i`.
    """
    if rho is None:
        return sums
    # An anchor without others has no loss; the clamp only keeps its logarithm finite.
    # Filled on the device: a number that is copied there would make the host wait.
    others = num_others if isinstance(num_others, Tensor) else sums.new_full((), num_others)
    log_others = others.to(sums.dtype).clamp(min=1).log()
    return taus * (sums + counts * (rho - log_others))


def _clip_to_bounds(log_taus: Float[Tensor, "*samples"]) -> Float[Tensor, "*samples"]:
    # In place, so that the optimizer continues from the bound.
    with torch.no_grad():
        log_taus.clamp_(*(math.log(bound) for bound in BOUNDS))
    return log_taus
