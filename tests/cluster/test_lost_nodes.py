"""A sweep on a cluster that loses and gains nodes: `pytest -m soak tests/cluster/test_lost_nodes.py`; some minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).resolve().parents[2] / "benchmarks/nodes.py"


@pytest.mark.soak
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_sweep_that_loses_a_node_uses_a_new_one_and_ends_with_the_same_tables(digits: Path, nodes: int) -> None:
    options = ["--trials", "30", "--nodes", str(nodes), "--data", str(digits)]
    done = subprocess.run([sys.executable, CAMPAIGN, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
