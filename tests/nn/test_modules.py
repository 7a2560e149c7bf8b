"""Run with `pytest tests/nn/test_modules.py`: losses and terms called with tensors equal their formulas."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dirtune
from dirtune import nn
from dirtune.errors import InputError
from dirtune.losses import LOSSES, TERMS
from dirtune.losses.balanced_mse import bmc
from dirtune.reweighting.density import label_bins
from dirtune.reweighting.lds import make_kernel_window

TERM_NAMES = sorted(term.__name__ for term in TERMS.values() if term.__name__ != "SRL")
"""SRL is zero before the first end of an epoch."""
LOSS_NAMES = sorted(loss.__name__ for loss in LOSSES.values() if not hasattr(loss, "build_head"))


def batch(rows: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    labels = torch.tensor([1.0, 1.0, 2.0, 2.0, 5.0, 5.0, 9.0, 9.0])[:rows]
    # Predictions that are close where labels are not, so that ConR has negatives
    return 3 * torch.randn(rows, 4, generator=drawn), labels, 3 + 0.2 * labels + torch.randn(rows, generator=drawn) / 2


def test_every_loss_and_term_has_a_module_whose_signature_has_its_settings() -> None:
    for part in (*TERMS.values(), *LOSSES.values()):
        module = getattr(nn, part.__name__)
        assert part.__name__ in nn.__all__
        settings = part.model_fields.keys() - {"name"}
        assert not settings & set(module.options), "a keyword would be ambiguous"
        assert settings < set(inspect.signature(module).parameters)
    page = (Path(__file__).parents[2] / "docs/losses.md").read_text()
    assert [part.__name__ for part in (*TERMS.values(), *LOSSES.values()) if f"`{part.__name__}`" not in page] == []


def test_conr_equals_its_formula_in_a_loop() -> None:
    embeddings, labels, predictions = batch()
    omega, tau, push = 1.0, 0.2, 0.05
    found = nn.ConR(omega=omega, tau=tau, push_power=push, variant="paper")(embeddings, labels, predictions=predictions)
    z = F.normalize(embeddings.double(), dim=1)
    total = 0.0
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and abs(labels[i] - labels[j]) <= omega]
        negatives = [
            j
            for j in range(len(z))
            if abs(labels[i] - labels[j]) > omega and abs(predictions[i] - predictions[j]) <= omega
        ]
        if not positives or not negatives:
            continue
        s = {j: z[i] @ z[j] / tau for j in (*positives, *negatives)}
        normalizer = sum(s[j].exp() for j in positives)
        normalizer = normalizer + sum((push * abs(labels[i] - labels[j])).exp() * s[j].exp() for j in negatives)
        total += float(sum(normalizer.log() - s[j] for j in positives)) / len(positives)
    assert total > 0
    assert float(found) == pytest.approx(total / len(z), rel=1e-5)


@pytest.mark.parametrize("name", TERM_NAMES)
def test_terms_are_finite_and_train_the_embeddings_whatever_their_length(name: str) -> None:
    embeddings, labels, predictions = batch()
    bins = nn.LabelBins.from_labels(labels, bin_width=1.0)
    term = getattr(nn, name)(bins=bins, training_labels=labels, embedding_dim=4)
    leaf = embeddings.clone().requires_grad_()
    value = term(leaf, labels, predictions=predictions, samples=torch.arange(len(labels)), draw_seed=0)
    value.backward()
    value = value.detach()
    assert torch.isfinite(value)
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.abs().sum() > 0
    if getattr(term.term, "reads", "representation") == "representation":
        longer = term(7 * embeddings, labels, predictions=predictions, draw_seed=0)
        assert float(longer.detach()) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_losses_take_weights_and_refuse_shapes_that_would_be_broadcast(name: str) -> None:
    _, labels, predictions = batch()
    given = {"training_labels": labels, "bins": nn.LabelBins.from_labels(labels, bin_width=1.0)}
    given |= {"GAI": {"components": 2}, "DistLoss": {"training_weights": torch.ones_like(labels)}}.get(name, {})
    loss = getattr(nn, name)(**given)
    assert torch.isfinite(loss(predictions, labels))
    ones = torch.ones_like(labels)
    torch.testing.assert_close(loss(predictions, labels, ones), loss(predictions, labels))
    with pytest.raises(InputError, match=rf"{name}: predictions: must have the labels' shape \(8,\), got \(8, 1\)"):
        loss(predictions[:, None], labels)


def test_a_fitted_loss_has_its_parameters_and_learns_without_training_labels_where_it_reads_none() -> None:
    _, labels, predictions = batch()
    loss = nn.BMC(sigma=2.0)
    assert [name for name, _ in loss.named_parameters()] == ["fitted.log_sigma"]
    expected = bmc(predictions, labels, sigma=torch.tensor(2.0))
    torch.testing.assert_close(loss(predictions, labels).detach(), expected)
    assert len(list(nn.ConR(temperature="learnable").parameters())) == 1
    assert not list(nn.ConR().parameters())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda e, y: nn.ConR()(e, y), r"ConR: the term reads predictions: pass `predictions=...`"),
        (
            lambda e, y: nn.ConR(variant="official_sts")(e, y, predictions=y),
            r"ConR: the term reads label_scale: it is that of a study's model",
        ),
        (lambda e, y: nn.ACCon()(e, y), r"ACCon: the term reads label_range: create it with `label_range=...`"),
        (lambda e, y: nn.GAI(), r"GAI: is fitted to the training labels: create it with `training_labels=...`"),
        (
            lambda e, y: nn.ConR(temperature="individual", training_labels=y)(e, y, predictions=y),
            r"ConR: the term reads samples: pass `samples=...`",
        ),
        (lambda e, y: nn.ConR(omga=1), r"ConR: omga: unknown key.*did you mean 'omega'"),
        (lambda e, y: nn.ConR(omega=-1.0), r"ConR: omega: "),
        (lambda e, y: nn.SupCon()(e, y[:4]), r"SupCon: labels: must have 8 rows, as the embeddings, got 4"),
        (lambda e, y: nn.SupCon()(e[0], y), r"SupCon: embeddings: must have the shape \(rows, dim\), got \(4,\)"),
    ],
)
def test_what_a_term_needs_and_does_not_get_is_one_sentence(make: object, sentence: str) -> None:
    embeddings, labels, _ = batch()
    with pytest.raises(InputError, match=sentence):
        make(embeddings, labels)  # type: ignore[operator]


def test_views_of_a_sample_are_one_sample() -> None:
    embeddings, labels, _ = batch(4)
    term = nn.SupCon()
    views = torch.cat([embeddings, embeddings])
    assert torch.isfinite(term(views, torch.cat([labels, labels]), num_views=2))
    integers = term(embeddings, labels.long())
    torch.testing.assert_close(integers, term(embeddings, labels))


def test_weights_are_inverse_counts_with_mean_one() -> None:
    labels = np.array([0.0] * 9 + [1.0] * 4 + [5.0])
    counts = np.array([9] * 9 + [4] * 4 + [1])
    for scheme, raw in (("inverse", 1 / counts), ("sqrt_inverse", counts**-0.5), ("none", np.ones(14))):
        found = dirtune.weights(labels, scheme=scheme)
        np.testing.assert_allclose(found, raw / raw.mean(), rtol=1e-12)
        tensor = dirtune.weights(torch.from_numpy(labels).float(), scheme=scheme)
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor.numpy(), found, rtol=1e-6)
    assert dirtune.weights(torch.tensor([1, 1, 2])).dtype == torch.float32
    # The published kernel over six bins of counts 9, 4, 0, 0, 0, 1
    smooth = np.convolve(np.sqrt([9, 4, 0, 0, 0, 1]), make_kernel_window("gaussian", 5, 2.0), mode="same")
    raw = 1 / smooth[[0] * 9 + [1] * 4 + [5]]
    np.testing.assert_allclose(dirtune.weights(labels, lds=True), raw / raw.mean(), rtol=1e-6)
    for given, sentence in (
        ({"scheme": "dense", "lds": True}, "lds smooths the counts of a scheme"),
        ({"scheme": "inverted"}, "weights: "),
    ):
        with pytest.raises(InputError, match=sentence):
            dirtune.weights(labels, **given)
    for wrong, sentence in ((["a"], "must be numbers"), ([1.0, np.nan], "must be finite"), ([3.0, 3.0], "must differ")):
        with pytest.raises(InputError, match=sentence):
            dirtune.weights(wrong)


def test_label_bins_count_training_labels_and_know_their_regions() -> None:
    ages = np.repeat([20, 21, 40], [150, 30, 5])
    bins = nn.LabelBins.from_labels(ages)
    assert (bins.spec.bin_width, bins.spec.num_bins) == (1.0, 21)
    assert bins.find_regions(np.array([20, 21, 22, 40])).tolist() == ["many", "medium", "few", "few"]
    found = bins.find_bins(torch.tensor([20.0, 40.0, 99.0]))
    assert found.tolist() == [0, 20, 20]
    fine = nn.LabelBins.from_labels(np.linspace(0, 1, 1001))
    assert fine.spec.bin_width == pytest.approx(0.01)
    assert fine.find_bins(0.5) == label_bins(0.5, fine.spec)


@pytest.mark.slow
def test_a_loop_of_ones_own_needs_no_ray() -> None:
    script = (
        "import sys, dirtune; from dirtune.nn import ConR, FDS, L1, LabelBins; dirtune.weights([1, 2, 2]); "
        "print(sorted({'ray', 'torchvision', 'optuna', 'pandas', 'pyarrow', 'torchmetrics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
