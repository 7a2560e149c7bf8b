"""Run with `pytest tests/training/test_dense_loss.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from dirtune.batch import Batch, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.data.cache import get_rank_share
from dirtune.frozen import read
from dirtune.losses import LOSSES
from dirtune.losses.conr import ConR
from dirtune.losses.pairs import normalize_rows
from dirtune.manifest import DenseLabels, LabelSpec
from dirtune.models.regressor import RegressorOutput
from dirtune.nested import merge
from dirtune.reweighting.density import label_bins
from dirtune.training.dense_loss import (
    MAX_FITTED_PIXELS,
    DenseLoss,
    compute_dense_bins,
    make_dense_term_inputs,
    make_pixel_labels,
)
from dirtune.training.distributed import Ranks
from dirtune.training.objective import Loss
from tests.training.gloo import on_ranks

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "regularizers"
SPEC = LabelSpec(
    name="depth",
    unit="m",
    low=0.0,
    high=10.0,
    bin_width=0.1,
    num_bins=100,
    dense=DenseLabels(column="depth", unit_per_count=0.001, height=8, width=6),
)
CONR = {"variant": "nyu", "omega": 0.5, "beta": 0.2, "push_power": 0.2, "tau": 0.2}
SETTINGS: dict[str, Any] = {
    "data": {"name": "nyud2"},
    "model": {"encoder": {"name": "depth_resnet"}, "label_scale": 2.0, "label_offset": 0.0},
    "loss": {"name": "mse"},
    "alpha": 0.5,
}


def _config(**settings: Any) -> TrialConfig:
    return read(TrialConfig, merge(SETTINGS, settings), where="test")


def _batch(views: int = 1, rows: int = 4) -> Batch:
    """Labels of 8 x 6 pixels, an eighth of them missing."""
    generator = torch.Generator().manual_seed(views)
    maps = 0.7 + 9 * torch.rand(views, rows, 8, 6, generator=generator)
    maps[torch.rand(maps.shape, generator=generator) < 0.125] = 0.0
    return Batch(
        views=tuple({"depth": each} for each in maps),
        labels=torch.zeros(rows),
        label_bins=torch.zeros(rows, dtype=torch.int64),
        weights=torch.ones(rows),
        rows=torch.arange(rows),
    )


def _output(rows: int, seed: int = 0) -> RegressorOutput:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, 5, 4, 3, generator=generator)
    predictions = 10 * torch.rand(rows, 4, 3, generator=generator)
    return RegressorOutput(embeddings, embeddings.mean((2, 3)), predictions)


def _loss(
    config: TrialConfig, weights: torch.Tensor, output: RegressorOutput, batch: Batch, ranks: Ranks | None = None
) -> Loss:
    labels = TrainingLabels(
        labels=torch.zeros(4), label_bins=torch.zeros(4, dtype=torch.int64), spec=SPEC, label_scale=2.0
    )
    counts = torch.arange(100).numpy()
    pixels = make_pixel_labels(labels, counts)
    found: Loss = DenseLoss(config, labels, pixels, weights)(output, batch, ranks or Ranks())
    return found


def _bin(label: float) -> int:
    return min(int(np.float32(label) * np.float32(10)), 99)


@pytest.mark.parametrize(("name", "power"), [("mse", 2), ("l1", 1)])
def test_the_regression_loss_is_the_weighted_mean_over_labeled_pixels(name: str, power: int) -> None:
    batch, output = _batch(), _output(4)
    weights = torch.rand(100, generator=torch.Generator().manual_seed(1))
    total, count = 0.0, 0
    for image in range(4):
        for y in range(4):
            for x in range(3):
                label = float(batch.views[0]["depth"][image, 2 * y + 1, 2 * x + 1])
                if label > 0:
                    error = abs(float(output.predictions[image, y, x]) - label) / 2.0
                    total += float(weights[_bin(label)]) * error**power
                    count += 1
    assert 30 < count < 48
    loss = _loss(_config(loss={"name": name}), weights, output, batch)
    assert float(loss.parts["regression"]) == pytest.approx(total / count, rel=1e-5)
    assert float(loss.total) == pytest.approx(0.5 * total / count, rel=1e-5)


def test_a_pixel_without_label_gets_no_gradient() -> None:
    batch, output = _batch(), _output(4)
    predictions = output.predictions.clone().requires_grad_()
    _loss(_config(), torch.ones(100), output._replace(predictions=predictions), batch).total.backward()
    labels = batch.views[0]["depth"][:, 1::2, 1::2]
    assert torch.equal(predictions.grad != 0, labels > 0)


@pytest.mark.parametrize("name", ["l1", "gai", "bni"])
def test_a_batch_without_labeled_pixels_has_a_loss_and_gradient_of_zero(name: str) -> None:
    batch, output = _batch(), _output(4)
    batch.views[0]["depth"].zero_()
    predictions, embeddings = (each.clone().requires_grad_() for each in (output.predictions, output.embeddings))
    config = _config(loss={"name": name}, terms={"conr": CONR})
    loss = _loss(config, torch.ones(100), output._replace(predictions=predictions, embeddings=embeddings), batch)
    loss.total.backward()
    assert {part: float(value.detach()) for part, value in loss.parts.items()} == {"regression": 0.0, "conr": 0.0}
    for each in (predictions, embeddings):
        assert torch.equal(each.grad, torch.zeros_like(each))


def test_terms_read_flattened_embeddings_and_means_over_pixels() -> None:
    batch, output = _batch(), _output(4)
    weights = torch.rand(100, generator=torch.Generator().manual_seed(1))
    labels = batch.views[0]["depth"][:, 1::2, 1::2]
    means = []
    for values in (labels, output.predictions, None):
        by_image = []
        for image in range(4):
            truth = labels[image].flatten().tolist()
            predicted = (
                [float(weights[_bin(each)]) for each in truth] if values is None else values[image].flatten().tolist()
            )
            chosen = [v for v, y in zip(predicted, truth, strict=True) if y > 0]
            by_image.append(sum(chosen) / len(chosen))
        means.append(torch.tensor(by_image))
    inputs = make_dense_term_inputs(
        normalize(output.embeddings.flatten(1)),
        means[0][None, :, None, None],
        means[1][None, :, None, None],
        means[2][None, :, None, None],
        spec=SPEC,
        samples=torch.arange(4),
    )
    expected = ConR(**CONR)(inputs)
    loss = _loss(_config(terms={"conr": CONR}), weights, output, batch)
    assert float(expected) > 0
    torch.testing.assert_close(loss.parts["conr"], expected)


def test_an_image_without_labeled_pixels_takes_no_part_in_terms() -> None:
    batch, output = _batch(views=2), _output(8)
    # In the second view only, as after a crop
    batch.views[1]["depth"][2] = 0.0
    embeddings = output.embeddings.clone().requires_grad_()
    config = _config(terms={"conr": CONR})
    found = _loss(config, torch.ones(100), output._replace(embeddings=embeddings), batch).parts["conr"]
    found.backward()
    assert float(found.detach()) > 0
    assert not embeddings.grad[[2, 6]].any()
    without, smaller = _select_images(batch, output, torch.tensor([0, 1, 3]))
    torch.testing.assert_close(_loss(config, torch.ones(100), smaller, without).parts["conr"], found.detach())


def _select_images(batch: Batch, output: RegressorOutput, images: torch.Tensor) -> tuple[Batch, RegressorOutput]:
    """The batch and the output of the images alone; rows are those of the views one after the other."""
    rows = torch.cat([images + view * len(batch.rows) for view in range(len(batch.views))])
    some = replace(
        batch,
        views=tuple({"depth": view["depth"][images]} for view in batch.views),
        labels=batch.labels[images],
        label_bins=batch.label_bins[images],
        weights=batch.weights[images],
        rows=batch.rows[images],
    )
    return some, RegressorOutput(*(None if each is None else each[rows] for each in output))


def _loss_on_a_rank(rank: int, world: int) -> dict[str, Any]:
    """Loss and gradient of the embeddings of this rank's images, of which one has no label in one view."""
    batch, output = _batch(views=2), _output(8)
    batch.views[1]["depth"][2] = 0.0
    images = torch.arange(*get_rank_share(4, rank, world))
    batch, output = _select_images(batch, output, images)
    embeddings = output.embeddings.double().requires_grad_()
    output = RegressorOutput(embeddings, embeddings.mean((2, 3)), output.predictions.double())
    loss = _loss(_config(terms={"conr": CONR}), torch.ones(100), output, batch, Ranks(rank, world))
    loss.total.backward()
    # Averaged as by the training loop
    return {"loss": loss.total.detach(), "gradient": embeddings.grad / world, "images": images}


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_leave_out_the_same_images_as_one_process(world: int) -> None:
    expected = _loss_on_a_rank(0, 1)
    assert expected["gradient"].any()
    for found in on_ranks(world, _loss_on_a_rank):
        rows = torch.cat([found["images"], found["images"] + 4])
        torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-12, atol=0)
        torch.testing.assert_close(found["gradient"], expected["gradient"][rows], rtol=1e-12, atol=1e-15)


def test_terms_know_the_label_scale() -> None:
    # Predictions of up to 10, divided by the scale before they are rounded and compared
    term = {"variant": "official_sts", "omega": 0.5, "push_power": 0.2}
    found = [
        float(
            _loss(
                _config(model={"label_scale": scale}, terms={"conr": term}), torch.ones(100), _output(4), _batch()
            ).parts["conr"]
        )
        for scale in (1.0, 100.0)
    ]
    # With the large scale all predictions are similar, and every pair of different labels is pushed apart.
    assert found[0] < found[1]


def test_the_first_of_two_views_can_be_reserved_for_the_regression_loss() -> None:
    views = {"count": 2, "augmentation": "depth", "regression": "first"}
    config = _config(recipe={"views": views}, terms={"conr": CONR})
    batch, output = _batch(views=2), _output(8)
    loss = _loss(config, torch.ones(100), output, batch)
    first = Batch(**{**vars(batch), "views": batch.views[:1]})
    second = Batch(**{**vars(batch), "views": batch.views[1:]})
    of_first = RegressorOutput(*(None if each is None else each[:4] for each in output))
    of_second = RegressorOutput(*(None if each is None else each[4:] for each in output))
    one = _config(terms={"conr": CONR})
    regression = _loss(one, torch.ones(100), of_first, first).parts["regression"]
    conr = _loss(one, torch.ones(100), of_second, second).parts["conr"]
    torch.testing.assert_close(loss.parts, {"regression": regression, "conr": conr})


def test_bins_of_pixels_are_the_bins_of_labels() -> None:
    millimeters = torch.arange(1, 10_001)
    labels = millimeters.float() * 0.001
    expected = label_bins(millimeters.numpy() / 1000, SPEC)
    assert torch.equal(compute_dense_bins(labels, SPEC), torch.from_numpy(expected))
    assert compute_dense_bins(torch.zeros(2), SPEC).tolist() == [-1, -1]


def test_a_loss_is_fitted_to_the_labels_of_pixels() -> None:
    none = TrainingLabels(labels=torch.zeros(4), label_bins=torch.zeros(4, dtype=torch.int64), spec=SPEC)
    counts = np.zeros(100, dtype=np.int64)
    counts[[7, 20, 99]] = 3_000_000_000, 1_000_000_000, 5
    found = make_pixel_labels(none, counts)
    assert abs(len(found.labels) - MAX_FITTED_PIXELS) <= 3
    assert torch.bincount(found.label_bins)[[7, 20, 99]].tolist() == [750_000, 250_000, 1]
    assert found.labels.unique().tolist() == pytest.approx([0.75, 2.05, 9.95])
    few = make_pixel_labels(none, counts // 1_000_000_000)
    assert few.label_bins.tolist() == [7, 7, 7, 20]


@pytest.mark.parametrize("name", ["bni", "gai"])
def test_balanced_mse_is_fitted_to_the_labels_of_pixels(name: str) -> None:
    batch, output = _batch(), _output(4)
    loss = _loss(_config(loss={"name": name}), torch.ones(100), output, batch)
    chosen = batch.views[0]["depth"][:, 1::2, 1::2]
    predicted, truth = output.predictions[chosen > 0] / 2, chosen[chosen > 0] / 2
    prior = make_pixel_labels(
        TrainingLabels(labels=torch.zeros(4), label_bins=torch.zeros(4, dtype=torch.int64), spec=SPEC, label_scale=2.0),
        np.arange(100),
    )
    expected = LOSSES[name]().fit(prior)(predicted, truth, torch.ones(len(predicted)))
    torch.testing.assert_close(loss.parts["regression"], expected)


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("conr_nyu_*.npz")))
def test_dense_conr_equals_the_official_code(name: str) -> None:
    with np.load(GOLDEN / f"{name}.npz") as vector:
        arrays = {key: torch.from_numpy(vector[key]) for key in vector if vector[key].ndim}
        given, expected = json.loads(str(vector["hparams"])), float(vector["loss"])
    leaf = arrays["features"].clone().requires_grad_()
    maps = [arrays[key].squeeze(1)[None] for key in ("depth", "output", "weights")]
    assert (maps[0] > 0).all()
    inputs = make_dense_term_inputs(normalize_rows(leaf.flatten(1)), *maps, spec=SPEC, samples=torch.arange(len(leaf)))
    term = ConR(variant="nyu", omega=given["w"], tau=given["t"], push_power=given["e"])
    loss = term(inputs)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-14)
    largest = float(arrays["grad"].abs().max())
    torch.testing.assert_close(leaf.grad, arrays["grad"], rtol=0, atol=1e-9 * largest)


def test_the_golden_vectors_exist() -> None:
    assert len(list(GOLDEN.glob("conr_nyu_*.npz"))) == 3
