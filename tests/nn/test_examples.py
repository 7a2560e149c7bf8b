"""Run with `pytest tests/nn/test_examples.py`: the loops of the documentation run as they are written."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from pathlib import Path

import pytest
import torch

from tests.test_documentation import blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "losses.md"
EXAMPLES = blocks("python", PAGE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_loops_of_the_page_run(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        # Lightning remarks on workers and GPUs of this machine.
        warnings.simplefilter("ignore")
        exec(compile(EXAMPLES[number], str(PAGE), "exec"), {"__name__": "example"})
    value = float(re.search(r"\d+\.\d+|nan", printed.getvalue().strip().splitlines()[-1])[0])
    # The largest labels are about 30.
    assert math.isfinite(value)
    assert 0 < value < 40


def test_all_loops_are_there() -> None:
    assert len(EXAMPLES) == 3
