"""The plug-ins of `docs/hooks.md`, executed as they are written. Run with `pytest tests/test_hooks.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dirtune import plugins
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.frozen import read
from dirtune.nested import merge
from tests.plugin_sources import forgotten_plugins
from tests.test_documentation import write_named_blocks
from tests.training.conftest import SETTINGS, data_root, toy
from tests.training.runs import trained, without_images

__all__ = ["data_root", "forgotten_plugins", "toy"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.usefixtures("forgotten_plugins")
@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("copies.py", {"synthesis": {"name": "copies"}}),
        ("of_rare_labels.py", {"sampling": {"name": "of_rare_labels"}}),
        ("neighbors.py", {"mixing": {"name": "neighbors"}}),
        ("by_sign.py", {"sharpness": {"name": "by_sign"}}),
        ("bounds.py", {"loss": {"name": "bounds"}}),
        ("sampled.py", {"terms": {"sampled": {}}}),
        ("drift.py", {"terms": {"drift": {}}}),
    ],
)
def test_a_plugin_of_the_page_trains_and_is_part_of_the_id(
    file: str, settings: dict[str, Any], tmp_path: Path, toy: ResidentData
) -> None:
    write_named_blocks(ROOT / "docs/hooks.md", tmp_path)
    plugins.load_files([str(tmp_path / file)])
    config = read(TrialConfig, merge(SETTINGS, settings), where="page")
    assert [plugin.name for plugin in config.list_plugins()] == [file]
    assert np.isfinite(trained(config, without_images(toy)).history[-1]["train/loss"])
