"""Calls of modules with wrong shapes, types and values. Run with `pytest tests/nn/test_wrong_calls.py`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dirtune
from dirtune import nn
from dirtune.errors import InputError

TRAINING = torch.linspace(0, 90, 200)
BINS = nn.LabelBins.from_labels(TRAINING)
EMBEDDINGS = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) * 10.0
FINITE = float("nan"), float("inf")
TERMS = [name for name in nn.__all__ if isinstance(kind := getattr(nn, name), type) and issubclass(kind, nn.TermModule)]
LOSSES = [
    name for name in nn.__all__ if isinstance(kind := getattr(nn, name), type) and issubclass(kind, nn.LossModule)
]
TERMS.remove("TermModule")
LOSSES.remove("LossModule")


def make(name: str) -> Any:
    """Return a term or a loss, ready to be called."""
    kind = getattr(nn, name)
    keywords = {"bins": BINS, "training_labels": TRAINING}
    keywords |= {"embedding_dim": 4} if name in TERMS else {"training_weights": torch.ones(200)}
    module = kind(**keywords)
    module.begin_epoch(0, 2)
    return module


def call_term(name: str, **changes: Any) -> Any:
    module = make(name)
    views = max(1, module.needs.views)
    given = {
        "embeddings": EMBEDDINGS.repeat(views, 1),
        "labels": LABELS.repeat(views),
        "predictions": LABELS.repeat(views) + 1,
        "num_views": views,
    }
    return module(**{**given, **changes})


def call_loss(name: str, **changes: Any) -> Any:
    module = make(name)
    try:
        outputs = module.make_head(4)(EMBEDDINGS)
    except InputError:
        outputs = LABELS + 1
    return module(**{"predictions": outputs, "labels": LABELS, **changes})


WRONG_TERM_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"embeddings": None}, "embeddings: must be a tensor, got None"),
    ({"embeddings": EMBEDDINGS.numpy()}, "embeddings: must be a tensor, got a ndarray"),
    ({"embeddings": EMBEDDINGS.long().repeat(2, 1)}, "embeddings: must be of a floating-point type, got 'torch.int64'"),
    ({"embeddings": EMBEDDINGS[:, 0]}, "embeddings: must have the shape (rows, dim), got (8,)"),
    ({"embeddings": EMBEDDINGS[:, :0]}, "embeddings: must have the shape (rows, dim), got (8, 0)"),
    ({"labels": LABELS.tolist()}, "labels: must be a tensor, got a list"),
    ({"labels": LABELS[0]}, "rows, as the embeddings, got ()"),
    ({"labels": LABELS.to("meta")}, "labels: must be on the device of embeddings, cpu, got 'meta'"),
    ({"predictions": [1.0]}, "predictions: must be a tensor, got a list"),
    ({"weights": torch.ones(3)}, "rows, as the embeddings, got 3"),
    ({"samples": torch.zeros(16)}, "samples: "),
    ({"num_views": "2"}, "num_views: must be a whole number, got '2'"),
    ({"draw_seed": "a"}, "draw_seed: must be a whole number, got 'a'"),
]


@pytest.mark.parametrize("name", TERMS)
def test_a_term_refuses_what_does_not_fit_in_one_sentence(name: str) -> None:
    rows = 8 * max(1, make(name).needs.views)
    cases = [
        *WRONG_TERM_CALLS,
        # Of one column, they would be compared with every row
        ({"predictions": torch.ones(rows, 1)}, f"predictions: must have the shape ({rows},), got ({rows}, 1)"),
        ({"weights": torch.ones(rows, 2)}, f"weights: must have the shape ({rows},), got ({rows}, 2)"),
        ({"embeddings": torch.ones(rows, 5)}, f"embeddings: must have the shape ({rows}, 4), got ({rows}, 5)"),
        ({"labels": torch.full((rows,), torch.nan)}, "labels: must be finite numbers"),
        ({"labels": torch.ones(rows, 1), "predictions": None}, "labels: "),
        (
            {"embeddings": torch.ones(0, 4), "labels": torch.ones(0), "predictions": None},
            "labels: must have a row, got (0,)",
        ),
    ]
    for changes, message in cases:
        with pytest.raises(InputError, match=re.escape(message)):
            call_term(name, **changes)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_term_takes_every_precision_and_a_batch_of_one(name: str, dtype: torch.dtype) -> None:
    views = max(1, make(name).needs.views)
    for rows in (8, 1):
        embeddings = EMBEDDINGS[:rows].repeat(views, 1).to(dtype).requires_grad_()
        labels = LABELS[:rows].repeat(views)
        value = call_term(name, embeddings=embeddings, labels=labels, predictions=labels + 1)
        assert torch.isfinite(value)
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, embeddings, allow_unused=True)
            assert gradient is None or torch.isfinite(gradient).all()


def test_labels_without_bins_must_be_finite() -> None:
    with pytest.raises(InputError, match="RnC: labels: must be finite numbers"):
        nn.RnC()(EMBEDDINGS, LABELS * torch.nan)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_refuses_what_does_not_fit_in_one_sentence(name: str) -> None:
    for changes, message in (
        ({"predictions": None}, "predictions: must be a tensor, got None"),
        ({"predictions": [1.0]}, "predictions: must be a tensor, got a list"),
        ({"predictions": torch.ones(8, 1, 9)}, "predictions: must "),
        ({"predictions": torch.ones(8, dtype=torch.int64)}, "predictions: must be of a floating-point type"),
        ({"labels": LABELS.numpy()}, "labels: must be a tensor, got a ndarray"),
        ({"labels": LABELS.to("meta")}, "labels: must be on the device of predictions, cpu, got 'meta'"),
        ({"labels": LABELS[:0]}, "labels: must have a row, got (0,)"),
        ({"weights": 2.0}, "weights: must be a tensor, got a float"),
        ({"weights": torch.ones(3)}, "weights: must have the shape (8,), got (3,)"),
    ):
        with pytest.raises(InputError, match=re.escape(f"{message}")):
            call_loss(name, **changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.ConR(bins=10), "ConR: bins: must be a LabelBins"),
        (lambda: nn.ConR(label_range="x"), "ConR: label_range: must be a number above zero, got 'x'"),
        (lambda: nn.ConR(label_range=-1.0), "ConR: label_range: must be a number above zero, got -1.0"),
        (lambda: nn.ConR(label_range=float("nan")), "ConR: label_range: must be a number above zero, got nan"),
        (
            lambda: nn.SRL(embedding_dim=-1, training_labels=TRAINING),
            "SRL: embedding_dim: must be a whole number from 1 on",
        ),
        (
            lambda: nn.SRL(embedding_dim="4", training_labels=TRAINING),
            "SRL: embedding_dim: must be a whole number from 1 on",
        ),
        (
            lambda: nn.PRIME(embedding_dim=4, training_labels=TRAINING, seed="a"),
            "PRIME: seed: must be a whole number, got 'a'",
        ),
        (lambda: nn.BNI(training_labels="abc"), "labels: must be numbers, got values of the type <U3"),
        (
            lambda: nn.GAI(training_labels=TRAINING + 1000, bins=BINS),
            "labels: training labels must be within the bins, 0 to 90",
        ),
        (
            lambda: nn.DistLoss(training_labels=TRAINING, training_weights=torch.ones(3)),
            "DistLoss: training_weights: must have the shape (200,), got (3,)",
        ),
        (
            lambda: nn.DistLoss(training_weights=torch.ones(3)),
            "DistLoss: training_weights: are those of the training labels: pass `training_labels=...`, too",
        ),
        (lambda: nn.TermModule("conr"), "TermModule: term: must be a regularizer term, got a str"),
        (
            lambda: nn.TermModule(nn.ConR),
            "TermModule: term: must be a regularizer term, got the class ConR: create it first",
        ),
        (lambda: nn.TermModule(nn.CCC().loss), "TermModule: term: must be a regularizer term, got a CCC"),
        (lambda: nn.LossModule("mse"), "LossModule: loss: must be a regression loss, got a str"),
        (lambda: nn.LossModule(nn.ConR().term), "LossModule: loss: must be a regression loss, got a ConR"),
        (lambda: nn.L1().begin_epoch("a", 3), "L1: epoch: must be a whole number, got 'a'"),
        (
            lambda: nn.GaussianNLL(bins=BINS).make_head(0),
            "GaussianNLL: embedding_dim: must be a whole number from 1 on, got 0",
        ),
        (lambda: nn.FDS(BINS, 4), "FDS: bins: must be a LabelBins"),
        (lambda: nn.FDS("4", BINS), "FDS: embedding_dim: must be a whole number from 1 on, got '4'"),
        (
            lambda: nn.FDS(4, BINS)(torch.ones(8, 5), LABELS),
            "FDS: embeddings: must have the shape (rows, 4), got (8, 5)",
        ),
        (lambda: nn.FDS(4, BINS)(EMBEDDINGS, LABELS[:1]), "FDS: labels: must have the shape (8,), got (1,)"),
        (lambda: nn.FDS(4, BINS).observe(torch.ones(8, 5), LABELS), "FDS: embeddings: must have the shape (rows, 4)"),
        (lambda: nn.FDS(4, BINS).observe(EMBEDDINGS * torch.nan, LABELS), "FDS: embeddings: must be finite numbers"),
        (
            lambda: nn.FDS(4, BINS).observe(EMBEDDINGS.numpy(), LABELS),
            "FDS: embeddings: must be a tensor, got a ndarray",
        ),
        (lambda: nn.RegionMetrics(10), "RegionMetrics: bins: must be a LabelBins"),
        (lambda: nn.RegionMetric(None), "RegionMetric: bins: must be a LabelBins"),
        (lambda: nn.RegionMetrics(BINS, metrics=[]), "RegionMetrics: needs a metric"),
        (lambda: nn.RegionMetrics(BINS, regions=()), "RegionMetrics: needs a region"),
        (lambda: nn.RegionMetrics(BINS).update([1.0], [1.0]), "preds must be a tensor, got a list"),
        (lambda: nn.RegionMetrics(BINS).update(LABELS, LABELS.to("meta")), "must be on one device, got cpu and meta"),
        (lambda: nn.LabelBins.from_labels(["1", "2"]), "labels: must be numbers, got values of the type <U1"),
        (
            lambda: nn.LabelBins.from_labels(pd.to_datetime(["2020-01-01", "2021-01-01"])),
            "labels: must be numbers, got values",
        ),
        (lambda: nn.LabelBins.from_labels([1 + 2j, 2]), "labels: must be numbers, got values of the type complex128"),
        (lambda: nn.LabelBins.from_labels([1e308, -1e308]), "labels: must have a range that is a finite number"),
        (lambda: nn.LabelBins.from_labels(torch.ones(3, device="meta")), "labels: must be numbers (Cannot copy"),
        (lambda: nn.LabelBins.from_labels([1, 2], bin_width=0), "labels: bin_width: must be positive"),
        (
            lambda: nn.LabelBins.from_labels([1, 2], bin_width="2"),
            "labels: bin_width: must be a finite number, got '2'",
        ),
        (
            lambda: nn.LabelBins.from_labels([1, 2], bin_width=FINITE[1]),
            "labels: bin_width: must be a finite number, got inf",
        ),
        (lambda: nn.LabelBins.from_labels([1, 2], low=FINITE[0]), "labels: low: must be a finite number, got nan"),
        (
            lambda: nn.LabelBins.from_labels([1, 2], many_above="100"),
            "labels: many_above: should be a valid integer (write it without quotes and underscores), got '100'",
        ),
        (lambda: nn.LabelBins.from_labels([1, 2], many_above=5), "labels: few_below: no bin may be both many and few"),
        (lambda: dirtune.weights(TRAINING, lds="gaussian"), "lds: must be True or False"),
        (lambda: nn.weights(TRAINING, lds=1), "weights: lds: must be True, False, a mapping of settings"),
        (lambda: nn.weights(TRAINING, bins=10), "weights: bins: must be a LabelBins"),
        (
            lambda: dirtune.weights(TRAINING + 1000, bins=BINS),
            "labels: training labels must be within the bins, 0 to 90",
        ),
        (
            lambda: dirtune.weights(TRAINING, bins=BINS, bin_width=3),
            "weights: bin_width: belongs to `bins`, which is given, got 3",
        ),
        (
            lambda: dirtune.register.term(type("Term", (), {})),
            "register.term: needs a name: write `@dirtune.register.term",
        ),
        (lambda: dirtune.register.metric(3, higher_is_better=True), "register.metric: needs a name"),
    ],
)
def test_a_wrong_value_is_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_labels_of_every_precision_have_bins_and_none_has_no_bin() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int32):
        assert len(nn.LabelBins.from_labels(torch.arange(5).to(dtype)).counts) == 5
    assert BINS.find_bins(torch.empty(0)).tolist() == []
    assert BINS.find_regions([]).tolist() == []
    metrics = nn.RegionMetrics(BINS, metrics="mae", regions="few")
    metrics.update(torch.empty(0), torch.empty(0))
    assert torch.isnan(metrics.compute()["few/mae"])


def test_a_smoothing_is_given_as_a_mapping_too() -> None:
    np.testing.assert_array_equal(
        nn.weights(TRAINING.numpy(), lds={"sigma": 1.0}), nn.weights(TRAINING.numpy(), lds=nn.LDS(sigma=1.0))
    )
