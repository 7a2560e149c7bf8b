"""What the tests of sweeps share: a small study, and queries of what it has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import dirtune

STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "Does the machinery hold?",
    "reference": "vanilla",
    "seeds": [0, 1],
    "base": {
        "data": {"name": "digits"},
        "model": {"encoder": {"name": "cnn", "channels": 4}, "label_scale": 60},
        "recipe": {"epochs": 3, "batch_size": 512, "views": {"count": 2, "augmentation": "shift"}},
    },
    "arms": {"vanilla": {}, "conr": {"model": {"projection_dim": 8}, "terms": {"conr": {"beta": 0.1, "omega": 3.0}}}},
    "resources": {"checkpoint_seconds": 0},
}


def rows(sql: str, results: Path) -> pd.DataFrame:
    return dirtune.query(sql, results).to_pandas()


def metrics(results: Path, study: str = "tiny") -> pd.DataFrame:
    sql = f"""select arm, seed, split, selection, region, metric, value, n
              from metrics join trials using (trial_id) where study = '{study}' order by all"""
    return rows(sql, results)
