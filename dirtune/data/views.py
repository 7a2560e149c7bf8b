"""Views of a batch: stored inputs become inputs of an encoder, augmented in training and unaugmented in evaluation.

A generator is derived for each (seed, epoch, step, view), never from the arm: two arms with one seed see the same views.
With per-pixel labels a view holds the labels too (`dirtune.data.dense_views`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dirtune import manifest, randomness
from dirtune.batch import Inputs
from dirtune.data.augmentations import AUGMENTATIONS, Draws, Size, crop_center, to_float
from dirtune.data.dense_views import DenseTransform


@runtime_checkable
class Transform(Protocol):
    """The transforms of a data set's stored inputs, for training and for evaluation."""

    @property
    def augmentations(self) -> Mapping[str, object]:
        """The augmentations that fit the data set, by name."""

    def apply_augmentation(self, inputs: Inputs, augmentation: str, draws: Draws) -> Inputs:
        """Return one view for training."""

    def apply_evaluation(self, inputs: Inputs) -> Inputs:
        """Return the view for evaluation, without augmentation."""


@dataclass(frozen=True)
class SampleTransform:
    """Transforms for one label per sample: images become floats in [0, 1], other inputs stay unchanged."""

    sizes: Mapping[str, Size] = field(default_factory=dict)
    """Height and width of the views of each image input that is stored larger."""

    @property
    def augmentations(self) -> Mapping[str, object]:
        """The augmentations of images, by name."""
        return AUGMENTATIONS

    def apply_augmentation(self, inputs: Inputs, augmentation: str, draws: Draws) -> Inputs:
        """Return one view for training; `augmentation` is a name of `AUGMENTATIONS`."""
        augment = AUGMENTATIONS[augmentation]
        return {
            name: augment(value, draws, self.sizes.get(name)) if is_image(value) else value
            for name, value in inputs.items()
        }

    def apply_evaluation(self, inputs: Inputs) -> Inputs:
        """Return the view for evaluation, without augmentation."""
        return {
            name: to_float(crop_center(value, self.sizes.get(name))) if is_image(value) else value
            for name, value in inputs.items()
        }


def make_transform(label: manifest.LabelSpec, inputs: Mapping[str, manifest.InputSpec]) -> Transform:
    """Return the transforms of a data set's inputs for its kind of label: one per sample, or one per pixel."""
    if label.dense is not None:
        return DenseTransform(label.dense)
    return SampleTransform({name: spec.view for name, spec in inputs.items() if spec.view is not None})


def make_views(
    inputs: Inputs,
    transform: Transform,
    *,
    count: int,
    augmentation: str,
    stream: tuple[int, int, int],
    total: int,
    rows: slice,
) -> tuple[Inputs, ...]:
    """Return `count` independently augmented views of one rank's part of a global batch.

    Args:
        inputs: the rank's rows as stored (images uint8).
        transform: the data set's transforms.
        count: number of views.
        augmentation: name of an augmentation of the transform.
        stream: (seed, epoch, step) of the global batch.
        total: samples in the global batch.
        rows: the rank's slice of it.
    """
    if isinstance(transform, SampleTransform) and not any(map(is_image, inputs.values())):
        # No augmentation changes them, so that nothing is drawn.
        return tuple(dict(inputs) for _ in range(count))
    device = next(iter(inputs.values())).device
    views = []
    for view in range(count):
        # Never derived from the arm: arms with one seed see the same views.
        generator = torch.Generator().manual_seed(randomness.derive_seed(stream[0], "views", *stream[1:], view))
        views.append(transform.apply_augmentation(inputs, augmentation, Draws(generator, total, rows, device)))
    return tuple(views)


def is_image(value: Tensor) -> bool:
    """Return True if an input column holds images: only they are stored as bytes."""
    return value.dtype == torch.uint8
