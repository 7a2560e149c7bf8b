"""Losses and terms as torch modules that are called with tensors, with what a data set would give as keywords."""

import inspect
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dirtune import losses
from dirtune.batch import EvaluatedRows, TermInputs, TrainingLabels
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read
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
from dirtune.losses.needs import Needs
from dirtune.losses.pairs import normalize_rows
from dirtune.models.heads import Head, HeadLabels
from dirtune.nn.checks import check_finite, check_floating, check_integer, check_shape, check_tensors
from dirtune.reweighting.labels import BINS_RULE, LabelBins, to_numbers
from dirtune.signatures import is_instance

_HINTS = {
    "predictions": "pass `predictions=...`, in the label's unit",
    "label_range": "create it with `label_range=...`, the width of the labels' range, or with `bins=LabelBins.from_labels(...)`",
    "samples": "pass `samples=...`, the position of each row in the training set",
    "label_scale": (
        "it is that of a study's model; pass labels, and predictions divided by it, both rounded to tenths, to ConR's variant "
        "'official'"
    ),
}
_UNDRAWN = -1
"""Seed that is drawn from torch's generator when a term reads it."""
_EPOCHS_WITHOUT_END = 2
"""Passes over the training set after which a missing `end_epoch` is a mistake."""


@dataclass(frozen=True, kw_only=True)
class _CallInputs(TermInputs):
    """Inputs of a call, in which what was not given raises when a term reads it."""

    term: str
    missing: frozenset[str]

    def __getattribute__(self, name: str) -> Any:
        if name in _HINTS and name in object.__getattribute__(self, "missing"):
            raise InputError(Fault(where=self.term, rule=f"the term reads {name}: {_HINTS[name]}"))
        if name == "draw_seed" and object.__getattribute__(self, name) == _UNDRAWN:
            object.__setattr__(self, name, int(torch.randint(2**62, (), device="cpu")))
        return object.__getattribute__(self, name)


class _Dims(dict[str, int]):
    """Sizes of the vectors that a term reads, which raise if they were not given."""

    def __init__(self, where: str, embedding_dim: int | None) -> None:
        kinds = () if embedding_dim is None else ("representation", "embedding", "direction")
        super().__init__(dict.fromkeys(kinds, embedding_dim or 0))
        self.where = where

    def __missing__(self, name: str) -> int:
        rule = "has vectors of its own: create it with `embedding_dim=...`, the length of the embeddings"
        raise InputError(Fault(where=self.where, rule=rule))


class PartModule(nn.Module):
    """Common part of `TermModule` and `LossModule`: the label bins, and the state that is fitted to the training labels."""

    fitted: nn.Module | None

    def __init__(
        self,
        part: Any,
        *,
        bins: LabelBins | None,
        training_labels: Tensor | None,
        training_weights: Tensor | None = None,
        embedding_dim: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.where, self.needs = type(part).__name__, getattr(part, "needs", Needs())
        if bins is not None and not isinstance(bins, LabelBins):
            raise InputError(Fault(where=self.where, key="bins", rule=BINS_RULE, got=type(bins).__name__))
        check_integer(self.where, "embedding_dim", embedding_dim, least=1)
        check_integer(self.where, "seed", seed)
        if bins is not None and bins.spec.num_bins < self.needs.label_bins:
            rule = f"needs {self.needs.label_bins} label bins; make them narrower"
            raise InputError(Fault(where=self.where, key="bins", rule=rule, got=bins.spec.num_bins))
        labels = None if training_labels is None else self._read_training_labels(training_labels, bins)
        sample_weights = None if training_weights is None else self._read_weights(training_weights, labels)
        self.embedding_dim = embedding_dim
        self.num_samples = None if labels is None else len(labels)
        self.fitted = None
        if isinstance(part, losses.Fittable):
            if labels is None:
                _check_reads_no_labels(part)
                labels = torch.tensor([0.0, 1.0])
            labels = labels if labels.is_floating_point() else labels.float()
            known = bins or LabelBins.from_labels(to_numbers(labels))
            self.fitted = part.fit(
                TrainingLabels(
                    labels=labels,
                    label_bins=known.find_bins(labels),
                    spec=known.spec,
                    weights=sample_weights,
                    seed=torch.initial_seed() if seed is None else seed,
                    dims=_Dims(self.where, embedding_dim),
                )
            )
            # The state belongs to these bins.
            if self.fitted is not None and training_labels is not None:
                bins = known
        self.bins = bins
        self._waits_for_epoch = isinstance(self.fitted, losses.EpochAware)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the epoch, counted from 0, of this many: needed by losses that change over the epochs, allowed for all.

        Raises:
            InputError: there is no such epoch.
        """
        check_integer(self.where, "epoch", epoch)
        check_integer(self.where, "epochs", epochs, least=1)
        if not 0 <= epoch < epochs:
            raise InputError(Fault(where=self.where, key="epoch", rule=f"must be within 0 and {epochs - 1}", got=epoch))
        if isinstance(self.fitted, losses.EpochAware):
            self.fitted.begin_epoch(epoch, epochs)
            self._waits_for_epoch = False

    def _read_training_labels(self, training_labels: Any, bins: LabelBins | None) -> Tensor:
        """Return the training labels as a tensor; raise if they are no finite numbers, or outside of the bins."""
        numbers = to_numbers(training_labels, most_dims=1 if self.needs.scalar_labels or bins is not None else None)
        if bins is not None:
            bins.check_training_labels(numbers)
        return training_labels if isinstance(training_labels, Tensor) else torch.as_tensor(numbers, dtype=torch.float32)

    def _read_weights(self, weights: Any, labels: Tensor | None) -> Tensor:
        if labels is None:
            rule = "are those of the training labels: pass `training_labels=...`, too"
            raise InputError(Fault(where=self.where, key="training_weights", rule=rule))
        found = weights if isinstance(weights, Tensor) else torch.as_tensor(to_numbers(weights), dtype=torch.float32)
        check_shape(self.where, "training_weights", found, (len(labels),))
        return found

    def _check_call(self, labels: Tensor) -> None:
        if not labels.numel():
            raise InputError(Fault(where=self.where, key="labels", rule="must have a row", got=tuple(labels.shape)))
        if self._waits_for_epoch:
            rule = "changes over the epochs: call `begin_epoch(epoch, epochs)` before each of them"
            raise InputError(Fault(where=self.where, rule=rule))
        if self.needs.scalar_labels and labels.ndim != 1:
            rule = "is made for labels of one dimension, of the shape (rows,)"
            raise InputError(Fault(where=self.where, key="labels", rule=rule, got=tuple(labels.shape)))

    def _find_bins(self, labels: Tensor) -> Tensor:
        if self.bins is None:
            # NaN equals nothing, so that such a row would be a bin of its own without a word.
            check_finite(self.where, "labels", labels)
            _, classes = labels.unique(return_inverse=True, dim=0)
            return torch.as_tensor(classes)
        if labels.ndim != 1:
            rule = "must have the shape (rows,): label bins are for labels of one dimension"
            raise InputError(Fault(where=self.where, key="labels", rule=rule, got=tuple(labels.shape)))
        return torch.as_tensor(self.bins.find_bins(labels))


class TermModule(PartModule):
    """A regularizer term, called with embeddings and labels.

    The module does not multiply by the term's weight in the total loss, `module.weight`.

    Args:
        term: the term as a value, for one of a plug-in; the named classes of this module make their own.
        bins: label bins; None means those of the training labels for a term that is fitted to them, else that equal labels are
            one bin.
        label_range: width of the labels' range; None means that of `bins`.
        training_labels: of all training samples, for terms that are fitted to them.
        embedding_dim: length of the embeddings, for terms with vectors of their own, as proxies.
        seed: of draws that are made once, as of proxies; None means that of `torch.manual_seed`.
    """

    options: ClassVar = ("bins", "label_range", "training_labels", "embedding_dim", "seed")

    def __init__(
        self,
        term: Any,
        *,
        bins: LabelBins | None = None,
        label_range: float | None = None,
        training_labels: Tensor | None = None,
        embedding_dim: int | None = None,
        seed: int | None = None,
    ) -> None:
        is_loss = type(term) in losses.LOSSES.values()
        if not isinstance(term, Frozen) or not hasattr(term, "weight") or is_loss:
            rule = f"must be a regularizer term, got {_describe_type(term)}"
            raise InputError(Fault(where="TermModule", key="term", rule=rule))
        super().__init__(term, bins=bins, training_labels=training_labels, embedding_dim=embedding_dim, seed=seed)
        if label_range is not None and not (is_instance(label_range, float) and 0 < label_range < np.inf):
            rule = "must be a number above zero"
            raise InputError(Fault(where=self.where, key="label_range", rule=rule, got=label_range))
        self.term: Any = term
        self.label_range = label_range
        if label_range is None and self.bins is not None:
            self.label_range = self.bins.spec.label_range
        self._statistics: Any = None
        self._observed = self._rows = 0

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
        draw_seed: int | None = None,
    ) -> Tensor:
        """Return the term of a batch, a scalar.

        Args:
            embeddings: `(rows, dim)`, of any length: a term that reads directions normalizes them.
            labels: `(rows,)`, or `(rows, L)` for labels of several dimensions.
            predictions: in the label's unit, for terms that compare them; they get no gradient.
            weights: sample weights; None means all are one.
            samples: position of each row in the training set; None means that every row is a sample of its own.
            num_views: several views of each sample are stacked view-major.
            draw_seed: of the random draws of this call; None means that it is drawn from torch's generator.

        Raises:
            InputError: the rows do not fit together, or the term reads something that is not given.
        """
        where = self.where
        self._check_rows(embeddings, labels=labels, predictions=predictions, weights=weights, samples=samples)
        rows = len(embeddings)
        self._check_call(labels)
        check_shape(where, "predictions", predictions, tuple(labels.shape))
        check_shape(where, "weights", weights, (rows,))
        check_integer(where, "draw_seed", draw_seed)
        self._check_views(rows, num_views)
        is_individual = getattr(self.term, "temperature", "fixed") == "individual"
        missing = {
            "predictions": predictions is None,
            "label_range": self.label_range is None,
            # Rows of a batch are no positions in the training set.
            "samples": samples is None and is_individual,
            # Only ConR's variant of STS-B reads it, for which 1 would be another loss.
            "label_scale": True,
        }
        inputs = _CallInputs(
            representations=self._select_vectors(embeddings),
            labels=labels if labels.is_floating_point() else labels.to(embeddings.dtype),
            label_bins=self._find_bins(labels),
            predictions=torch.zeros_like(labels) if predictions is None else predictions.detach(),
            weights=embeddings.new_ones(rows) if weights is None else weights,
            samples=torch.arange(rows, device=embeddings.device) % (rows // num_views) if samples is None else samples,
            num_views=num_views,
            label_range=0.0 if self.label_range is None else self.label_range,
            draw_seed=_UNDRAWN if draw_seed is None else draw_seed,
            term=where,
            missing=frozenset(name for name, is_missing in missing.items() if is_missing),
        )
        self._count_rows(rows // num_views)
        result: Tensor = (self.fitted or self.term)(inputs)
        return result

    @torch.no_grad()
    def observe(self, embeddings: Tensor, labels: Tensor, *, predictions: Tensor | None = None) -> None:
        """Add a batch of the training set, in evaluation mode, to the statistics of the epoch, for terms that have some.

        Args:
            embeddings: `(rows, dim)`, as in a call.
            labels: `(rows,)`.
            predictions: in the label's unit; None means that they are unknown.
        """
        self._check_rows(embeddings, labels=labels, predictions=predictions)
        if not isinstance(self.fitted, losses.EndsEpochs):
            return
        rows = EvaluatedRows(
            vectors=self._select_vectors(embeddings),
            predictions=torch.full_like(embeddings[:, 0], torch.nan) if predictions is None else predictions,
            labels=labels,
            label_bins=self._find_bins(labels),
            samples=self._observed + torch.arange(len(embeddings), device=embeddings.device),
        )
        found = self.fitted.compute_statistics(rows)
        self._statistics = found if self._statistics is None else self._statistics + found
        self._observed += len(embeddings)

    def end_epoch(self) -> None:
        """Update the state of the term by the statistics of the epoch; nothing for terms without any.

        Raises:
            InputError: no batch was observed.
        """
        if not isinstance(self.fitted, losses.EndsEpochs):
            return
        if self._statistics is None:
            rule = "has statistics of the training set: pass its embeddings to `observe`, batch by batch, before `end_epoch`"
            raise InputError(Fault(where=self.where, rule=rule))
        self.fitted.end_epoch(self._statistics)
        self._statistics, self._observed, self._rows = None, 0, 0

    def extra_repr(self) -> str:
        """Return the settings, for `print`."""
        return repr(self.term)

    def _select_vectors(self, embeddings: Tensor) -> Tensor:
        reads = getattr(self.term, "reads", "representation")
        return embeddings if reads == "embedding" else normalize_rows(embeddings)

    def _check_rows(self, embeddings: Tensor, **given: Tensor | None) -> None:
        check_tensors(self.where, ("embeddings", "labels"), embeddings=embeddings, **given)
        if embeddings.ndim != 2 or not embeddings.shape[1]:
            rule = "must have the shape (rows, dim)"
            raise InputError(Fault(where=self.where, key="embeddings", rule=rule, got=tuple(embeddings.shape)))
        check_floating(self.where, "embeddings", embeddings)
        if self.embedding_dim is not None:
            check_shape(self.where, "embeddings", embeddings, (len(embeddings), self.embedding_dim))
        for name, value in given.items():
            if value is not None and (not value.ndim or len(value) != len(embeddings)):
                rule = f"must have {len(embeddings)} rows, as the embeddings"
                raise InputError(Fault(where=self.where, key=name, rule=rule, got=len(value) if value.ndim else ()))
        if (samples := given.get("samples")) is not None and (samples.ndim != 1 or samples.is_floating_point()):
            rule = "must be whole numbers of the shape (rows,)"
            raise InputError(Fault(where=self.where, key="samples", rule=rule, got=tuple(samples.shape)))

    def _check_views(self, rows: int, num_views: int) -> None:
        check_integer(self.where, "num_views", num_views)
        if num_views < self.needs.views or num_views < 1 or rows % num_views:
            rule = f"must be at least {self.needs.views} and divide the {rows} rows"
            raise InputError(Fault(where=self.where, key="num_views", rule=rule, got=num_views))

    def _count_rows(self, samples: int) -> None:
        """Warn of an `end_epoch` that was forgotten, without which a term with statistics does nothing."""
        if not isinstance(self.fitted, losses.EndsEpochs) or not self.training or self.num_samples is None:
            return
        most, before = _EPOCHS_WITHOUT_END * self.num_samples, self._rows
        self._rows += samples
        if before <= most < self._rows:
            advice = "pass the training set to `observe` and call `end_epoch` after every epoch"
            message = f"{self.where} has had {self._rows} samples without the end of an epoch; {advice}"
            warnings.warn(message, stacklevel=3)


class LossModule(PartModule):
    """A regression loss, called with predictions and labels of one unit, and perhaps sample weights.

    A loss with a head of its own (likelihoods, HCA, UVOTE, Group-DIR) is called with the head's outputs instead:

        loss = GaussianNLL(bins=bins)
        head = loss.make_head(embedding_dim)       # in place of the last linear layer
        outputs = head(embeddings)
        loss(outputs, labels).backward()
        head.decode(outputs), head.decode_deviation(outputs)

    Args:
        loss: the loss as a value, for one of a plug-in.
        bins: label bins; None means those of the training labels, if these are given.
        training_labels: of all training samples, for losses that are fitted to them.
        training_weights: their sample weights, for losses that read them (Dist Loss); None means all are one.
    """

    options: ClassVar = ("bins", "training_labels", "training_weights")

    def __init__(
        self,
        loss: Any,
        *,
        bins: LabelBins | None = None,
        training_labels: Tensor | None = None,
        training_weights: Tensor | None = None,
    ) -> None:
        if not isinstance(loss, Frozen) or "name" not in type(loss).model_fields:
            rule = f"must be a regression loss, got {_describe_type(loss)}"
            raise InputError(Fault(where="LossModule", key="loss", rule=rule))
        super().__init__(loss, bins=bins, training_labels=training_labels, training_weights=training_weights)
        self.loss: Any = loss
        if self.bins is None and training_labels is not None and isinstance(loss, losses.RawLoss):
            self.bins = LabelBins.from_labels(training_labels)
        self._outputs: int | None = None
        is_ranked = isinstance(loss, dist_loss.DistLoss) and loss.weights == "label"
        self._lacks_weights = is_ranked and training_weights is None

    def make_head(self, embedding_dim: int, *, offset: float | None = None) -> Head:
        """Return the head of the loss, initialized from torch's generator, for embeddings of this length.

        `head(embeddings)` has the outputs `(rows, outputs)` that the loss is called with, `head.decode(outputs)` the
        predictions `(rows,)` in the label's unit, `head.decode_deviation(outputs)` their standard deviations, or None; the rates
        of its layers are in `head.make_parameter_groups(learning_rate)`.

        Args:
            embedding_dim: length of what the head reads.
            offset: prediction at outputs of zero; None means the mean of the training labels.

        Raises:
            InputError: the loss has none, or the label bins are not given.
        """
        check_integer(self.where, "embedding_dim", embedding_dim, least=1)
        if not isinstance(self.loss, losses.RawLoss):
            rule = "is a loss of predictions, without a head of its own; use a linear layer with one output"
            raise InputError(Fault(where=self.where, rule=rule))
        if self.bins is None:
            rule = "has a head that starts at the training labels: create it with `bins=LabelBins.from_labels(...)`"
            raise InputError(Fault(where=self.where, rule=rule))
        spec, counts = self.bins.spec, self.bins.counts
        mean = HeadLabels.from_histogram(spec, counts).mean
        head: Head = self.loss.build_head(
            embedding_dim, HeadLabels.from_histogram(spec, counts, offset=mean if offset is None else offset)
        )
        return head

    def forward(self, predictions: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            predictions: of the labels' shape, or `(rows, outputs)` of the loss's head.
            labels: `(rows,)`, or `(rows, L)` for labels of several dimensions.
            weights: sample weights `(rows,)`; None means all are one.

        Raises:
            InputError: predictions and labels have shapes that do not fit, and might be broadcast against each other.
        """
        is_raw = isinstance(self.loss, losses.RawLoss)
        check_tensors(self.where, ("predictions", "labels"), predictions=predictions, labels=labels, weights=weights)
        check_floating(self.where, "predictions", predictions)
        self._check_call(labels)
        if is_raw:
            self._check_outputs(predictions, labels)
        elif predictions.shape != labels.shape:
            rule = f"must have the labels' shape {tuple(labels.shape)}"
            raise InputError(Fault(where=self.where, key="predictions", rule=rule, got=tuple(predictions.shape)))
        check_shape(self.where, "weights", weights, tuple(labels.shape[:1]))
        if weights is not None and self._lacks_weights:
            rule = "weights sorted predictions by the weights of the training labels: create it with `training_weights=...`"
            raise InputError(Fault(where=self.where, rule=rule))
        options = {"label_bins": self._find_bins(labels)} if getattr(self.loss, "reads_bins", False) else {}
        result: Tensor = (self.fitted or self.loss)(predictions, labels, weights, **options)
        return result

    def extra_repr(self) -> str:
        """Return the settings, for `print`."""
        return repr(self.loss)

    def _check_outputs(self, outputs: Tensor, labels: Tensor) -> None:
        expected = (*labels.shape, self._count_outputs())
        if labels.ndim != 1 or outputs.shape != expected:
            rule = f"must be the outputs of the loss's head (`make_head`), of the shape {expected}"
            raise InputError(Fault(where=self.where, key="predictions", rule=rule, got=tuple(outputs.shape)))

    def _count_outputs(self) -> int:
        """Return the number of outputs of the head, which may be one of the user's own."""
        if self._outputs is None:
            spec_labels = (
                HeadLabels(centers=np.array([0.0, 1.0]), counts=np.array([1, 1]))
                if self.bins is None
                else HeadLabels.from_histogram(self.bins.spec, self.bins.counts)
            )
            with torch.device("meta"):
                head = self.loss.build_head(1, spec_labels)
            outputs: int = sum(each.size for each in head.outputs.values())
            self._outputs = outputs
        return self._outputs


def _describe_type(value: object) -> str:
    return f"the class {value.__name__}: create it first" if isinstance(value, type) else f"a {type(value).__name__}"


def _check_reads_no_labels(part: Any) -> None:
    """Raise if a part is fitted to the training labels: learned temperatures and noises are not."""
    is_free = isinstance(part, balanced_mse.BMC | likelihood.Evidential)
    if not is_free and getattr(part, "temperature", None) not in {"fixed", "learnable"}:
        rule = "is fitted to the training labels: create it with `training_labels=...`"
        raise InputError(Fault(where=type(part).__name__, rule=rule))


def _make_term(settings: type[Frozen]) -> type[TermModule]:
    module: type[TermModule] = _make_module(TermModule, settings)
    return module


def _make_loss(settings: type[Frozen]) -> type[LossModule]:
    module: type[LossModule] = _make_module(LossModule, settings)
    return module


def _make_module(base: Any, settings: type[Frozen]) -> Any:
    """Return a module of the name and with the documentation of a loss or term, whose keywords are its settings."""

    class Named(base):
        def __init__(self, **keywords: Any) -> None:
            of_module = {name: keywords.pop(name) for name in base.options if name in keywords}
            super().__init__(read(settings, keywords, where=settings.__name__), **of_module)

    Named.__name__ = Named.__qualname__ = settings.__name__
    names = ", ".join(name for name in settings.model_fields if name != "name")
    Named.__doc__ = f"{settings.__doc__}\n\nKeywords: {names}; and those of `{base.__name__}`."
    Named.__module__ = __name__
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = {name: field.get_default() for name, field in settings.model_fields.items() if name != "name"}
    parameters = {**own, **dict.fromkeys(base.options)}
    Named.__signature__ = inspect.Signature(
        [inspect.Parameter(name, keyword, default=default) for name, default in parameters.items()]
    )
    return Named


ACCon = _make_term(accon.ACCon)
ACConR = _make_term(acconr.ACConR)
AdaSupCon = _make_term(adasupcon.AdaSupCon)
ConR = _make_term(conr.ConR)
GroupRnC = _make_term(group_dir.GroupRnC)
MultiSimilarity = _make_term(multi_similarity.MultiSimilarity)
OrdinalEntropy = _make_term(ordinal_entropy.OrdinalEntropy)
PHReg = _make_term(phreg.PHReg)
PRIME = _make_term(prime.PRIME)
RankSim = _make_term(ranksim.RankSim)
RnC = _make_term(rnc.RnC)
ROTReg = _make_term(rotreg.ROTReg)
SRL = _make_term(srl.SRL)
SupCon = _make_term(supcon.SupCon)
SupReMix = _make_term(supremix.SupReMix)

BMC = _make_loss(balanced_mse.BMC)
BNI = _make_loss(balanced_mse.BNI)
BetaNLL = _make_loss(likelihood.BetaNLL)
CCC = _make_loss(ccc.CCC)
DistLoss = _make_loss(dist_loss.DistLoss)
Evidential = _make_loss(likelihood.Evidential)
FocalL1 = _make_loss(focal.FocalL1)
FocalMSE = _make_loss(focal.FocalMSE)
GAI = _make_loss(balanced_mse.GAI)
GaussianNLL = _make_loss(likelihood.GaussianNLL)
GroupDIR = _make_loss(group_dir.GroupDIR)
HCA = _make_loss(hca.HCA)
Huber = _make_loss(pointwise.Huber)
L1 = _make_loss(pointwise.L1)
LaplaceNLL = _make_loss(likelihood.LaplaceNLL)
MSE = _make_loss(pointwise.MSE)
Tukey = _make_loss(tukey.Tukey)
UVOTE = _make_loss(uvote.UVOTE)
VIRHead = _make_loss(vir.VIRHead)
