from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dirtune.training.eager_optimizers import without_compiler


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.01, "fused": True}),
        (torch.optim.Adam, {"lr": 0.1}),
        (torch.optim.AdamW, {"lr": 0.1, "fused": True}),
    ],
)
def test_steps_and_states_are_those_of_torch(kind: type[torch.optim.Optimizer], settings: dict[str, Any]) -> None:
    def train(made: Callable[..., torch.optim.Optimizer]) -> tuple[list[Tensor], dict[str, Any]]:
        drawn = torch.Generator().manual_seed(0)
        first, second = (torch.randn(4, generator=drawn, requires_grad=True) for _ in range(2))
        optimizer = made([first], **settings)
        # A third that has no gradient in the first step, and so another number of steps
        third = torch.randn(3, 2, generator=drawn, requires_grad=True)
        optimizer.add_param_group({"params": [second, third], "lr": 0.01})
        for step in range(4):
            optimizer.zero_grad()
            loss = (first * second).exp().sum() + torch.randn(4, generator=drawn) @ first
            (loss if step == 0 else loss + third.sin().sum()).backward()
            optimizer.step()
            if step == 1:
                state = optimizer.state_dict()
                optimizer = made([{"params": [first]}, {"params": [second, third]}], **settings)
                optimizer.load_state_dict(state)
        return [first, second, third], optimizer.state_dict()

    (expected, state), (got, own) = train(kind), train(without_compiler(kind))
    assert all(torch.equal(one, other) for one, other in zip(expected, got, strict=True))
    assert own["param_groups"] == state["param_groups"]
    for of_torch, of_ours in zip(state["state"].values(), own["state"].values(), strict=True):
        assert all(torch.equal(of_torch[name], of_ours[name]) for name in of_torch)
    assert isinstance(without_compiler(kind)([torch.zeros(1, requires_grad=True)], lr=1.0), kind)


@pytest.mark.slow
def test_a_training_does_not_import_the_compiler() -> None:
    program = """
import sys
import torch
from dirtune.training.loop import run_epochs
from dirtune.training.state import begin_training
from tests.training.toy_inputs import make_case_config, make_data

data = make_data("vector", torch.device("cpu"))
for _ in run_epochs(begin_training(make_case_config("vector", {"recipe": {"epochs": 1}}), data)):
    pass
print([name for name in ("torch._dynamo", "scipy.stats") if name in sys.modules])
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert outcome.stdout == "[]\n", outcome.stderr
