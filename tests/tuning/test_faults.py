"""A sample of `benchmarks/faults.py`, and of `benchmarks/bit_flips.py`: run with `pytest tests/tuning/test_faults.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# One interpreter for both, because its imports take seconds
SCRIPT = """
import json, runpy, sys
for arguments in json.loads(sys.argv[1]):
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""
Results = dict[str, Any]

pytestmark = pytest.mark.slow


def run(folder: Path, faults: list[str], flips: int) -> Results:
    """Return the results of both benchmarks, by name."""
    options = {"faults": faults, "bit_flips": ["--flips", str(flips)]}
    files = {name: folder / f"{name}.json" for name in options}
    calls = [[str(BENCHMARKS / f"{name}.py"), *each, "--json", str(files[name])] for name, each in options.items()]
    command = [sys.executable, "-c", SCRIPT, json.dumps(calls)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=BENCHMARKS.parent,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads(file.read_text()) for name, file in files.items()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Results:
    faults = ["--scenarios", "plain", "--faults", "kill", "error", "--step", "300", "--first", "150"]
    return run(tmp_path_factory.mktemp("faults"), faults, flips=15)


def check_faults(results: Results) -> None:
    assert all(each["runs"] == each["equal"] > 0 for each in results["faults"])
    assert [each["failures"] for each in results["faults"]] == [[] for _ in results["faults"]]


def check_flips(results: Results) -> None:
    assert {name: each["different"] for name, each in results["bit_flips"].items()} == dict.fromkeys(
        results["bit_flips"], 0
    )
    # These two are made again from the records.
    made_again = {"compacted", "optuna.log"}
    assert all(each["refused"] for name, each in results["bit_flips"].items() if name not in made_again)


def test_a_sweep_with_a_storage_fault_ends_with_the_undisturbed_tables(sample: Results) -> None:
    check_faults(sample)


def test_a_flipped_bit_in_any_file_is_found_or_changes_nothing(sample: Results) -> None:
    check_flips(sample)


@pytest.mark.soak
def test_faults_at_every_25th_operation_and_many_flipped_bits(tmp_path: Path) -> None:
    results = run(tmp_path, ["--step", "25"], flips=400)
    check_faults(results)
    check_flips(results)
