"""Run with `pytest -m gpu tests/training/test_on_gpu.py` on a machine with a CUDA device: what only a GPU can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dirtune.config import TrialConfig
from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import ResidentData
from dirtune.data.store import read_manifest
from dirtune.io.storage import Storage
from dirtune.training.distributed import Ranks
from dirtune.training.evaluation import predict
from dirtune.training.loop import run_epochs, run_steps
from dirtune.training.state import begin_training
from dirtune.training.trial import TrialRun
from tests.training.gloo import on_ranks
from tests.training.runs import TERMS, Configure, finish, job_of, trained, weights_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICE = torch.device("cuda")
IMAGES: dict[str, Any] = {"terms": TERMS, "model": {"encoder": {"name": "cnn", "channels": 8}, "projection_dim": 8}}
SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.001, "epochs": 2}


def on_device(data_root: str, device: torch.device = DEVICE) -> ResidentData:
    storage = Storage.open(data_root)
    return read_without_ray(storage, read_manifest(storage, "toy"), device)


@pytest.fixture(scope="module")
def data(data_root: Path) -> ResidentData:
    return on_device(str(data_root))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_trains_to_about_the_weights_of_float32(
    configuration: Configure, data: ResidentData, precision: str, channels_last: bool
) -> None:
    recipe = {**SGD, "gradient_clip": 1.0, "channels_last": channels_last}
    plain = trained(configuration(**IMAGES, recipe={**SGD, "gradient_clip": 1.0}), data)
    half = trained(configuration(**IMAGES, recipe={**recipe, "precision": precision}), data)
    assert {value.dtype for value in half.model.state_dict().values()} == {torch.float32}
    for name, value in weights_of(half).items():
        torch.testing.assert_close(value, weights_of(plain)[name], rtol=0.05, atol=0.01)
    assert half.history[-1]["train/loss"] == pytest.approx(plain.history[-1]["train/loss"], rel=0.02)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_an_interrupted_trial_resumes_with_its_loss_scale(
    configuration: Configure, data: ResidentData, tmp_path: Path, precision: str
) -> None:
    recipe = {"epochs": 3, "precision": precision, "gradient_clip": 1.0, "channels_last": True}
    job = job_of(configuration(**IMAGES, recipe=recipe), data)
    whole = finish(TrialRun(job, data, Storage.open(tmp_path / "whole"))).training.get_state()
    TrialRun(job, data, Storage.open(tmp_path / "parts"), waits_for_checkpoints=True).step()
    again = finish(TrialRun(job, data, Storage.open(tmp_path / "parts"))).training.get_state()
    assert again["scaler"] == whole["scaler"]
    assert bool(whole["scaler"]) is (precision == "fp16")
    for part in ("model", "optimizer"):
        torch.testing.assert_close(again[part], whole[part], rtol=1e-3, atol=1e-5)


def test_gpu_and_cpu_agree_on_the_first_steps(configuration: Configure, data: ResidentData, data_root: Path) -> None:
    config = configuration(**IMAGES, recipe={**SGD, "accumulation": 4})
    on_cpu = on_device(str(data_root), torch.device("cpu"))
    losses = [[float(loss.total) for loss in run_steps(begin_training(config, each))] for each in (data, on_cpu)]
    # Convolutions are in TF32
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def peak_of(config: TrialConfig, data: ResidentData) -> int:
    """Bytes that a step takes on top of the data and of what is held between steps."""
    steps = run_steps(begin_training(config, data))
    # Libraries take their workspaces
    next(steps)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    next(steps)
    return torch.cuda.max_memory_allocated() - before


def test_micro_batches_and_half_precision_take_less_memory(configuration: Configure, data: ResidentData) -> None:
    model = {"encoder": {"name": "cnn", "channels": 512}}
    # Activations shall outweigh gradients
    views = {"count": 8}

    def peak(**recipe: Any) -> int:
        recipe = {**SGD, "batch_size": 96, "views": views, **recipe}
        return peak_of(configuration(model=model, recipe=recipe), data)

    whole = peak()
    assert peak(accumulation=8) < 0.9 * whole
    assert peak(precision="bf16") < whole


def with_batch_norm(
    rank: int, world: int, data_root: str, configs: dict[str, TrialConfig]
) -> dict[str, dict[str, Tensor]]:
    """The weights, statistics and predictions after training on the one GPU."""
    torch.backends.cudnn.allow_tf32 = False
    data, found = on_device(data_root), {}
    for name, config in configs.items():
        training = begin_training(config, data, Ranks(rank, world))
        list(run_epochs(training))
        predictions = torch.from_numpy(predict(training, "test"))
        state = {key: value.cpu() for key, value in weights_of(training).items()}
        found[name] = {**state, "predictions": predictions}
    return found


def test_synchronized_batch_normalization_on_two_ranks_is_that_of_one_process(
    configuration: Configure, data_root: Path
) -> None:
    # Both ranks share the GPU, which gloo allows and NCCL does not.
    recipe = {**SGD, "batch_size": 101, "learning_rate": 1e-4, "epochs": 1}
    configs = {
        name: configuration(model={"encoder": {"name": "resnet18"}}, recipe={**recipe, "sync_batch_norm": is_asked})
        for name, is_asked in {"synchronized": True, "apart": False}.items()
    }
    expected = on_ranks(1, with_batch_norm, str(data_root), configs)[0]["apart"]
    (first, second) = on_ranks(2, with_batch_norm, str(data_root), configs)
    statistic = "encoder.network.bn1.running_var"
    for found in (first, second):
        torch.testing.assert_close(found["synchronized"], expected, rtol=1e-2, atol=1e-3)
    apart = first["apart"][statistic] - expected[statistic]
    assert apart.abs().max() > 2 * (first["synchronized"][statistic] - expected[statistic]).abs().max()
