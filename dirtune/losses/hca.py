"""HCA: hierarchical classification of label bins, from halves of the training labels down to single bins.

Level by level, each class of bins is split in two where the running sum of the roots of its counts is nearest to half, until it has
one occupied bin. A fine classifier of all bins reads e and trains the encoder; a classifier for each level reads e detached. The
score of a bin is its fine probability times (`combine: mul`) or plus (`add`) the probability of its class at every level, and the
prediction the label of the bin with the largest score. With `distill`, an adjusted classifier on detached e is trained to agree with
all levels at once, and predicts alone:

    sum over levels of mean_i KL( level || softmax of the adjusted logits, pooled within the level's classes )

Source: Xiong and Yao, "Deep Imbalanced Regression via Hierarchical Classification Adjustment", CVPR 2024
(xhp-hust-2018-2011/HCA, `mh_utils.py`, `resnet_cls_mh.py`; it has no training script, so that the losses of the classifiers,
cross-entropies, are a reading). Departures: 1. classes of the finest level are the data set's label bins, officially integer
labels; 2. distillation is trained together with the classifiers, officially after them: its teachers are detached; 3. pooling by sum
adds probabilities of one softmax, where the code takes a softmax of the softmax at every level.
"""

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TrainingLabels
from dirtune.frozen import Frozen
from dirtune.losses.needs import Needs
from dirtune.losses.pointwise import compute_weighted_mean
from dirtune.models.heads import Head, HeadLabels, Outputs

Levels = NDArray[np.int64]
"""Class of each label bin at each level; shape `(levels, bins)`."""


class HCA(Frozen):
    """Classifiers of label bins at several levels, which adjust one another (Xiong and Yao, CVPR 2024)."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True, label_bins=2)
    reads_bins: ClassVar[bool] = True

    name: Literal["hca"] = "hca"
    levels: int = Field(default=6, ge=1)
    """Number of levels above the bins. Official: 6."""
    combine: Literal["mul", "add"] = "mul"
    """Score of a bin: product or sum of the probabilities of its classes."""
    predict: Literal["argmax", "mean"] = "argmax"
    """argmax: the label of the bin with the largest score, as in the code; mean: the mean of the labels, weighted by the scores."""
    bin_label: Literal["center", "low"] = "center"
    """Label of a bin: its center, or its lower edge, as that of integer labels such as ages."""
    balanced: bool = False
    """True: the cross-entropies of the levels weight classes by the inverse of their counts, with mean one over the samples."""
    distill: bool = False
    """True: an adjusted classifier is trained to agree with all levels, and predicts alone (HCA-d)."""
    pool: Literal["max", "sum"] = "max"
    """Pooling of the adjusted classifier within a class: the largest logit, or the sum of the probabilities."""
    hidden: int = Field(default=512, gt=0)
    """Hidden units of the adjusted classifier. Official: 512."""

    @property
    def head(self) -> str:
        """Name of the head, with all that its decoder depends on."""
        decoder = f"distilled with {self.hidden}" if self.distill else self.combine
        return f"hca of {self.levels} by {decoder} {self.predict} {self.bin_label}"

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the classifiers of all levels as one head."""
        return HierarchicalHead(read_dim, labels, self)

    def fit(self, labels: TrainingLabels) -> "HCALoss":
        """Return the loss with the classes of the levels."""
        return HCALoss(self, split_levels(labels.count_bins(), self.levels), labels.label_bins)


class HierarchicalHead(Head):
    """Logits of the bins, of the classes of every level, and of the adjusted classifier."""

    bin_labels: Tensor
    classes: Tensor

    def __init__(self, read_dim: int, labels: HeadLabels, settings: HCA) -> None:
        self.settings = settings
        levels, bins = split_levels(labels.counts, settings.levels), len(labels.counts)
        outputs = {"fine": Outputs(size=bins)}
        outputs |= {
            f"level_{number}": Outputs(size=int(classes.max()) + 1, is_detached=True)
            for number, classes in enumerate(levels)
        }
        if settings.distill:
            outputs["adjusted"] = Outputs(size=bins, is_detached=True, hidden=settings.hidden)
        super().__init__(read_dim, outputs)
        half = np.diff(labels.centers).mean() / 2 if settings.bin_label == "low" else 0.0
        self.register_buffer("bin_labels", torch.as_tensor(labels.centers - half, dtype=torch.float32))
        self.register_buffer("classes", torch.as_tensor(levels))

    def decode(self, raw: Float[Tensor, "rows outputs"]) -> Float[Tensor, " rows"]:
        """Return the label of the bin with the largest score, or the mean label."""
        logits = self.split(raw)
        if self.settings.distill:
            scores = logits["adjusted"].softmax(dim=-1)
        else:
            levels = [logits[f"level_{number}"] for number in range(len(self.classes))]
            scores = combine_levels(logits["fine"], levels, self.classes, self.settings.combine)
        values = self.bin_labels.to(raw)
        if self.settings.predict == "argmax":
            return values[scores.argmax(dim=-1)]
        return (scores * values).sum(dim=-1) / scores.sum(dim=-1)


class HCALoss(nn.Module):
    """Cross-entropies of all classifiers, and the distillation; classes and their weights are buffers."""

    reads_bins = True
    classes: Tensor

    def __init__(self, settings: HCA, levels: Levels, bins: Int[Tensor, " samples"]) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("classes", torch.as_tensor(levels, device=bins.device))
        counts = np.bincount(bins.cpu().numpy(), minlength=levels.shape[1])
        self.sizes = [levels.shape[1], *(int(classes.max()) + 1 for classes in levels)]
        for number, classes in enumerate(levels):
            weights = weight_classes(np.bincount(classes, counts))
            # Mean one over the samples, where the code's weights have sum one
            mean = float(counts @ weights[classes]) / counts.sum()
            self.register_buffer(f"weights_{number}", torch.as_tensor(weights / mean, device=bins.device))

    def forward(
        self,
        predictions: Float[Tensor, "rows outputs"],
        labels: Float[Tensor, " rows"],
        weights: Float[Tensor, " rows"] | None = None,
        *,
        label_bins: Int[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        raw = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
        sizes = [*self.sizes, *([self.sizes[0]] if self.settings.distill else [])]
        fine, *rest = raw.split(sizes, dim=-1)
        rows = F.cross_entropy(fine, label_bins, reduction="none")
        levels = rest[: len(self.classes)]
        for number, (logits, classes) in enumerate(zip(levels, self.classes, strict=True)):
            own = F.cross_entropy(logits, classes[label_bins], reduction="none")
            if self.settings.balanced:
                own = own * getattr(self, f"weights_{number}").to(own)[classes[label_bins]]
            rows = rows + own
        if self.settings.distill:
            rows = rows + sum(compute_divergences(rest[-1], fine, levels, self.classes, self.settings.pool))
        return compute_weighted_mean(rows, weights)


def split_levels(counts: ArrayLike, levels: int) -> Levels:
    """Return the class of each bin at each level, coarse levels first.

    A class is split before the occupied bin at which the running sum of the roots of the counts is nearest to half of the class's; one
    with fewer than two occupied bins remains.
    """
    roots = np.sqrt(np.asarray(counts, dtype=np.float64))
    occupied, starts, found = np.flatnonzero(roots), [0], []
    for _ in range(levels):
        after: list[int] = []
        for low, high in zip(starts, [*starts[1:], len(roots)], strict=True):
            after.append(low)
            inside = occupied[(occupied >= low) & (occupied < high)]
            if len(inside) > 1:
                running = np.cumsum(roots[inside])
                after.append(int(inside[np.abs(running[:-1] - running[-1] / 2).argmin() + 1]))
        starts = after
        found.append(np.searchsorted(starts, np.arange(len(roots)), side="right") - 1)
    return np.stack(found)


def weight_classes(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the inverse of each class's count, with sum one; zero for an empty class."""
    inverse = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)
    return np.asarray(inverse / inverse.sum())


def combine_levels(
    fine: Float[Tensor, "rows bins"],
    levels: list[Tensor],
    classes: Int[Tensor, "levels bins"],
    combine: Literal["mul", "add"],
) -> Float[Tensor, "rows bins"]:
    """Return the score of each bin: the product of its probabilities at all levels, over the row's largest; or their sum."""
    by_level = [logits.log_softmax(dim=-1)[:, own] for logits, own in zip(levels, classes, strict=True)]
    logs = torch.stack([fine.log_softmax(dim=-1), *by_level])
    if combine == "add":
        return logs.exp().sum(dim=0)
    # Where confident levels contradict each other, the products themselves would all underflow to zero.
    products = logs.sum(dim=0)
    return (products - products.amax(dim=-1, keepdim=True)).exp()


def compute_divergences(
    adjusted: Float[Tensor, "rows bins"],
    fine: Float[Tensor, "rows bins"],
    levels: list[Tensor],
    classes: Int[Tensor, "levels bins"],
    pool: Literal["max", "sum"],
) -> list[Float[Tensor, " rows"]]:
    """Return `KL(teacher || adjusted)` of each row, for every level and for the bins; the teachers are detached."""
    found = []
    for logits, own in zip(levels, classes, strict=True):
        where = own.expand_as(adjusted)
        if pool == "max":
            empty = torch.full_like(logits, -math.inf)
            pooled = empty.scatter_reduce(1, where, adjusted, "amax").log_softmax(dim=-1)
        else:
            tiny = torch.finfo(logits.dtype).tiny
            pooled = torch.zeros_like(logits).scatter_add(1, where, adjusted.softmax(dim=-1)).clamp(min=tiny).log()
        found.append((logits, pooled))
    found.append((fine, adjusted.log_softmax(dim=-1)))
    # The teacher's probability of zero times its logarithm is zero.
    return [
        F.kl_div(student, teacher.detach().softmax(dim=-1), reduction="none").sum(dim=-1) for teacher, student in found
    ]
