"""Conditions without which a loss or term has no form, declared by its class and checked before anything is trained.

A loss or term that has some names them in a class attribute or property `needs`; `dirtune.training.task.Task.check` raises an
error for a configuration and a data set that do not meet them. Plug-ins may declare them as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dirtune.manifest import LabelSpec


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Conditions of a loss or term."""

    scalar_labels: bool = False
    """One label of one dimension per sample."""
    label_bins: int = 1
    """Least number of label bins."""
    samples: int = 1
    """Least number of samples in a call, which has a batch or, under accumulation, a micro-batch."""
    whole_batches: bool = False
    """A call must have the whole batch: no accumulation."""
    views: int = 1
    """Least number of views of a sample among those that the loss or term is given."""

    def find_label_faults(self, label: LabelSpec) -> Iterator[str]:
        """Yield a rule, and what would do, for each condition that the label of a data set does not meet."""
        if self.scalar_labels and label.dense is not None:
            yield "is not defined for per-pixel labels; the losses l1, mse, gai and bni and the term conr are"
        elif self.scalar_labels and label.components:
            dims = len(label.components)
            yield f"is made for labels of one dimension, not {dims}; the losses l1 and mse and the term conr take any number"
        if label.num_bins < self.label_bins:
            rule = f"needs {self.label_bins} label bins, but the data set has {label.num_bins}"
            yield f"{rule}; ingest it with a smaller bin width"

    def find_batch_faults(self, samples: int, *, accumulation: int, views: int) -> Iterator[str]:
        """Yield a rule, and what would do, for each condition that the recipe of a stage does not meet.

        Args:
            samples: number in a micro-batch.
            accumulation: micro-batches of a batch.
            views: of a sample, among those that the loss or term is given.
        """
        if self.whole_batches and accumulation > 1:
            yield f"needs whole batches, but recipe.accumulation cuts them into {accumulation}; set it to 1"
        elif samples < self.samples:
            rule = f"compares samples and needs {self.samples} in a batch, but has {samples}"
            yield f"{rule}; raise recipe.batch_size or lower recipe.accumulation"
        if views < self.views:
            yield f"needs {self.views} views of each sample, but has {views}; set recipe.views.count"
