"""A sample of `benchmarks/faults.py`, and of `benchmarks/bit_flips.py`: run with `pytest tests/tuning/test_faults.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(tmp_path: Path, script: str, *options: str) -> Any:
    file = tmp_path / "results.json"
    command = [sys.executable, str(BENCHMARKS / script), *options, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "options",
    [
        ("--scenarios", "plain", "--faults", "kill", "error", "--step", "300", "--first", "150"),
        pytest.param(("--step", "25"), marks=pytest.mark.soak),
    ],
)
def test_a_sweep_with_a_storage_fault_ends_with_the_undisturbed_tables(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    results = run(tmp_path, "faults.py", *options)
    assert all(each["runs"] == each["equal"] > 0 for each in results)
    assert [each["failures"] for each in results] == [[] for _ in results]


@pytest.mark.parametrize("flips", [15, pytest.param(400, marks=pytest.mark.soak)])
def test_a_flipped_bit_in_any_file_is_found_or_changes_nothing(tmp_path: Path, flips: int) -> None:
    results = run(tmp_path, "bit_flips.py", "--flips", str(flips))
    assert {name: each["different"] for name, each in results.items()} == dict.fromkeys(results, 0)
    assert all(each["refused"] for name, each in results.items() if name != "compacted")
