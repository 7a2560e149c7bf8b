"""Every loss, term, weighting, scheme, encoder and form of label on a pretended CUDA device: one device, counted waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dirtune.training.evaluation import evaluate_last_and_best
from dirtune.training.loop import run_epochs, run_steps
from dirtune.training.state import begin_training
from tests.pretended_cuda import CUDA, HOST, Device, pretended_cuda
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
    losses = [next(steps).total]
    with device.watch() as waits:
        losses.append(next(steps).total)
    if name in UNCOUNTED_WAITS:
        assert {wait.place.partition(":")[0] for wait in waits} == {UNCOUNTED_WAITS[name]}
    else:
        assert len(waits) == STEP_WAITS.get(name, 0), waits
    on_host = run_steps(begin_training(config, make_data(inputs, HOST)))
    expected = [next(on_host).total for _ in losses]
    tolerance = 2e-2 if name == "bf16" else 1e-5
    torch.testing.assert_close([loss.cpu() for loss in losses], expected, rtol=tolerance, atol=1e-6)
    # Whole, with validation, smoothing, second stage and the final evaluation
    training = begin_training(config, data)
    for _ in run_epochs(training):
        pass
    evaluate_last_and_best(training, representations=2)
