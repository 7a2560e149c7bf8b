"""Run with `pytest tests/nn/test_equals_training.py`: every module has the value and the gradient of a study's training step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dirtune import nn
from dirtune.batch import Batch, EvaluatedRows, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.losses import LOSSES, TERMS, EndsEpochs, EpochAware, RawLoss
from dirtune.losses.pairs import normalize_rows
from dirtune.models.heads import HeadLabels
from dirtune.models.regressor import RegressorOutput
from dirtune.training.distributed import Ranks
from dirtune.training.objective import REGRESSION, TrainingLoss

SAMPLES, VIEWS, DIM, SEED = 8, 2, 6, 7
SETTINGS: dict[str, dict[str, Any]] = {"gai": {"components": 2}, "evidential": {"regularization": "adaptive"}}
TRAINING = torch.arange(40.0) % 10
TRAINING_WEIGHTS = 0.5 + torch.arange(40.0) / 40
BINS = nn.LabelBins.from_labels(TRAINING, bin_width=1.0)


def make_config(**parts: Any) -> TrialConfig:
    model = {"encoder": {"name": "mlp"}, "label_scale": 1.0, "label_offset": 0.0}
    return read(TrialConfig, {"data": {"name": "toy"}, "model": model, **parts}, where="test")


def make_training(**parts: Any) -> TrainingLoss:
    """Return the loss of a study's training step."""
    labels = TrainingLabels(
        labels=TRAINING,
        label_bins=BINS.find_bins(TRAINING),
        spec=BINS.spec,
        weights=TRAINING_WEIGHTS,
        seed=SEED,
        dims=dict.fromkeys(("representation", "embedding", "direction"), DIM),
    )
    return TrainingLoss(make_config(**parts), labels, regression="loss" in parts, terms="terms" in parts)


def make_batch() -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """Return a batch, and the embeddings and predictions of its rows in all views."""
    drawn = torch.Generator().manual_seed(3)
    rows = torch.tensor([0, 3, 13, 10, 25, 27, 8, 38])
    labels = TRAINING[rows]
    embeddings = (1 + torch.arange(SAMPLES * VIEWS)[:, None] / 9) * torch.randn(SAMPLES * VIEWS, DIM, generator=drawn)
    batch = Batch(
        views=tuple({"x": torch.zeros(SAMPLES, 1)} for _ in range(VIEWS)),
        labels=labels,
        label_bins=BINS.find_bins(labels),
        weights=TRAINING_WEIGHTS[rows],
        rows=rows,
        draws=(SEED, "draws", 1, 0),
    )
    return batch, embeddings, labels.repeat(VIEWS) + torch.randn(SAMPLES * VIEWS, generator=drawn)


def prepare(part: Any) -> None:
    if isinstance(part, EpochAware):
        part.begin_epoch(1, 3)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_term_equals_that_of_a_training_step(name: str) -> None:
    training = make_training(terms={name: {}})
    module = getattr(nn, TERMS[name].__name__)(
        bins=BINS, training_labels=TRAINING, embedding_dim=DIM, seed=SEED, label_range=training.label_range
    )
    batch, embeddings, predictions = make_batch()
    labels, seen = TRAINING, torch.randn(len(TRAINING), DIM, generator=torch.Generator().manual_seed(4))
    if isinstance(fitted := training.get_part(name), EndsEpochs):
        vectors = normalize_rows(seen) if getattr(module.term, "reads", "representation") != "embedding" else seen
        evaluated = EvaluatedRows(
            vectors=vectors,
            predictions=labels,
            labels=labels,
            label_bins=BINS.find_bins(labels),
            samples=torch.arange(len(labels)),
        )
        fitted.end_epoch(fitted.compute_statistics(evaluated))
        for part in torch.arange(len(labels)).split(16):
            module.observe(seen[part], labels[part])
        module.end_epoch()
    leaf = embeddings.clone().requires_grad_()
    expected = training(RegressorOutput(leaf, leaf, predictions), batch, Ranks()).parts[name]
    (slope,) = torch.autograd.grad(expected, leaf)

    own = embeddings.clone().requires_grad_()
    found = module(
        own,
        batch.labels.repeat(VIEWS),
        predictions=predictions,
        weights=batch.weights.repeat(VIEWS),
        samples=batch.rows.repeat(VIEWS),
        num_views=VIEWS,
        draw_seed=batch.draw_seed,
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, own)[0], slope, rtol=1e-5, atol=1e-8)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_equals_that_of_a_training_step(name: str) -> None:
    settings = SETTINGS.get(name, {})
    training = make_training(loss={"name": name, **settings})
    module = getattr(nn, LOSSES[name].__name__)(
        bins=BINS, training_labels=TRAINING, training_weights=TRAINING_WEIGHTS, **settings
    )
    module.begin_epoch(1, 3)
    prepare(training.get_part(REGRESSION))
    batch, embeddings, predictions = make_batch()
    raw = None
    if isinstance(training.regression, RawLoss):
        torch.manual_seed(0)
        head = module.make_head(DIM, offset=0.0)
        torch.manual_seed(0)
        of_study = training.regression.build_head(DIM, HeadLabels.from_histogram(BINS.spec, BINS.counts))
        torch.testing.assert_close(head.state_dict(), of_study.state_dict(), rtol=0, atol=0)
        raw = of_study(embeddings).detach()
    given = (predictions if raw is None else raw).clone().requires_grad_()
    of_head = None if raw is None else given
    output = RegressorOutput(embeddings, embeddings, given if raw is None else predictions, of_head)
    expected = training(output, batch, Ranks()).parts[REGRESSION]
    (slope,) = torch.autograd.grad(expected, given)

    own = given.detach().clone().requires_grad_()
    found = module(own, batch.labels.repeat(VIEWS), batch.weights.repeat(VIEWS))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, own)[0], slope, rtol=1e-5, atol=1e-8)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("name", sorted(name for name, loss in LOSSES.items() if hasattr(loss, "build_head")))
def test_a_head_in_ones_own_loop_learns(name: str) -> None:
    """On labels that are linear in the embeddings; the mean label would have an error of 2.5."""
    torch.manual_seed(0)
    embeddings = torch.randn(len(TRAINING), DIM)
    embeddings[:, 0] = TRAINING / 5 - 1
    loss = getattr(nn, LOSSES[name].__name__)(bins=BINS, training_labels=TRAINING)
    head = loss.make_head(DIM)
    start = head.decode(head(torch.zeros(1, DIM)))
    assert abs(float(start.detach()) - 4.5) < 3
    optimizer = torch.optim.Adam(head.make_parameter_groups(0.1))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(head.parameters()))
    for epoch in range(80):
        loss.begin_epoch(epoch, 80)
        optimizer.zero_grad()
        loss(head(embeddings), TRAINING).backward()
        optimizer.step()
    outputs = head(embeddings).detach()
    assert float((head.decode(outputs) - TRAINING).abs().mean()) < 1.0
    deviations = head.decode_deviation(outputs)
    assert deviations is None or bool((deviations > 0).all())


def test_rates_of_a_heads_layers_are_shares_of_the_loops() -> None:
    groups = nn.UVOTE(training_labels=TRAINING, bins=BINS).make_head(DIM).make_parameter_groups(0.2)
    assert [group["lr"] for group in groups] == pytest.approx([0.2, 0.02])


def test_draws_follow_torchs_seed() -> None:
    batch, embeddings, _ = make_batch()
    term = nn.ROTReg(rows=6)

    def draw(seed: int) -> float:
        torch.manual_seed(seed)
        return float(term(embeddings, batch.labels.repeat(VIEWS)))

    assert draw(0) == draw(0)
    assert len({draw(seed) for seed in range(4)}) > 1
    # A term without draws leaves the generator as it was.
    torch.manual_seed(0)
    before = torch.get_rng_state()
    nn.SupCon()(embeddings, batch.labels.repeat(VIEWS))
    assert torch.equal(torch.get_rng_state(), before)


def test_adaptive_evidence_grows_while_training_alone() -> None:
    loss = nn.Evidential(regularization="adaptive")
    outputs, labels = torch.zeros(4, 4), torch.arange(4.0)
    loss(outputs, labels)
    grown = float(loss.fitted.weight)
    assert grown > 0
    loss.eval()(outputs, labels)
    assert float(loss.fitted.weight) == grown


def test_a_term_with_statistics_needs_the_end_of_epochs() -> None:
    batch, embeddings, _ = make_batch()
    labels = batch.labels.repeat(VIEWS)
    term = nn.SRL(training_labels=TRAINING, bins=BINS, embedding_dim=DIM)
    with pytest.raises(InputError, match="SRL: has statistics of the training set: pass its embeddings to `observe`"):
        term.end_epoch()
    with pytest.warns(UserWarning, match=r"SRL has had 88 samples without the end of an epoch; .*`end_epoch`"):
        values = [float(term(embeddings, labels, num_views=VIEWS)) for _ in range(12)]
    # As in a study
    assert values == [0.0] * 12
    # Other terms have none of it.
    plain = nn.SupCon()
    plain.observe(embeddings, labels)
    plain.end_epoch()


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (
            lambda e, y: nn.PRIME(training_labels=TRAINING),
            r"PRIME: has vectors of its own: create it with `embedding_dim=...`",
        ),
        (lambda e, y: nn.SRL(), r"SRL: is fitted to the training labels: create it with `training_labels=...`"),
        (
            lambda e, y: nn.SRL(
                training_labels=TRAINING, embedding_dim=DIM, bins=nn.LabelBins.from_labels(TRAINING, bin_width=99)
            ),
            r"SRL: bins: needs 2 label bins; make them narrower, got 1",
        ),
        (
            lambda e, y: nn.UVOTE(training_labels=TRAINING)(e[:, :4], y),
            r"UVOTE: changes over the epochs: call `begin_epoch",
        ),
        (
            lambda e, y: nn.UVOTE(training_labels=TRAINING).begin_epoch(3, 3),
            r"UVOTE: epoch: must be within 0 and 2, got 3",
        ),
        (
            lambda e, y: nn.GaussianNLL().make_head(4),
            r"GaussianNLL: has a head that starts at the training labels: .*`bins=",
        ),
        (
            lambda e, y: nn.L1().make_head(4),
            r"L1: is a loss of predictions, without a head of its own; use a linear layer",
        ),
        (
            lambda e, y: nn.GaussianNLL()(y, y),
            r"GaussianNLL: predictions: .*\(`make_head`\), of the shape \(16, 2\), got \(16,\)",
        ),
        (
            lambda e, y: nn.HCA(training_labels=TRAINING)(e, y),
            r"HCA: predictions: .*of the shape \(16, \d\d\), got \(16, 6\)",
        ),
        (
            lambda e, y: nn.BetaNLL()(e[:, :2], y[:, None]),
            r"BetaNLL: predictions: must be the outputs of the loss's head",
        ),
        (lambda e, y: nn.CCC()(y, y, y[:3]), r"CCC: weights: must have the shape \(16,\), got \(3,\)"),
        (
            lambda e, y: nn.DistLoss(training_labels=TRAINING)(y, y, torch.ones_like(y)),
            r"DistLoss: weights sorted predictions by .*: create it with `training_weights=...`",
        ),
        (
            lambda e, y: nn.PHReg()(e, y, num_views=3),
            r"PHReg: num_views: must be at least 1 and divide the 16 rows, got 3",
        ),
        (
            lambda e, y: nn.GroupRnC(training_labels=TRAINING)(e, y[:, None]),
            r"GroupRnC: labels: .*one dimension, .*\(16, 1\)",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_one_sentence(act: Any, sentence: str) -> None:
    batch, embeddings, _ = make_batch()
    with pytest.raises(InputError, match=sentence):
        act(embeddings, batch.labels.repeat(VIEWS))
