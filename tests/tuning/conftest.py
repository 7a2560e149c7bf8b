"""Fixtures that the tests of sweeps share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuning.sweeps import STUDY


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., str]:
    def write(**changes: Any) -> str:
        path = tmp_path / f"{changes.get('name', 'tiny')}.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return str(path)

    return write
