"""ROT-Reg: matches the optimal transport within a batch's features to the transport within its labels.

Zhang, Yan and Yao, "Improving Deep Regression with Tightness", ICLR 2025 (arXiv 2502.09122). Official code:
github.com/needylove/Regression_tightness, function `TOT`. Self-transport plans with entropy are computed for distances of
labels and of features; the term is the difference of their costs in features.

Departures: (1) Sinkhorn's iterations run on logarithms and in float64, where the code's exponentials underflow at costs above 7.4
in float32; they are the same iterations. (2) Their gradient is computed by iterating backwards, so that memory is quadratic in
the rows whatever the number of iterations. (3) Without two distinct labels the term is 0; there labels are then transported at
random. (4) Rows are drawn by sample, with all views, from the step's seed.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses import draws, pairs
from dirtune.losses.needs import Needs

PlanGradient = Literal["unrolled", "envelope"]

_LEAST = 1e-6
"""Smallest distance, as in the code."""
_APART = 999.0
"""Cost of a row's transport to itself, as in the code."""
_STOP = 1e-9
_CHECKED_EVERY = 10
_MOST_ITERATIONS = 1000


class ROTReg(Frozen):
    """ROT-Reg: equal transport within features and within labels (Zhang et al., ICLR 2025); formula: `rotreg`."""

    needs: ClassVar[Needs] = Needs(samples=4)
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. The code names 100 for AgeDB."""
    rows: int = Field(default=200, ge=4)
    """Largest number of rows that are compared; more are drawn from, without replacement, in each step. Official: 200."""
    entropy: float = Field(default=0.1, gt=0)
    """Weight of the plans' entropy, in units of the mean length of the features. Official: 0.1."""
    plan_gradient: PlanGradient = "unrolled"
    """unrolled: the gradient flows through the iterations of the features' plan, as in the code; envelope: the plan is held
    constant, which leaves out the part of the entropy and takes half of the time."""
    reads: Literal["representation", "embedding"] = "embedding"
    """Input of the term: embedding (e), as in the code; representation (z)."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return rotreg(
            inputs.representations,
            inputs.labels,
            draws.select_rows(inputs, self.rows, "rotreg"),
            entropy=self.entropy,
            plan_gradient=self.plan_gradient,
        )


def rotreg(
    embeddings: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    drawn: Int[Tensor, " drawn"],
    *,
    entropy: float,
    plan_gradient: PlanGradient = "unrolled",
) -> Float[Tensor, ""]:
    """Return `| sum D T_y - sum D T_z |` over the drawn rows; 0 for fewer than two distinct labels.

    D has the distances of features `e_i / mean_j |e_j|`, the mean over all rows, and `T_z` is their transport plan; `T_y` is that
    of label distances divided by the largest. Both have uniform marginals, and no row is transported to itself.
    """
    with pairs.full_precision(embeddings) as e:
        gaps = pairs.distance_matrix(labels[drawn].double()).clamp(min=_LEAST)
        if len(drawn) < 2:
            return (e * 0.0).sum()
        wide = e.double()
        lengths = torch.linalg.vector_norm(wide, dim=1)
        # All features zero: their distances are the smallest one, without a gradient.
        scale = lengths.mean()
        vectors = wide[drawn] / torch.where(scale > 0, scale, 1.0)
        distances = pairs.euclidean_matrix(vectors).clamp(min=_LEAST)
        costs = distances.detach() if plan_gradient == "envelope" else distances
        by_labels, by_features = compute_plans(gaps / gaps.max(), costs, entropy=entropy)
        difference = ((distances * by_labels).sum() - (distances * by_features).sum()).abs()
        # The smallest gap that two distinct labels of a float32 have is far above the least.
        return torch.where(gaps.max() > _LEAST, difference, 0.0).to(e.dtype)


def compute_plans(*costs: Float[Tensor, "rows rows"], entropy: float) -> list[Float[Tensor, "rows rows"]]:
    """Return the plans of least `sum costs T - entropy H(T)` with marginals `1 / rows`, without transport to oneself.

    Each is the one of POT's `sinkhorn`: iterations from uniform scalings, until the column marginals are off by less than 1e-9,
    looked at in every tenth, or 1,000 of them.
    """
    off_diagonal = torch.eye(len(costs[0]), dtype=torch.bool, device=costs[0].device).logical_not_()
    plans = []
    kernels = [torch.where(off_diagonal, each, _APART) / -entropy for each in costs]
    for logits, (row_steps, column_steps) in zip(kernels, _iterate([each.detach() for each in kernels]), strict=True):
        log_rows, log_columns = _Sinkhorn.apply(logits, row_steps, column_steps)
        plans.append((logits + log_rows[:, None] + log_columns).exp())
    return plans


def _iterate(kernels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return for each kernel the logarithms of the scalings of rows, from the start, and of columns, in each iteration."""
    log_share = -math.log(len(kernels[0]))
    row_steps = [[logits.new_full((len(logits),), log_share)] for logits in kernels]
    column_steps: list[list[Tensor]] = [[] for _ in kernels]
    running = list(range(len(kernels)))
    for iteration in range(_MOST_ITERATIONS):
        for number in running:
            logits, log_rows, log_columns = kernels[number], row_steps[number], column_steps[number]
            log_columns.append(log_share - torch.logsumexp(logits + log_rows[-1][:, None], dim=0))
            log_rows.append(log_share - torch.logsumexp(logits + log_columns[-1], dim=1))
        if iteration % _CHECKED_EVERY:
            continue
        deviations = []
        for number in running:
            sums = torch.logsumexp(kernels[number] + row_steps[number][-1][:, None], dim=0)
            marginals = (sums + column_steps[number][-1]).exp()
            deviations.append(torch.linalg.vector_norm(marginals - math.exp(log_share)))
        # The host waits for a GPU here, once for all: iterations in vain would take it longer.
        found = zip(running, torch.stack(deviations).tolist(), strict=True)
        # Of NaN, which is not above it either, no iteration makes numbers.
        running = [number for number, deviation in found if deviation >= _STOP]
        if not running:
            break
    return [(torch.stack(rows), torch.stack(columns)) for rows, columns in zip(row_steps, column_steps, strict=True)]


class _Sinkhorn(torch.autograd.Function):
    """Logarithms of the scalings of rows and columns after the iterations; the backward pass takes these one by one."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, row_steps: Tensor, column_steps: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, row_steps, column_steps)
        return row_steps[-1].clone(), column_steps[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_rows: Tensor, of_columns: Tensor) -> tuple[Tensor, None, None]:
        logits, log_rows, log_columns = ctx.saved_tensors
        total = torch.zeros_like(logits)
        of_rows, of_columns, rows = of_rows.clone(), of_columns.clone(), len(logits)
        for last in range(len(log_columns) - 1, -1, -1):
            # Shares of the logarithms of sums, whose sums are one along columns and then along rows
            shares = (logits + log_columns[last] + log_rows[last + 1][:, None]).exp_().mul_(rows)
            total.addcmul_(shares, of_rows[:, None], value=-1)
            of_columns = of_columns - of_rows @ shares
            shares = (logits + log_columns[last] + log_rows[last][:, None]).exp_().mul_(rows)
            total.addcmul_(shares, of_columns, value=-1)
            of_rows, of_columns = -(shares @ of_columns), torch.zeros_like(of_columns)
        return total, None, None
