"""Losses and terms as torch modules that are called with tensors, with what a data set would give as keywords."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dirtune import losses
from dirtune.batch import TermInputs, TrainingLabels
from dirtune.errors import Fault, InputError
from dirtune.frozen import read
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
    multi_similarity,
    ordinal_entropy,
    phreg,
    pointwise,
    ranksim,
    rnc,
    rotreg,
    supcon,
    supremix,
    tukey,
)
from dirtune.models.regressor import normalize_rows
from dirtune.reweighting.labels import LabelBins, to_numbers

_HINTS = {
    "predictions": "pass `predictions=...`, in the label's unit",
    "label_range": "create it with `label_range=...`, the width of the labels' range, or with `bins=LabelBins.from_labels(...)`",
    "samples": "pass `samples=...`, the position of each row in the training set",
}


class _NoSizes(dict[str, int]):
    """Sizes of a model's vectors, which a module does not know."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def __missing__(self, kind: str) -> int:
        rule = "reads the size of a model's vectors, which a module does not know; use it in a study"
        raise InputError(Fault(where=self.where, rule=rule))


@dataclass(frozen=True, kw_only=True)
class _CallInputs(TermInputs):
    """Inputs of a call, in which what was not given raises when a term reads it."""

    term: str
    missing: frozenset[str]

    def __getattribute__(self, name: str) -> Any:
        if name in _HINTS and name in object.__getattribute__(self, "missing"):
            raise InputError(Fault(where=self.term, rule=f"the term reads {name}: {_HINTS[name]}"))
        return object.__getattribute__(self, name)


class TermModule(nn.Module):
    """A regularizer term, called with embeddings and labels.

    The module does not multiply by the term's weight in the total loss, `module.weight`.

    Args:
        term: the term as a value, for one of a plug-in; the named classes of this module make their own.
        bins: label bins; None means that equal labels are one bin.
        label_range: width of the labels' range; None means that of `bins`.
        training_labels: of all training samples, for terms that are fitted to them.
    """

    def __init__(
        self,
        term: Any,
        *,
        bins: LabelBins | None = None,
        label_range: float | None = None,
        training_labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.term, self.bins = term, bins
        self.label_range = bins.spec.label_range if label_range is None and bins is not None else label_range
        self.fitted = _fit(term, training_labels, bins)
        self.calls = 0
        """Number of calls, of which random draws of the term depend."""

    @property
    def weight(self) -> float:
        """Factor of the term in the total loss of a study."""
        return float(self.term.weight)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        predictions: Tensor | None = None,
        weights: Tensor | None = None,
        samples: Tensor | None = None,
        num_views: int = 1,
    ) -> Tensor:
        """Return the term of a batch, a scalar.

        Args:
            embeddings: `(rows, dim)`, of any length: a term that reads directions normalizes them.
            labels: `(rows,)`, or `(rows, L)` for labels of several dimensions.
            predictions: in the label's unit, for terms that compare them; they get no gradient.
            weights: sample weights; None means all are one.
            samples: position of each row in the training set; None means that every row is a sample of its own.
            num_views: several views of each sample are stacked view-major.

        Raises:
            InputError: the rows do not fit together, or the term reads something that is not given.
        """
        rows, where = len(embeddings), type(self.term).__name__
        given = {"labels": labels, "predictions": predictions, "weights": weights, "samples": samples}
        if embeddings.ndim != 2:
            raise InputError(
                Fault(
                    where=where, key="embeddings", rule="must have the shape (rows, dim)", got=tuple(embeddings.shape)
                )
            )
        for name, value in given.items():
            if value is not None and len(value) != rows:
                raise InputError(
                    Fault(where=where, key=name, rule=f"must have {rows} rows, as the embeddings", got=len(value))
                )
        is_individual = getattr(self.term, "temperature", "fixed") == "individual"
        missing = {
            "predictions": predictions is None,
            "label_range": self.label_range is None,
            # Rows of a batch are no positions in the training set.
            "samples": samples is None and is_individual,
        }
        reads = getattr(self.term, "reads", "representation")
        self.calls += 1
        inputs = _CallInputs(
            representations=embeddings if reads == "embedding" else normalize_rows(embeddings),
            labels=labels if labels.is_floating_point() else labels.to(embeddings.dtype),
            label_bins=self._find_bins(labels),
            predictions=torch.zeros_like(labels) if predictions is None else predictions.detach(),
            weights=embeddings.new_ones(rows) if weights is None else weights,
            samples=torch.arange(rows, device=embeddings.device) % (rows // num_views) if samples is None else samples,
            num_views=num_views,
            label_range=0.0 if self.label_range is None else self.label_range,
            draw_seed=self.calls,
            term=where,
            missing=frozenset(name for name, is_missing in missing.items() if is_missing),
        )
        result: Tensor = (self.fitted or self.term)(inputs)
        return result

    def extra_repr(self) -> str:
        """Return the settings, for `print`."""
        return repr(self.term)

    def _find_bins(self, labels: Tensor) -> Tensor:
        if self.bins is None:
            _, classes = labels.unique(return_inverse=True, dim=0)
            return torch.as_tensor(classes)
        return torch.as_tensor(self.bins.find_bins(labels))


class LossModule(nn.Module):
    """A regression loss, called with predictions and labels of one unit, and perhaps sample weights.

    Args:
        loss: the loss as a value, for one of a plug-in.
        bins: label bins of losses that are fitted to a histogram.
        training_labels: of all training samples, for losses that are fitted to them.
    """

    def __init__(self, loss: Any, *, bins: LabelBins | None = None, training_labels: Tensor | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.fitted = _fit(loss, training_labels, bins)

    def forward(self, predictions: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss of a batch, a scalar.

        Raises:
            InputError: predictions and labels have different shapes, which would be broadcast against each other.
        """
        if predictions.shape != labels.shape:
            rule = f"must have the labels' shape {tuple(labels.shape)}"
            raise InputError(
                Fault(where=type(self.loss).__name__, key="predictions", rule=rule, got=tuple(predictions.shape))
            )
        result: Tensor = (self.fitted or self.loss)(predictions, labels, weights)
        return result

    def extra_repr(self) -> str:
        """Return the settings, for `print`."""
        return repr(self.loss)


def _fit(part: Any, labels: Tensor | None, bins: LabelBins | None) -> nn.Module | None:
    """Return a part's module with a state of its own, or None if its settings need none."""
    if not isinstance(part, losses.Fittable):
        return None
    if labels is None:
        # Learned temperatures and noises, which read no label
        reads_nothing = isinstance(part, balanced_mse.BMC) or getattr(part, "temperature", None) in {
            "fixed",
            "learnable",
        }
        if not reads_nothing:
            rule = "is fitted to the training labels: create it with `training_labels=...`"
            raise InputError(Fault(where=type(part).__name__, rule=rule))
        labels = torch.tensor([0.0, 1.0])
    labels = torch.as_tensor(labels)
    labels = labels if labels.is_floating_point() else labels.float()
    bins = bins or LabelBins.from_labels(to_numbers(labels))
    sizes = _NoSizes(type(part).__name__)
    return part.fit(TrainingLabels(labels=labels, label_bins=bins.find_bins(labels), spec=bins.spec, dims=sizes))


def _make_term(settings: type[Any]) -> type[TermModule]:
    class Named(TermModule):
        def __init__(
            self,
            *,
            bins: LabelBins | None = None,
            label_range: float | None = None,
            training_labels: Tensor | None = None,
            **values: Any,
        ) -> None:
            term = _read_settings(settings, values)
            super().__init__(term, bins=bins, label_range=label_range, training_labels=training_labels)

    _name(Named, settings)
    return Named


def _make_loss(settings: type[Any]) -> type[LossModule]:
    class Named(LossModule):
        def __init__(
            self, *, bins: LabelBins | None = None, training_labels: Tensor | None = None, **values: Any
        ) -> None:
            super().__init__(_read_settings(settings, values), bins=bins, training_labels=training_labels)

    _name(Named, settings)
    return Named


def _read_settings(settings: type[Any], values: dict[str, Any]) -> Any:
    return read(settings, values, where=settings.__name__)


def _name(module: type[nn.Module], settings: type[Any]) -> None:
    """Name a module as its settings, with their documentation."""
    module.__name__ = module.__qualname__ = settings.__name__
    names = ", ".join(settings.model_fields)
    module.__doc__ = f"{settings.__doc__}\n\nKeywords: {names}; and those of `{module.__mro__[1].__name__}`."
    module.__module__ = __name__


ACCon = _make_term(accon.ACCon)
ACConR = _make_term(acconr.ACConR)
AdaSupCon = _make_term(adasupcon.AdaSupCon)
ConR = _make_term(conr.ConR)
GroupRnC = _make_term(group_dir.GroupRnC)
MultiSimilarity = _make_term(multi_similarity.MultiSimilarity)
OrdinalEntropy = _make_term(ordinal_entropy.OrdinalEntropy)
PHReg = _make_term(phreg.PHReg)
RankSim = _make_term(ranksim.RankSim)
RnC = _make_term(rnc.RnC)
ROTReg = _make_term(rotreg.ROTReg)
SupCon = _make_term(supcon.SupCon)
SupReMix = _make_term(supremix.SupReMix)

BMC = _make_loss(balanced_mse.BMC)
BNI = _make_loss(balanced_mse.BNI)
CCC = _make_loss(ccc.CCC)
DistLoss = _make_loss(dist_loss.DistLoss)
FocalL1 = _make_loss(focal.FocalL1)
FocalMSE = _make_loss(focal.FocalMSE)
GAI = _make_loss(balanced_mse.GAI)
Huber = _make_loss(pointwise.Huber)
L1 = _make_loss(pointwise.L1)
MSE = _make_loss(pointwise.MSE)
Tukey = _make_loss(tukey.Tukey)
