"""The toy data set of the training's tests."""

from __future__ import annotations

from tests.training.conftest import data_root, toy

__all__ = ["data_root", "toy"]
