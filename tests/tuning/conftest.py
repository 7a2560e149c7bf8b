"""What the tests of sweeps share: study files, and the toy data set of the training's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.conftest import data_root, toy
from tests.tuning.sweeps import STUDY

__all__ = ["data_root", "study_file", "toy"]


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., str]:
    def write(**changes: Any) -> str:
        path = tmp_path / f"{changes.get('name', 'tiny')}.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return str(path)

    return write
