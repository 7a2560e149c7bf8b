"""A swept study of a table with numbers, a list and a category, for the tests of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from dirtune.data.ingest import ingest
from tests.training.conftest import configuration, data_root, toy
from tests.tuning.sweeps import sweep_without_ray

__all__ = ["configuration", "data_root", "own_root", "raw", "results", "toy"]

ROWS = 120
STUDY: dict[str, Any] = {
    "name": "mine",
    "question": "Which rows are hard?",
    "reference": "plain",
    "seeds": [0, 1, 5],
    "base": {
        "data": {"name": "own"},
        "model": {"encoder": {"name": "mlp", "hidden": [8]}},
        "recipe": {"epochs": 2, "batch_size": 32, "learning_rate": 0.01},
    },
    "arms": {
        "plain": {},
        "logarithms": {"model": {"label_transform": "log"}},
        "smooth": {"model": {"projection_dim": 4}, "terms": {"conr": {}}, "reweighting": {"fds": {"size": 3}}},
    },
}


def make_frame() -> pd.DataFrame:
    drawn = np.random.default_rng(0)
    x = drawn.normal(100, 30, (ROWS, 2))
    kind = drawn.choice(["clay", "sand", "rock"], ROWS)
    y = (x[:, 0] / 10 + (kind == "clay") + drawn.normal(0, 0.3, ROWS)).round(3)
    return pd.DataFrame(
        {"name": [f"s{n:03d}" for n in range(ROWS)], "width": x[:, 0], "height": x[:, 1], "kind": kind, "y": y}
    )


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw file; its rows are in no order of their ids."""
    file = tmp_path_factory.mktemp("raw") / "own.csv"
    make_frame().sample(frac=1, random_state=1).to_csv(file, index=False)
    return file


@pytest.fixture(scope="session")
def own_root(raw: Path) -> Path:
    """The data root with the set `own`."""
    root = raw.parent / "data"
    options = {"name": "own", "label": "y", "id": "name", "one_hot": ["kind"], "unit": "MPa"}
    ingest("table", root=root, raw=raw, options=options, report=lambda _: None)
    return root


@pytest.fixture(scope="session")
def results(own_root: Path) -> Path:
    """The results root with the swept study `mine`."""
    path = own_root.parent / "mine.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    sweep_without_ray(str(path), own_root, own_root.parent / "results")
    return own_root.parent / "results"
