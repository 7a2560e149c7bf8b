"""Run with `pytest tests/cluster/test_device_test.py`: the test of GPUs, on a pretended one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dirtune.cluster import device_test
from tests.pretended_cuda import Device, pretended_cuda


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    with pretended_cuda(monkeypatch) as device:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        yield device


def test_every_gpu_computes_and_is_described(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert device_test.run() == []
    assert capsys.readouterr().out == "pretended, capability 9.0, 70 of 80 GiB free\n" * 2


def test_a_gpu_that_raises_or_computes_wrong_numbers_is_named(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual, calls = device_test._COMPUTATIONS["matrix product"], iter(range(10))

    def compute(images: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        # The second and the fourth call are on the GPUs.
        number = next(calls)
        if number == 3:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")
        return usual(images, filters) * (1.5 if number == 1 else 1.0)

    monkeypatch.setitem(device_test._COMPUTATIONS, "matrix product", compute)
    assert device_test.run() == [
        "GPU 0: RuntimeError: its matrix product differs from the CPU's by 50.0%",
        "GPU 1: RuntimeError: CUDA error: an illegal memory access was encountered",
    ]
    monkeypatch.setitem(device_test._COMPUTATIONS, "matrix product", lambda images, _: images * float("nan"))
    with pytest.raises(SystemExit, match="GPU 0: RuntimeError"):
        device_test.main()
