"""Run with `pytest tests/training/test_separate_forwards.py`: forward passes whose batch normalization is apart."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, get_rank_share, make_epoch_order
from dirtune.errors import InputError
from dirtune.losses.supcon import supcon
from dirtune.recipe import Recipe
from dirtune.training import numerics
from dirtune.training.distributed import Ranks
from dirtune.training.loop import run_epochs, run_steps
from dirtune.training.stages import list_stages
from dirtune.training.state import Training, begin_training
from tests.training.gloo import on_ranks
from tests.training.runs import Configure, in_float64, same, weights_of
from tests.training.test_stages import WithBatchNorm

APART = {"count": 3, "regression": "first", "passes": "apart"}


def make_config(configuration: Configure, **recipe: Any) -> TrialConfig:
    sgd = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.0, "epochs": 2, "batch_size": 48}
    return configuration(
        model={"encoder": {"name": "mlp", "hidden": [5]}},
        terms={"supcon": {"gamma": 0.5, "tau": 0.5}},
        recipe={**sgd, **recipe},
    )


def begin(config: TrialConfig, data: ResidentData, ranks: Ranks = Ranks()) -> Training:  # noqa: B008 - frozen
    """Begin a run in float64 whose encoder has batch normalization."""
    # No encoder for vectors has it.
    training = begin_training(config.model_copy(update={"recipe": Recipe()}), data, ranks)
    torch.manual_seed(0)
    training.model.encoder = WithBatchNorm()
    training.model.double()
    training.config = config
    training.prepare(list_stages(config)[0])
    return training


class ByHand:
    """The same training in plain PyTorch: each pass over rows is a list of parts, and the first part of each pass moves the
    running statistics."""

    def __init__(self, training: Training) -> None:
        self.encoder = deepcopy(training.model.encoder).train()
        self.predictor = deepcopy(training.model.predictor)
        self.parameters = [*self.encoder.parameters(), *self.predictor.parameters()]

    def embed(self, inputs: Tensor, parts: list[Tensor]) -> Tensor:
        linear, norm = self.encoder.layers
        embedded = inputs.new_zeros(len(inputs), 5)
        for number, rows in enumerate(parts):
            if number == 0:
                embedded = embedded.index_put((rows,), self.encoder({"vector": inputs[rows]}))
            else:
                alone = F.batch_norm(linear(inputs[rows]), None, None, norm.weight, norm.bias, training=True)
                embedded = embedded.index_put((rows,), alone)
        return embedded

    def compute_loss(self, terms: Tensor, regression: Tensor, labels: Tensor, bins: Tensor) -> Tensor:
        views = len(terms) // len(labels)
        predictions = 4.0 + self.predictor(regression).squeeze(1)
        errors = (predictions - labels.double().repeat(len(regression) // len(labels))).abs().mean()
        directions = F.normalize(terms, dim=1)
        return errors + 0.5 * supcon(directions, bins.repeat(views), tau=0.5, smoothing=1e-5)

    def step(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter -= 0.05 * gradient

    def check(self, training: Training) -> None:
        found = training.model.encoder.state_dict() | training.model.predictor.state_dict()
        expected = self.encoder.state_dict() | self.predictor.state_dict()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def iter_batches(data: ResidentData, epochs: int = 2) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield vectors, labels and bins of every batch of 48 rows."""
    split = data.splits["train"]
    for epoch in range(1, epochs + 1):
        for rows in make_epoch_order(0, epoch, len(split)).split(48):
            yield split.inputs["vector"][rows], split.labels[rows], split.label_bins[rows]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_passes_apart_are_those_of_the_official_code_of_conr(
    configuration: Configure, toy: ResidentData, accumulation: int
) -> None:
    data = in_float64(toy)
    training = begin(make_config(configuration, views=APART, accumulation=accumulation), data)
    by_hand = ByHand(training)
    list(run_epochs(training))
    for vectors, labels, bins in iter_batches(data):
        loss = torch.zeros((), dtype=torch.float64)
        size = 48 // accumulation
        for x, y, b in zip(vectors.split(size), labels.split(size), bins.split(size), strict=True):
            # The contrastive rows first: the running statistics are moved twice, in this order.
            terms = by_hand.encoder({"vector": torch.cat([x, x])})
            regression = by_hand.encoder({"vector": x})
            loss = loss + by_hand.compute_loss(terms, regression, y, b) * len(y) / len(labels)
        by_hand.step(loss)
    by_hand.check(training)
    assert int(training.model.encoder.layers[1].num_batches_tracked) == 2 * 2 * (4 * accumulation + 1)


def test_joint_passes_normalize_all_views_together(configuration: Configure, toy: ResidentData) -> None:
    data = in_float64(toy)
    training = begin(make_config(configuration, views={"count": 3, "regression": "first"}), data)
    by_hand = ByHand(training)
    list(run_epochs(training))
    for vectors, labels, bins in iter_batches(data):
        embedded = by_hand.encoder({"vector": vectors.repeat(3, 1)})
        by_hand.step(by_hand.compute_loss(embedded[len(labels) :], embedded[: len(labels)], labels, bins))
    by_hand.check(training)


@pytest.mark.parametrize(("groups", "views"), [(2, {"count": 2}), (4, {}), (3, APART)])
def test_parts_of_a_pass_are_normalized_as_by_data_parallel(
    configuration: Configure, toy: ResidentData, groups: int, views: dict[str, Any]
) -> None:
    data = in_float64(toy)
    config = make_config(configuration, views=views, batch_norm_groups=groups)
    training = begin(config, data)
    by_hand, count = ByHand(training), config.recipe.views.count
    # Without the last batch, of which a part would be a single row.
    for loss, (vectors, labels, bins) in zip(islice(run_steps(training), 4), iter_batches(data), strict=False):
        if config.recipe.views.passes == "apart":
            terms, regression = (
                by_hand.embed(vectors.repeat(each, 1), [*torch.arange(each * len(labels)).chunk(groups)])
                for each in (2, 1)
            )
        else:
            rows = torch.arange(count * len(labels))
            terms = regression = by_hand.embed(vectors.repeat(count, 1), [*rows.chunk(groups)])
        expected = by_hand.compute_loss(terms, regression, labels, bins)
        torch.testing.assert_close(loss.total, expected.detach(), rtol=1e-12, atol=0)
        by_hand.step(expected)
        by_hand.check(training)


def train_on_rank(rank: int, world: int, data: ResidentData, config: TrialConfig) -> dict[str, Tensor]:
    training = begin(config, data, Ranks(rank, world))
    list(run_epochs(training))
    return weights_of(training)


@pytest.mark.slow
def test_passes_apart_on_two_ranks_train_on_the_whole_batch(configuration: Configure, toy: ResidentData) -> None:
    data, config = in_float64(toy), make_config(configuration, views=APART)
    training = begin(config, data)
    by_hand = ByHand(training)
    for vectors, labels, bins in iter_batches(data):
        rows = torch.arange(len(labels))
        shares = [rows[slice(*get_rank_share(len(rows), rank, 2))] for rank in (0, 1)]
        terms = by_hand.embed(vectors.repeat(2, 1), [torch.cat([share, share + len(rows)]) for share in shares])
        regression = by_hand.embed(vectors, shares)
        by_hand.step(by_hand.compute_loss(terms, regression, labels, bins))
    first, second = on_ranks(2, train_on_rank, data, config)
    # A rank other than the first may end with running statistics of its own share.
    first_weights, second_weights = (
        {name: value for name, value in each.items() if "running" not in name} for each in (first, second)
    )
    assert same(first_weights, second_weights)
    training.model.load_state_dict(first)
    by_hand.check(training)


def test_groups_of_batch_norm_are_refused_where_they_mean_nothing(configuration: Configure, toy: ResidentData) -> None:
    with pytest.raises(InputError, match=r"recipe\.batch_norm_groups: the encoder has no batch normalization"):
        begin_training(make_config(configuration, batch_norm_groups=4), toy)
    with pytest.raises(InputError, match="sync_batch_norm joins what batch_norm_groups separates"):
        make_config(configuration, batch_norm_groups=4, sync_batch_norm=True)
    with pytest.raises(InputError, match="passes: apart needs regression: first, or every view is in both passes"):
        make_config(configuration, views={"count": 2, "passes": "apart"})


def test_a_recipe_of_one_pass_is_not_wrapped(toy: ResidentData, configuration: Configure) -> None:
    model = begin_training(configuration(), toy).model
    assert numerics.wrap_for_steps(model, Recipe(), Ranks()) is model
