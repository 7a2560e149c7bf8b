"""Run with `pytest tests/training/test_sampling.py`: orders of training rows by their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dirtune.data import cache
from dirtune.data.cache import ResidentData
from dirtune.errors import InputError
from dirtune.randomness import derive_seed
from dirtune.sampling import SAMPLING, Inverse, Stratified
from dirtune.training.loop import run_epochs
from dirtune.training.stages import list_stages
from dirtune.training.state import begin_training
from tests.training.conftest import TAIL
from tests.training.runs import Configure, in_float64, weights_of
from tests.training.toy_inputs import make_case_config, make_data

BINS = np.random.default_rng(3).permutation(np.repeat(np.arange(10), TAIL))


def test_training_on_drawn_rows_equals_a_plain_loop(configuration: Configure, toy: ResidentData) -> None:
    data = in_float64(toy)
    recipe = {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.0, "epochs": 2, "batch_size": 50}
    config = configuration(sampling={"name": "inverse", "power": 0.5}, recipe=recipe)
    training, plain = begin_training(config, data), begin_training(config, data)
    training.model.double()
    model = plain.model.double()
    list(run_epochs(training))
    split, optimizer = data.splits["train"], torch.optim.SGD(model.parameters(), lr=0.02)
    chances = np.array([1 / np.sqrt(TAIL[int(number)]) for number in split.label_bins])
    bounds = np.cumsum(chances)
    for number in (1, 2):
        draws = np.random.default_rng(derive_seed(0, "sampling", number)).random(202) * bounds[-1]
        rows = torch.from_numpy((bounds[None] <= draws[:, None]).sum(axis=1))
        for batch in rows.split(50):
            optimizer.zero_grad()
            errors = model({"vector": split.inputs["vector"][batch]}).predictions - split.labels[batch]
            errors.abs().mean().backward()
            optimizer.step()
    torch.testing.assert_close(weights_of(training), weights_of(plain), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("power", "expected"), [(1.0, [1.0] * 10), (0.5, np.sqrt(TAIL)), (0.0, TAIL)])
def test_bins_are_drawn_as_often_as_a_power_of_their_counts(power: float, expected: Any) -> None:
    drawn = [Inverse(power=power).make_order(BINS, np.random.default_rng(seed)) for seed in range(200)]
    counts = np.bincount(BINS[np.concatenate(drawn)], minlength=10)
    shares = np.array(expected) / np.sum(expected)
    # Three standard deviations of 40,400 draws
    assert (np.abs(counts / 40_400 - shares) < 3 * np.sqrt(shares / 40_400)).all()
    # Within a bin all rows are alike.
    rows = np.bincount(np.concatenate(drawn), minlength=202)[BINS == 9]
    assert rows.min() > 0


def test_every_batch_has_the_bins_in_their_proportions() -> None:
    orders = [Stratified().make_order(BINS, np.random.default_rng(seed)) for seed in (0, 1)]
    assert orders[0].tolist() != orders[1].tolist()
    for order in orders:
        assert sorted(order.tolist()) == list(range(202))
        for batch in np.split(BINS[order[:200]], 5):
            assert (np.abs(np.bincount(batch, minlength=10) - 40 * np.array(TAIL) / 202) < 2).all()


@pytest.mark.parametrize("name", SAMPLING)
def test_every_sampling_returns_rows_of_the_split_by_its_generator_alone(name: str) -> None:
    for bins in (np.array([4]), np.array([2, 2, 2]), BINS):
        orders = [SAMPLING[name]().make_order(bins, np.random.default_rng(seed)) for seed in (5, 5, 6)]
        assert orders[0].tolist() == orders[1].tolist()
        assert len(bins) < 200 or orders[0].tolist() != orders[2].tolist()
        assert all(len(order) == len(bins) and set(order) <= set(range(len(bins))) for order in orders)


def test_the_first_stage_of_regressor_re_training_is_not_sampled(configuration: Configure) -> None:
    for settings in ({}, {"reweighting": {"scheme": "inverse"}}):
        config = configuration(sampling={"name": "inverse"}, scheme={"name": "rrt", **settings})
        assert [stage.config.sampling is None for stage in list_stages(config)] == [True, False]


def test_where_it_has_no_form_it_is_refused_in_a_sentence(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_case_config("dense", {"sampling": {"name": "inverse"}})
    with pytest.raises(InputError, match="sampling: is not defined for per-pixel labels"):
        begin_training(config, make_data("dense", torch.device("cpu")))
    narrow = toy.manifest.splits["train"].model_copy(update={"bin_counts": (202, *[0] * 9)})
    manifest = toy.manifest.model_copy(update={"splits": {**toy.manifest.splits, "train": narrow}})
    config = configuration(sampling={"name": "stratified"})
    with pytest.raises(InputError, match=r"sampling: .*all training labels are in one; ingest with narrower bins"):
        begin_training(config, ResidentData(manifest=manifest, device=toy.device, splits=toy.splits))
    monkeypatch.setattr(cache.Split, "is_windowed", True)
    with pytest.raises(InputError, match=r"sampling: needs rows in any order.*read in windows; use more memory"):
        begin_training(config, toy)
