"""Every loss, term, weighting, scheme, encoder and form of label on a pretended CUDA device: one device, counted waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dirtune.training.evaluation import evaluate_last_and_best
from dirtune.training.loop import run_epochs, run_steps
from dirtune.training.state import begin_training
from tests.pretended_cuda import CUDA, Device, pretended_cuda
from tests.training.toy_inputs import CASES, STEP_WAITS, UNCOUNTED_WAITS, make_case_config, make_data


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    with pretended_cuda(monkeypatch) as device:
        yield device


@pytest.mark.parametrize(
    ("name", "inputs", "settings"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_run_is_on_one_device_and_waits_only_where_it_must(
    device: Device, name: str, inputs: str, settings: dict[str, Any]
) -> None:
    data, config = make_data(inputs, CUDA), make_case_config(inputs, settings)
    steps = run_steps(begin_training(config, data))
    # The first step copies constants to the device.
    next(steps)
    with device.watch() as waits:
        next(steps)
    assert name in UNCOUNTED_WAITS or len(waits) == STEP_WAITS.get(name, 0), waits
    # Whole, with validation, smoothing, second stage and the final evaluation
    training = begin_training(config, data)
    for _ in run_epochs(training):
        pass
    evaluate_last_and_best(training, representations=2)
