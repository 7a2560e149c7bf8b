"""Plug-ins that tests write as files, and a fixture that forgets them afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dirtune import plugins

SPREAD = '''"""The example of the documentation."""
import dirtune
from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from pydantic import Field
from torch import Tensor


@dirtune.register.term("spread")
class Spread(Frozen):
    """Repel samples of different label bins."""

    weight: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss."""

    def __call__(self, inputs: TermInputs) -> Tensor:
        cosines = inputs.representations @ inputs.representations.T
        differ = inputs.label_bins[:, None] != inputs.label_bins[None, :]
        return (cosines * differ).sum() / differ.sum().clamp(min=1)
'''
WORST = '''import dirtune
import numpy as np


@dirtune.register.metric("worst", higher_is_better=False)
def worst(labels, predictions):
    """Compute the largest absolute error."""
    return np.abs(labels - predictions).max() if len(labels) else float("nan")
'''
CUBE = '''from typing import Literal

import dirtune
from dirtune.frozen import Frozen


@dirtune.register.loss("cube")
class Cube(Frozen):
    """Compute the mean cube of the absolute error."""

    name: Literal["cube"] = "cube"

    def __call__(self, predictions, labels, weights):
        return (weights * (predictions - labels).abs() ** 3).mean()
'''


def write(folder: Path, source: str, name: str = "my_terms.py") -> Path:
    path = folder / name
    path.write_text(source)
    return path


@pytest.fixture
def forgotten_plugins() -> Iterator[None]:
    """Unload the plug-ins that a test has loaded."""
    before = plugins.list_registered()
    yield
    for plugin in plugins.list_registered():
        if plugin not in before:
            plugins.unload(plugin)
