"""`benchmarks/gpu_acceptance.py` on the CPU: its parts that need no GPU. Run with `pytest tests/test_gpu_acceptance.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_acceptance
from benchmarks.gpu_acceptance import CHECKS, Options, at_least, at_most

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def keep_float32_arithmetic() -> Iterator[None]:
    """Restore the arithmetic of GPUs, which a check changes for its own process."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    yield
    cudnn.allow_tf32, products.allow_tf32 = before


def test_the_checks_that_need_no_gpu_pass_here(tmp_path: Path) -> None:
    options = Options(torch.device("cpu"), tmp_path)
    for number in (0, 2, 4, 6, 7, 8):
        values = list(CHECKS[number].run(options))
        assert values
        # The time of a checkpoint depends on this machine's load.
        assert all(value.ok for value in values if "seconds" not in value.name), values


@pytest.mark.slow
def test_two_ranks_train_as_one_process_and_a_worker_without_a_gpu_says_so(tmp_path: Path) -> None:
    for number in (10, 11):
        values = list(CHECKS[number].run(Options(torch.device("cpu"), tmp_path)))
        assert [value for value in values if value.bound is not None]
        assert all(value.ok for value in values), values


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="a machine with two GPUs")
def test_without_two_gpus_nccl_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (value,) = CHECKS[10].run(Options(torch.device("cuda", 0), tmp_path))
    assert value.value == f"skipped: needs 2 GPUs of this machine, which has {torch.cuda.device_count()}"


def test_a_check_that_fails_or_does_not_end_is_counted(tmp_path: Path) -> None:
    assert (at_most("x", 2.0, 1.0).ok, at_most("x", 1.0, 1.0).ok, at_least("x", 1.0, 2.0).ok) == (False, True, False)
    script = tmp_path / "gpu_acceptance.py"
    script.write_text("raise SystemExit(3)")
    here = gpu_acceptance.__file__
    gpu_acceptance.__file__ = str(script)
    try:
        (value,) = gpu_acceptance.run_check(0, _parsed(), 60)
        assert (value.ok, value.value) == (False, "exit code 3: no error")
        script.write_text("import time; time.sleep(60)")
        (value,) = gpu_acceptance.run_check(0, _parsed(), 0.2)
        assert (value.ok, value.bound) == (False, "ends")
    finally:
        gpu_acceptance.__file__ = here


@pytest.mark.slow
def test_without_a_gpu_the_run_stops_after_the_environment_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_acceptance.py"), "--only", "0,7", "--json", str(file)]
    device = "cuda" if not torch.cuda.is_available() else "cpu"
    ended = subprocess.run([*command, "--device", device], capture_output=True, text=True, check=False)
    found = json.loads(file.read_text())
    if device == "cuda":
        assert (ended.returncode, found["failures"], list(found["checks"])) == (1, 1, ["environment"])
        assert "FAIL" in ended.stdout
    else:
        assert "environment" in found["checks"]


def _parsed() -> Any:
    return type("Parsed", (), {"device": "cpu", "results": "."})()
