"""Heads: predictors with several raw outputs, which a loss reads, and a decoder to one prediction, which all else reads.

    raw = head(read)                       (rows, outputs)
    prediction = scale * head.decode(raw)  (rows,), in the label's unit
    deviation = scale * head.decode_deviation(raw), or None

Terms, metrics, records, kept models and exports read the decoded prediction. All numbers of a head are in the unit of the
regression loss, the label's divided by `model.label_scale`; outputs that are labels themselves have `label_offset` added, so
that a loss compares them with the labels it is given. A loss names its head by its method `build_head`
(`dirtune.losses.RawLoss`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from dirtune import part_errors
from dirtune.label_transform import compute_bin_edges, transform_labels
from dirtune.manifest import LabelSpec, LabelTransform
from dirtune.signatures import describe_value

Distribution = Literal["normal", "laplace"]
"""Form of the distribution of a label around its prediction, with the head's deviation."""


@dataclass(frozen=True, kw_only=True)
class HeadLabels:
    """Training labels that a head is built for, as a histogram, in the unit of the regression loss."""

    centers: NDArray[np.float64]
    """Centers of the label bins."""
    counts: NDArray[np.int64]
    """Training labels in each bin."""
    offset: float = 0.0
    """`model.label_offset`."""

    @classmethod
    def from_histogram(
        cls,
        label: LabelSpec,
        counts: Sequence[int],
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        transform: LabelTransform = "none",
    ) -> "HeadLabels":
        """Return the labels of a histogram.

        Args:
            label: a label of one dimension and its bins.
            counts: training labels in each bin.
            scale: `model.label_scale`.
            offset: `model.label_offset`.
            transform: `model.label_transform`.
        """
        edges = compute_bin_edges(label)
        edges = transform_labels(np.minimum(edges, max(label.high, edges[1])), transform) / scale
        centers = (edges[:-1] + edges[1:]) / 2
        return cls(centers=centers, counts=np.asarray(counts, dtype=np.int64), offset=offset / scale)

    @property
    def mean(self) -> float:
        return float(np.average(self.centers, weights=self.counts))

    @property
    def variance(self) -> float:
        """Variance of the labels, at least that of labels spread over one bin."""
        width = float(np.diff(self.centers).mean()) if len(self.centers) > 1 else 1.0
        spread = float(np.average((self.centers - self.mean) ** 2, weights=self.counts))
        return max(spread, width**2 / 12)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Outputs of a head with one layer of their own."""

    size: int
    offset: float = 0.0
    """Number that is added to each of them."""
    bias: float | None = None
    """Bias at the start; None means torch's default."""
    deviation: float | None = None
    """Standard deviation of the weights at the start; None means torch's default."""
    learning_rate_factor: float = 1.0
    """Factor of the learning rate and its schedule."""
    hidden: int = 0
    """Size of a hidden layer with softplus; 0 means none."""
    is_detached: bool = False
    """True: the outputs train their layer alone, not what it reads."""


class Head(nn.Module):
    """Predictor with groups of outputs; a subclass implements `decode`."""

    distribution: Distribution | None = None
    """Form of the predicted distribution; None if `decode_deviation` returns None."""

    def __init__(self, read_dim: int, outputs: dict[str, Outputs]) -> None:
        super().__init__()
        self.outputs = outputs
        self.layers = nn.ModuleDict()
        for name, each in outputs.items():
            last = nn.Linear(each.hidden or read_dim, each.size)
            layer = nn.Sequential(nn.Linear(read_dim, each.hidden), nn.Softplus(), last) if each.hidden else last
            # Read by the optimizer (`dirtune.training.stages.build_optimizer`)
            layer.learning_rate_factor = each.learning_rate_factor  # type: ignore[assignment]
            self.layers[name] = layer
        self.reset_parameters()

    @property
    def weight(self) -> Tensor:
        """Weights of the first layer, as a linear predictor has them."""
        return next(parameter for parameter in self.parameters() if parameter.ndim == 2)

    def reset_parameters(self) -> None:
        """Initialize all layers from torch's global random stream."""
        for name, each in self.outputs.items():
            linear = [layer for layer in self.layers[name].modules() if isinstance(layer, nn.Linear)]
            for layer in linear:
                layer.reset_parameters()
            if each.deviation is not None:
                nn.init.normal_(linear[-1].weight, std=each.deviation)
            if each.bias is not None:
                nn.init.constant_(linear[-1].bias, each.bias)

    def make_parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return groups for an optimizer, one per layer, each with its share of a learning rate; for loops of one's own."""
        return [
            {"params": list(layer.parameters()), "lr": self.outputs[name].learning_rate_factor * learning_rate}
            for name, layer in self.layers.items()
        ]

    def forward(self, read: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows outputs"]:
        """Return the raw outputs, in at least float32."""
        parts = []
        for name, each in self.outputs.items():
            raw: Tensor = self.layers[name](read.detach() if each.is_detached else read)
            parts.append(raw.to(torch.promote_types(raw.dtype, torch.float32)) + each.offset)
        return torch.cat(parts, dim=-1)

    def split(self, raw: Float[Tensor, "rows outputs"]) -> dict[str, Float[Tensor, "rows size"]]:
        """Return raw outputs by group."""
        sizes = [each.size for each in self.outputs.values()]
        return dict(zip(self.outputs, raw.split(sizes, dim=-1), strict=True))

    def decode(self, raw: Float[Tensor, "rows outputs"]) -> Float[Tensor, " rows"]:
        """Return one prediction per row, in the unit of the regression loss."""
        raise NotImplementedError

    def decode_deviation(self, raw: Float[Tensor, "rows outputs"]) -> Float[Tensor, " rows"] | None:
        """Return the standard deviation of each row's label, in the unit of the regression loss; None if there is none."""
        return None


def build_head(loss: Any, read_dim: int, labels: HeadLabels) -> Head:
    """Return the head of a loss with a method `build_head` (`dirtune.losses.RawLoss`).

    Raises:
        InputError: the loss of a plug-in raises, or builds something else, or a head that does not decode its outputs.
    """
    with part_errors.name_part("loss", loss.name, loss):
        head = loss.build_head(read_dim, labels)
    if not isinstance(head, Head):
        rule = "`build_head` must return a dirtune.models.heads.Head"
        raise part_errors.make_part_error("loss", loss.name, loss, rule, describe_value(head))
    # Two rows: a prediction of shape (1,) or () would be right for one.
    with torch.no_grad(), part_errors.name_part("loss", loss.name, loss):
        raw = head(torch.zeros(2, read_dim))
        decoded: dict[str, Tensor | None] = {"prediction": head.decode(raw)}
        if head.distribution is not None:
            decoded["standard deviation"] = head.decode_deviation(raw)
    for what, values in decoded.items():
        if not isinstance(values, Tensor) or values.shape != (2,):
            got = describe_value(values)
            if isinstance(values, Tensor):
                got = f"a tensor of shape {tuple(values.shape)}"
            rule = f"its head must decode one {what} per row, a tensor of shape (rows,)"
            raise part_errors.make_part_error("loss", loss.name, loss, rule, f"{got} for 2 rows")
    return head


class TargetCopies(Head):
    """Several copies of the label, each with the regression loss; the prediction is their mean.

    Source: Zhang et al., "Improving Deep Regression with Tightness", ICLR 2025 ("multiple targets"); it is not in their code.

    Args:
        read_dim: size of what the head reads.
        copies: of the label.
        offset: `model.label_offset`, in the unit of the regression loss.
    """

    def __init__(self, read_dim: int, copies: int, offset: float = 0.0) -> None:
        super().__init__(read_dim, {"prediction": Outputs(size=copies, offset=offset)})

    def decode(self, raw: Float[Tensor, "rows copies"]) -> Float[Tensor, " rows"]:
        """Return the mean of the copies."""
        return raw.mean(dim=-1)


def invert_softplus(value: float) -> float:
    """Return the number whose softplus is a positive value."""
    # log(exp(value) - 1), without overflow
    return value + math.log(-math.expm1(-value))
