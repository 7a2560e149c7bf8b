"""Regression losses and regularizer terms, and the two literal dicts that name them.

Each is a `Frozen` value that holds its hyperparameters and is called; a term's formula is a pure function in the same file.
A loss of single errors is a `PointLoss`, which implements the loss of a residual. To add one: write its file, add its line
here. A loss or term that is fitted to the training labels, or that has parameters of its own, has a method `fit`
(`Fittable`) and is called through the module that `fit` returns.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.losses.accon import ACCon
from dirtune.losses.acconr import ACConR
from dirtune.losses.adasupcon import AdaSupCon
from dirtune.losses.balanced_mse import BMC, BNI, GAI
from dirtune.losses.conr import ConR
from dirtune.losses.focal import FocalL1, FocalMSE
from dirtune.losses.multi_similarity import MultiSimilarity
from dirtune.losses.ordinal_entropy import OrdinalEntropy
from dirtune.losses.pointwise import L1, MSE, Huber
from dirtune.losses.ranksim import RankSim
from dirtune.losses.rnc import RnC
from dirtune.losses.supcon import SupCon
from dirtune.losses.tukey import Tukey

LOSSES = {
    "bmc": BMC,
    "bni": BNI,
    "focal_l1": FocalL1,
    "focal_mse": FocalMSE,
    "gai": GAI,
    "huber": Huber,
    "l1": L1,
    "mse": MSE,
    "tukey": Tukey,
}
TERMS = {
    "accon": ACCon,
    "acconr": ACConR,
    "adasupcon": AdaSupCon,
    "conr": ConR,
    "multi_similarity": MultiSimilarity,
    "ordinal_entropy": OrdinalEntropy,
    "ranksim": RankSim,
    "rnc": RnC,
    "supcon": SupCon,
}


class RegressionLoss(Protocol):
    """Map of predictions, labels and sample weights, each `(rows,)`, to a scalar."""

    def __call__(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor: ...


class Term(Protocol):
    """Map of `TermInputs` to an unweighted scalar; `weight` is its factor in the total loss.

    Its input is the representation z, L2-normalized, unless its attribute `reads` is "embedding": e, or "direction":
    e / |e|.
    """

    @property
    def weight(self) -> float: ...

    def __call__(self, inputs: TermInputs) -> Tensor: ...


@runtime_checkable
class Fittable(Protocol):
    """Loss or term with a state of its own."""

    def fit(self, labels: TrainingLabels) -> nn.Module | None:
        """Return a module with the call of the loss or term, or None if these settings need no state.

        Its parameters are trained together with the regressor, with the constant rate `learning_rate`, an attribute that
        the module then must have, and without weight decay.
        """
        ...
