"""Run with `pytest tests/training/test_gradient_shares.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dirtune.batch import TermInputs
from dirtune.data.cache import ResidentData
from dirtune.losses import TERMS as KNOWN_TERMS
from dirtune.results.records.names import GRADIENT
from dirtune.training import gradient_shares
from dirtune.training.loop import run_epochs
from dirtune.training.state import begin_training
from tests.training.runs import TERMS, Configure, same, trained, weights_of

PROJECTED = {"model": {"projection_dim": 4, "label_scale": 3.0}, "terms": TERMS}


def shares_of(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith(GRADIENT)}


def test_shares_equal_those_of_separate_gradients(configuration: Configure, toy: ResidentData) -> None:
    # All rows in one step, so that their order does not matter
    config = configuration(**PROJECTED, alpha=0.7, recipe={"batch_size": 1000})
    training = begin_training(config, toy)
    model, rows = training.model, toy.splits["train"]
    embeddings = model.encoder({"image": rows.inputs["image"] / 255, "vector": rows.inputs["vector"]}).detach()  # type: ignore[attr-defined]

    def norm(part: Any) -> float:
        """The gradient of one weighted part alone, from a graph of its own that begins at the embedding."""
        leaf = embeddings.clone().requires_grad_()
        raw = model.projection(leaf)  # type: ignore[misc]
        z = raw / raw.norm(dim=1, keepdim=True)
        predictions = config.model.label_offset + 3.0 * model.predictor(z).squeeze(1)
        part(z, predictions).backward()
        return float(leaf.grad.norm())  # type: ignore[union-attr]

    def term(name: str) -> Any:
        settings = getattr(config.terms, name)
        return lambda z, predictions: (
            settings.weight
            * settings(
                TermInputs(
                    representations=z,
                    labels=rows.labels,
                    label_bins=rows.label_bins,
                    predictions=predictions.detach(),
                    weights=torch.ones(202),
                    samples=torch.arange(202),
                    num_views=1,
                    label_range=toy.manifest.label.label_range,
                    label_scale=3.0,
                )
            )
        )

    norms = {
        "regression": norm(lambda z, predictions: 0.7 * ((predictions - rows.labels) / 3.0).abs().mean()),
        **{name: norm(term(name)) for name in TERMS},
    }
    next(run_epochs(training))
    expected = {f"gradient/{name}": value / sum(norms.values()) for name, value in norms.items()}
    # In float32, summed over another order of rows.
    assert shares_of(training.history[0]) == pytest.approx(expected, rel=1e-3)
    assert min(expected.values()) > 0.001


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, [1, 4]),
        ({"early_stopping": {"patience": 9}}, [1, 4]),
        ({"accumulation": 2, "views": {"count": 2, "augmentation": "shift"}}, [1, 4]),
        ({"views": {"count": 3, "augmentation": "shift", "regression": "first", "passes": "apart"}}, [1, 4]),
        ({"steps_per_epoch": 3}, [1, 4]),
    ],
    ids=["plain", "early stopping", "micro-batches", "passes apart", "steps"],
)
def test_the_first_and_the_last_epoch_have_shares(
    configuration: Configure, toy: ResidentData, settings: dict[str, Any], epochs: list[int]
) -> None:
    training = trained(configuration(**PROJECTED, recipe={"epochs": 4, **settings}), toy)
    found = {number: shares_of(values) for number, values in enumerate(training.history, 1) if shares_of(values)}
    assert list(found) == epochs
    for shares in found.values():
        assert set(shares) == {"gradient/regression", "gradient/conr", "gradient/accon"}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert min(shares.values()) > 0


def test_a_second_stage_and_a_loss_of_one_part_have_none(configuration: Configure, toy: ResidentData) -> None:
    alone = trained(configuration(), toy)
    assert not any(shares_of(values) for values in alone.history)
    second = trained(configuration(**PROJECTED, scheme={"name": "rrt", "epochs": 2}), toy)
    assert [bool(shares_of(values)) for values in second.history] == [True, False, True, False, False]


@pytest.mark.parametrize("term", sorted(KNOWN_TERMS))
def test_a_training_is_bitwise_the_same_without_the_measurement(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    config = configuration(
        model={"encoder": {"name": "mlp", "hidden": [8], "dropout": 0.3}, "projection_dim": 4},
        terms={term: {}},
        recipe={"epochs": 2, "views": {"count": 2, "augmentation": "shift"}},
    )
    measured = trained(config, toy)
    monkeypatch.setattr(gradient_shares, "start_measurement", lambda training: None)
    plain = trained(config, toy)
    assert same(weights_of(measured), weights_of(plain))
    assert any(shares_of(values) for values in measured.history)
    kept = [{name: each[name] for name in each if name not in shares_of(each)} for each in measured.history]
    assert repr(kept) == repr(plain.history)
    for one, other in zip(measured.optimizer.param_groups, plain.optimizer.param_groups, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one["params"], other["params"], strict=True))


def test_an_encoder_without_gradients_has_no_shares(configuration: Configure, toy: ResidentData) -> None:
    training = begin_training(configuration(**PROJECTED), toy)
    training.model.encoder.requires_grad_(requires_grad=False)
    next(run_epochs(training))
    assert not shares_of(training.history[0])
