"""Label units that a training cannot bridge: an untrained regressor's predictions against the training labels.

A predictor starts with outputs of the order of one, `prediction = label_offset + label_scale * output`. With labels around 150
and a scale of 1 its output has to reach 150, which the steps of a short training do not; all arms then have the error of
their start, and their differences are those of its speed. Two rules, by arm, on `PROBED_ROWS` training samples:

1. The output must move by `needed`, the larger of the distance from the median first prediction to the median label and of
   the labels' spread, over `label_scale`. It can move by about `reach`: Adam changes a weight by the learning rate per
   step, so that the output moves by at most `learning_rate * (1 + sum of the absolute inputs of the predictor)`; summed
   over all steps. Reported if `needed` exceeds `reach`, and `MIN_NEEDED`, so that a short training in fitting units is not
   blamed on them. Encoders move, too, and lengthen the inputs, unless they are normalized: a warning, not an error. Not for
   sgd, whose steps grow with the error.
2. The first predictions spread over more than `MAX_SPREAD` times the spread of the labels: the scale is too large.

Center and spread of the labels are those of `model.label_scale: auto` (`dirtune.data.label_units`).
"""

from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from torch import Tensor, nn

from dirtune.data import cache, label_units, subset
from dirtune.label_transform import transform_labels
from dirtune.study import resolve, schema
from dirtune.training import evaluation, passes, stages, state

PROBED_ROWS = 256
MIN_NEEDED = 3.0
MAX_SPREAD = 10.0


@dataclass(frozen=True, kw_only=True)
class LabelFit:
    """An untrained regressor's predictions against the training labels."""

    arm: str
    first: float
    """Median of the first predictions."""
    first_spread: float
    """Standard deviation of the first predictions."""
    center: float
    """Median of the training labels."""
    spread: float
    needed: float
    """Distance that the predictor's output has to move."""
    reach: float
    """Distance that it moves in all steps, about; infinite if it is not known."""
    steps: int

    def __str__(self) -> str:
        labels = f"training labels are {self.center:.3g}, spread {self.spread:.3g}"
        advice = "model.label_scale: auto and model.label_offset: auto fit them"
        if self.needed > max(self.reach, MIN_NEEDED):
            return (
                f"first predictions are {self.first:.3g}, {labels}: the predictor's output has to move by "
                f"{self.needed:.3g} and moves by about {self.reach:.2g} in its {self.steps} steps; {advice}"
            )
        return f"first predictions spread over {self.first_spread:.3g}, {labels}; {advice}"

    @property
    def is_far_off(self) -> bool:
        return self.needed > max(self.reach, MIN_NEEDED) or self.first_spread > MAX_SPREAD * self.spread


def measure_label_fits(
    study: resolve.ResolvedStudy, data: cache.ResidentData, vocabulary: list[str] | None = None
) -> list[LabelFit]:
    """Return the fit of the label units of every arm; trains nothing.

    Args:
        study: the study.
        data: its data set.
        vocabulary: tokens by id, for encoders that start from word vectors.
    """
    train = data.splits["train"]
    # Every k-th row in the order of sample ids
    probed = cache.select_rows(train, train.reading_order.sort().values[:: max(1, len(train) // PROBED_ROWS)])
    part = replace(data, splits={**data.splits, "train": probed})
    return [_measure_arm(arm, data, part, vocabulary) for arm in study.arms]


def _measure_arm(
    arm: schema.Arm, data: cache.ResidentData, probed: cache.ResidentData, vocabulary: list[str] | None
) -> LabelFit:
    config = arm.config
    # The whole of the probed rows: a share of them could be smaller than a batch, and few rows may have no rare label.
    whole = config.model_copy(update={"data": config.data.model_copy(update={"fraction": 1.0}), "synthesis": None})
    training = state.begin_training(whole, probed, vocabulary=vocabulary)
    inputs: list[float] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        # A weight per input of an output, those of a convolution's window included
        fan_in = training.model.predictor.weight[0].numel()
        inputs.append(fan_in * float(arguments[0].detach().abs().mean()))

    handle = training.model.predictor.register_forward_pre_hook(note)
    first = transform_labels(evaluation.predict(training, "train"), config.model.label_transform)
    handle.remove()
    transform = config.model.label_transform
    center, spread = label_units.estimate_label_units(data.manifest.label, data.manifest.train_counts, transform)
    gap = abs(float(np.median(first)) - center)
    rows = subset.count_rows(len(data.splits["train"]), config.data.fraction)
    steps, moved = 0, 0.0
    for stage in stages.list_stages(config):
        if stage.trains_predictor:
            per_epoch = passes.Passes(stage, rows).steps_per_epoch
            rates = [stage.compute_learning_rate(epoch) for epoch in range(stage.start + 1, stage.end + 1)]
            # A second stage starts with a new predictor: the longest stage counts.
            steps, moved = max(
                (steps, moved), (per_epoch * len(rates), per_epoch * sum(rates)), key=lambda each: each[1]
            )
    return LabelFit(
        arm=arm.name,
        first=float(np.median(first)),
        first_spread=float(first.std(axis=0).mean()),
        center=center,
        spread=spread,
        needed=max(gap, spread) / training.model.label_scale,
        reach=float("inf") if config.recipe.optimizer == "sgd" else moved * (1 + median(inputs)),
        steps=steps,
    )
