"""What the tests of sweeps share: study files, and the toy data set of the training's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.storages._rdb.storage import _VersionManager

from tests.training.conftest import data_root, toy
from tests.tuning.sweeps import STUDY

_create_script = _VersionManager._create_alembic_script
_scripts: list[Any] = []


def _create_script_once(self: _VersionManager) -> Any:
    """Return Optuna's migrations, which it would read three times for each database: a third of a simulated sweep."""
    if not _scripts:
        _scripts.append(_create_script(self))
    return _scripts[0]


_VersionManager._create_alembic_script = _create_script_once  # type: ignore[method-assign]

__all__ = ["data_root", "study_file", "toy"]


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., str]:
    def write(**changes: Any) -> str:
        path = tmp_path / f"{changes.get('name', 'tiny')}.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return str(path)

    return write
