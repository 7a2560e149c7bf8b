"""Maps of labels, one number for each pixel: the part of them that is looked at. Needs neither torch nor Arrow."""

from __future__ import annotations

from typing import Any, TypeVar

from dirtune.manifest import LabelMap

# A numpy array or a tensor, (..., height, width)
Maps = TypeVar("Maps", bound=Any)


def middle(stored: Maps, spec: LabelMap) -> Maps:
    """The part of stored images or maps that enters training and metrics; shape `(..., spec.height, spec.width)`."""
    top = (stored.shape[-2] - spec.height) // 2
    left = (stored.shape[-1] - spec.width) // 2
    return stored[..., top : top + spec.height, left : left + spec.width]  # type: ignore[no-any-return]
