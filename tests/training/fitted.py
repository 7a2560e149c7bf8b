"""A loss and a term with a state of their own, small enough that their steps can be taken by hand."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.frozen import Frozen

SIGMA_RATE, CENTER_RATE = 0.05, 0.2


class Gaussian(Frozen):
    """`mean_i w_i (e_i^2 / (2 sigma^2) + log sigma)` with a learned `sigma` that starts as the labels' deviation."""

    def fit(self, labels: TrainingLabels) -> GaussianLoss:
        return GaussianLoss(float(labels.labels.std()) / labels.label_scale)

    def __call__(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        raise AssertionError("what fit returned is called instead")


class GaussianLoss(nn.Module):
    learning_rate = SIGMA_RATE

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor(sigma, dtype=torch.float64))

    def forward(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        errors = (predictions - labels).square()
        return (weights * (errors / (2 * self.sigma**2) + self.sigma.log())).mean()

    def values(self) -> dict[str, float]:
        return {"sigma": self.sigma.item()}


class Center(Frozen):
    """`mean |e - c|^2` over the rows, `e` the embedding and `c` a learned coordinate per training sample."""

    reads: ClassVar[str] = "embedding"
    weight: float = 0.1

    def fit(self, labels: TrainingLabels) -> CenterTerm:
        return CenterTerm(labels.num_samples)

    def __call__(self, inputs: TermInputs) -> Tensor:
        raise AssertionError("what fit returned is called instead")


class CenterTerm(nn.Module):
    learning_rate = CENTER_RATE

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.linspace(0, 1, samples, dtype=torch.float64))

    def forward(self, inputs: TermInputs) -> Tensor:
        away = inputs.representations - self.centers[inputs.samples, None]
        return away.square().mean()


class Flat(Frozen):
    """A loss whose settings need no state."""

    def fit(self, labels: TrainingLabels) -> None:
        return None

    def __call__(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (predictions - labels).abs().mean()


class CenterAlone(Frozen):
    """Terms of which one is active."""

    def get_active(self) -> dict[str, Center]:
        return {"center": Center()}


def with_state(config: TrialConfig) -> TrialConfig:
    """The configuration with this loss and this term."""
    return config.model_copy(update={"loss": Gaussian(), "terms": CenterAlone()})
