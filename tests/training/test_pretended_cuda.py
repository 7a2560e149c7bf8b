"""Device and waits of training steps, on a pretended CUDA device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dirtune.data.augmentations import AUGMENTATIONS, Draws
from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import ResidentData
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import read_manifest
from dirtune.io.storage import Storage
from dirtune.losses import srl
from dirtune.manifest import Manifest
from dirtune.training.loop import run_steps
from dirtune.training.state import Training, begin_training
from dirtune.training.trial import TrialRun, read_progress
from tests.data.faces import write_faces
from tests.pretended_cuda import (
    CUDA,
    HOST,
    Device,
    DeviceMismatch,
    Stream,
    StreamMisuse,
    Wait,
    is_on_device,
    pretended_cuda,
)
from tests.training.runs import Configure, job_of

IMAGES: dict[str, Any] = {"encoder": {"name": "cnn", "channels": 4}, "projection_dim": 4}
EPOCH: dict[str, Any] = {"epochs": 2, "batch_size": 101}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    with pretended_cuda(monkeypatch) as device:
        yield device


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Manifest]:
    return write_faces(tmp_path_factory.mktemp("data"))


def read(root: Path, *, resident: bool = True) -> ResidentData:
    storage = Storage.open(root)
    budget = MemoryBudget(device_bytes=2**30 if resident else 0, host_bytes=2**30)
    return read_without_ray(storage, read_manifest(storage, "toy"), CUDA, budget)


def count_waits(device: Device, training: Training) -> list[Wait]:
    """The waits in the second step of the run's next epoch."""
    steps = run_steps(training)
    next(steps)
    with device.watch() as waits:
        next(steps)
    return waits


def test_a_computation_that_mixes_devices_raises(device: Device) -> None:
    ours, theirs = torch.ones(2), torch.ones(2, device=CUDA)
    assert (ours.device.type, theirs.device.type, (theirs * 2).device.type) == ("cpu", "cuda", "cuda")
    # A number of the host is an argument of the kernel.
    assert is_on_device(theirs * torch.tensor(2.0))
    for mix in (lambda: ours + theirs, lambda: torch.cat([ours, theirs]), theirs.numpy, lambda: ours[theirs.long()]):
        with pytest.raises(DeviceMismatch, match=r"host|device"):
            mix()


def test_a_wait_is_recorded(device: Device) -> None:
    there = torch.arange(4.0, device=CUDA)
    pinned = torch.ones(4).pin_memory()
    quiet = [
        lambda: pinned.to(CUDA, non_blocking=True),
        lambda: there.to("cpu", non_blocking=True),
        lambda: there[torch.arange(2, device=CUDA)],
        lambda: there.masked_fill_(there > 1, 0.0),
        lambda: there.clone().__setitem__(there > 1, 0.0),
        lambda: torch.zeros(3, device=CUDA),
    ]
    waiting = [
        lambda: float(there[0]),
        lambda: there.tolist(),
        lambda: there.cpu(),
        lambda: there.to("cpu"),
        lambda: there[there > 1],
        lambda: there.nonzero(),
        lambda: pinned.to(CUDA),
        lambda: torch.ones(4).to(CUDA, non_blocking=True),
        lambda: torch.tensor([1.0], device=CUDA),
        lambda: there.new_tensor([1.0]),
        lambda: there[[0, 1]],
    ]
    for number, act in enumerate([*quiet, *waiting]):
        with device.watch() as waits:
            act()
        assert bool(waits) is (number >= len(quiet)), number


def test_a_gradient_comes_back_to_the_host(device: Device) -> None:
    weight = torch.ones(3, requires_grad=True)
    (weight * 2).to(CUDA).sum().backward()
    assert weight.grad is not None
    assert not is_on_device(weight.grad)
    assert weight.grad.tolist() == [2.0] * 3


def test_work_on_one_memory_without_an_order_raises(device: Device) -> None:
    side, buffer = torch.cuda.Stream(CUDA), torch.ones(4).pin_memory()

    def copy() -> torch.Tensor:
        with torch.cuda.stream(side):
            return buffer.to(CUDA, non_blocking=True)

    early, unknown, right = copy(), copy(), copy()
    with pytest.raises(StreamMisuse, match="before the stream that writes it"):
        early + 1
    torch.cuda.current_stream().wait_stream(side)
    with pytest.raises(StreamMisuse, match="not recorded"):
        unknown + 1
    right.record_stream(torch.cuda.current_stream())
    result = right + 1
    with torch.cuda.stream(side), pytest.raises(StreamMisuse, match="before the stream that writes it"):
        result + 1
    # Its copies are not done for the host; NumPy fills it, as a decoder does.
    buffer.numpy()[:] = 2
    with pytest.raises(StreamMisuse, match="pinned memory"):
        copy()
    side.record_event().synchronize()
    copy()


@pytest.mark.parametrize("omitted", [None, (Stream, "wait_event"), (torch.Tensor, "record_stream")])
def test_a_streamed_batch_is_copied_ahead_on_a_stream_of_its_own(
    device: Device, monkeypatch: pytest.MonkeyPatch, faces: tuple[Storage, Manifest], omitted: tuple[type, str] | None
) -> None:
    budget = MemoryBudget(device_bytes=0, host_bytes=2**30)
    batches = torch.arange(20).split(5)
    expected = read_without_ray(*faces, HOST, budget).splits["train"].read(batches)
    data = read_without_ray(*faces, CUDA, budget)
    if omitted is not None:
        monkeypatch.setattr(*omitted, lambda *_: None)
        with pytest.raises(StreamMisuse):
            next(data.splits["train"].read(batches))["image"] + 1
        return
    with device.watch() as waits:
        read = data.splits["train"].read(batches)
        used = [{name: value.clone() for name, value in next(read).items()}]
        # This batch and those that are being copied
        assert data.decoded.images == 15
        used.extend({name: value.clone() for name, value in inputs.items()} for inputs in read)
    assert waits == []
    for ours, theirs in zip(used, expected, strict=True):
        assert all(torch.equal(ours[name].cpu(), theirs[name]) for name in theirs)


@pytest.mark.parametrize("form", ["paper", "cosine"])
@pytest.mark.parametrize("label_factor", [False, True])
def test_srl_of_a_gpu_has_the_sizes_of_all_bins_and_the_values_of_the_cpu(
    device: Device, form: Any, label_factor: bool
) -> None:
    drawn = torch.Generator().manual_seed(0)
    vectors, points, surrogate = (torch.randn(rows, 5, generator=drawn).double() for rows in (12, 30, 9))
    bins = torch.tensor([1, 1, 2, 2, 2, 3, 3, 4, 6, 6, 7, 7])
    left_out = torch.tensor([True, False, False, True, False, True, False, False, False])

    def compute(there: torch.device) -> list[torch.Tensor]:
        leaf = vectors.clone().to(there).requires_grad_()
        parts = srl.srl(
            leaf,
            bins.to(there),
            surrogate=surrogate.to(there),
            points=torch.nn.functional.normalize(points, dim=1).to(there),
            bin_values=torch.arange(9.0).double().square().to(there),
            left_out=left_out.to(there),
            tau=0.1,
            form=form,
            label_factor=label_factor,
        )
        return [*parts, torch.autograd.grad(parts[0] + 2 * parts[1] + 3 * parts[2], [leaf])[0]]

    expected, found = compute(HOST), compute(CUDA)
    torch.testing.assert_close([value.cpu() for value in found], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [None, (14, 18)])
def test_a_view_is_that_of_the_cpu_and_made_without_a_wait(
    device: Device, name: str, size: tuple[int, int] | None
) -> None:
    pictures = torch.rand(16, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    there = pictures.to(CUDA)

    def make(images: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return AUGMENTATIONS[name](images, Draws(generator, 16, slice(None), images.device), size)

    make(there)
    with device.watch() as waits:
        view = make(there)
    assert waits == []
    assert is_on_device(view)
    expected = make(pictures)
    # `strong` scales crops: the positions of its pixels are rounded differently.
    torch.testing.assert_close(view.cpu(), expected, rtol=0, atol=2e-5 if name == "strong" else 0)
    assert name == "none" or not torch.equal(
        expected, AUGMENTATIONS["none"](pictures, Draws(torch.Generator(), 16, slice(None), HOST), size)
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"terms": {"conr": {}}, "recipe": {"views": {"count": 3, "augmentation": "light", "regression": "first"}}},
        {"terms": {"accon": {}}, "recipe": {"views": {"count": 2, "augmentation": "light"}}},
        {"terms": {"accon": {}}, "recipe": {"views": {"count": 2, "augmentation": "strong"}}},
    ],
    ids=["plain", "conr", "accon", "accon-strong"],
)
@pytest.mark.parametrize("kind", ["resident", "streamed", "resumed"])
def test_no_step_waits(
    device: Device, configuration: Configure, data_root: Path, tmp_path: Path, settings: dict[str, Any], kind: str
) -> None:
    config = configuration(**{**settings, "model": IMAGES, "recipe": {**settings.get("recipe", {}), **EPOCH}})
    data = read(data_root, resident=kind != "streamed")
    if kind == "resumed":
        TrialRun(job_of(config, data), data, Storage.open(tmp_path), waits_for_checkpoints=True).step()
        progress = read_progress(Storage.open(tmp_path), job_of(config, data).trial_id)
        assert progress is not None
        recorded = (progress.trial["float32_arithmetic"], progress.trial["data_placement"])
        assert recorded == ("tf32 (convolutions, recurrent layers)", "device")
        training = TrialRun(job_of(config, data), data, Storage.open(tmp_path)).training
        assert training.epoch == 1
    else:
        training = begin_training(config, data)
    assert Counter(count_waits(device, training)) == {}
