"""Regression losses and regularizer terms, and the two registries that name them.

Each is a `Frozen` value that holds its hyperparameters and is called; a term's formula is a pure function in the same file.
A loss of single errors is a `PointLoss`, which implements the loss of a residual. To add one: write its file, add its line
here; from outside of the package, see `dirtune.plugins`. A loss or term that is fitted to the training labels, or that has
parameters of its own, has a method `fit` (`Fittable`) and is called through the module that `fit` returns. One that has no
form under some conditions names them in an attribute `needs` (`dirtune.losses.needs`).
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from dirtune.batch import EvaluatedRows, TermInputs, TrainingLabels
from dirtune.losses import (
    accon,
    acconr,
    adasupcon,
    balanced_mse,
    ccc,
    conr,
    dist_loss,
    focal,
    group_dir,
    hca,
    likelihood,
    multi_similarity,
    ordinal_entropy,
    phreg,
    pointwise,
    prime,
    ranksim,
    rnc,
    rotreg,
    srl,
    supcon,
    supremix,
    tukey,
    uvote,
    vir,
)
from dirtune.models.heads import Head, HeadLabels
from dirtune.registry import Registry

LOSSES = Registry(
    "loss",
    {
        "beta_nll": likelihood.BetaNLL,
        "bmc": balanced_mse.BMC,
        "bni": balanced_mse.BNI,
        "ccc": ccc.CCC,
        "dist": dist_loss.DistLoss,
        "evidential": likelihood.Evidential,
        "focal_l1": focal.FocalL1,
        "focal_mse": focal.FocalMSE,
        "gai": balanced_mse.GAI,
        "gaussian_nll": likelihood.GaussianNLL,
        "group_dir": group_dir.GroupDIR,
        "hca": hca.HCA,
        "huber": pointwise.Huber,
        "l1": pointwise.L1,
        "laplace_nll": likelihood.LaplaceNLL,
        "mse": pointwise.MSE,
        "tukey": tukey.Tukey,
        "uvote": uvote.UVOTE,
        "vir_head": vir.VIRHead,
    },
)
TERMS = Registry(
    "term",
    {
        "accon": accon.ACCon,
        "acconr": acconr.ACConR,
        "adasupcon": adasupcon.AdaSupCon,
        "conr": conr.ConR,
        "group_rnc": group_dir.GroupRnC,
        "multi_similarity": multi_similarity.MultiSimilarity,
        "ordinal_entropy": ordinal_entropy.OrdinalEntropy,
        "phreg": phreg.PHReg,
        "prime": prime.PRIME,
        "ranksim": ranksim.RankSim,
        "rnc": rnc.RnC,
        "rotreg": rotreg.ROTReg,
        "srl": srl.SRL,
        "supcon": supcon.SupCon,
        "supremix": supremix.SupReMix,
    },
)


class RegressionLoss(Protocol):
    """Map of predictions, labels and sample weights, each `(rows,)`, to a scalar."""

    def __call__(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor: ...


@runtime_checkable
class RawLoss(Protocol):
    """Regression loss of the raw outputs `(rows, outputs)` of a head of its own, for labels of one dimension.

    If its attribute `reads_bins` is true, it is called with the label bins of the rows as well, `label_bins=...`.
    """

    @property
    def head(self) -> str:
        """Name of the head; a second stage may have another loss with an equal one."""
        ...

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the head for inputs of this size and these training labels, initialized from torch's global stream."""
        ...


def get_head(loss: object) -> str | None:
    """Return the name of the head that a loss reads; None for a loss of predictions."""
    return loss.head if isinstance(loss, RawLoss) else None


class Term(Protocol):
    """Map of `TermInputs` to an unweighted scalar; `weight` is its factor in the total loss.

    Its input is the representation z, L2-normalized, unless its attribute `reads` is "embedding": e, or "direction":
    e / |e|.
    """

    @property
    def weight(self) -> float: ...

    def __call__(self, inputs: TermInputs) -> Tensor: ...


@runtime_checkable
class EpochAware(Protocol):
    """Module of a fitted loss or term that gets the number of each epoch before its first step."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare for an epoch of the stage, counted from 0, of this many; called again when a run resumes."""
        ...


@runtime_checkable
class Fittable(Protocol):
    """Loss or term with a state of its own."""

    def fit(self, labels: TrainingLabels) -> nn.Module | None:
        """Return a module with the call of the loss or term, or None if these settings need no state.

        Its parameters are trained together with the regressor, with the constant rate `learning_rate`, an attribute that
        the module then must have, and without weight decay.
        """
        ...


@runtime_checkable
class Statistics(Protocol):
    """Statistics of rows: tensors whose shapes do not depend on the rows, in the order of the class's arguments; sums are of both."""

    def __add__(self, other: Any) -> Any: ...

    def __iter__(self) -> Iterator[Tensor]: ...


@runtime_checkable
class EndsEpochs(Protocol):
    """Module of a fitted loss or term that is given statistics of all training rows at the end of every pass over them.

    The rows are evaluated as in a validation and read what the loss or term reads; statistics of batches and of ranks are
    added up. What `end_epoch` keeps must be in buffers, so that checkpoints have it.
    """

    def make_empty_statistics(self) -> Statistics:
        """Return those of no row."""
        ...

    def compute_statistics(self, rows: EvaluatedRows) -> Statistics:
        """Return those of some rows."""
        ...

    def end_epoch(self, statistics: Any) -> None:
        """Update the state by the statistics of all rows."""
        ...
