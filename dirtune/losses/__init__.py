"""Regression losses and regularizer terms, and the two literal dicts that name them.

Each is a pure function plus a `Frozen` value that holds its hyperparameters and calls it. To add one: write its file,
add its line here.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.losses.accon import ACCon
from dirtune.losses.conr import ConR
from dirtune.losses.pointwise import L1, MSE, Huber
from dirtune.losses.supcon import SupCon

LOSSES = {"huber": Huber, "l1": L1, "mse": MSE}
TERMS = {"accon": ACCon, "conr": ConR, "supcon": SupCon}


class RegressionLoss(Protocol):
    """Maps predictions, labels and sample weights, each `(rows,)`, to a scalar."""

    def __call__(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor: ...


class Term(Protocol):
    """Maps `TermInputs` to an unweighted scalar; `weight` is its factor in the total loss."""

    @property
    def weight(self) -> float: ...

    def __call__(self, inputs: TermInputs) -> Tensor: ...
