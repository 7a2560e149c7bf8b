"""`pytest tests/losses/test_supcon.py`: SupCon against the formula written as loops over anchors."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.losses.supcon import SupCon, supcon

PLAIN = {"tau": 0.5, "smoothing": 0.0, "reduction": "all", "similarity": "cosine", "positives": "each"}


def _similarity(a, b, name):
    if name == "neg_euclidean":
        return -math.dist(a, b)
    return sum(p * q for p, q in zip(a, b, strict=True))


def _supcon_by_loops(z, bins, *, tau, smoothing, reduction, similarity, positives):
    rows, losses = range(len(z)), []
    taus = tau if isinstance(tau, list) else [tau] * len(z)
    for i in rows:
        weights = [math.exp(_similarity(z[i], z[j], similarity) / taus[i]) for j in rows]
        found = [j for j in rows if j != i and bins[j] == bins[i]]
        if not found:
            if reduction == "all":
                losses.append(-1.0 if smoothing and positives == "each" else 0.0)
            continue
        total = sum(weights[k] for k in rows if k != i)
        if positives == "joint":
            losses.append(-math.log(sum(weights[j] for j in found) / total))
            continue
        log_shares = [math.log(weights[j] / total) for j in found]
        losses.append(-(sum(log_shares) + smoothing) / (len(found) + smoothing))
    return sum(losses) / len(losses)


def _assert_equals_the_loops(inputs, **changed):
    z, bins = inputs.representations.detach(), inputs.label_bins
    settings = {**PLAIN, **changed}
    ours = supcon(z, bins, **settings)
    if isinstance(settings["tau"], torch.Tensor):
        settings["tau"] = settings["tau"].tolist()
    expected = _supcon_by_loops(z.tolist(), bins.tolist(), **settings)
    assert ours.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 1e-5])
@pytest.mark.parametrize("reduction", ["all", "valid"])
def test_supcon_equals_the_loops(seed, views, tau, smoothing, reduction, term_inputs):
    inputs = term_inputs(views=views, seed=seed)
    _assert_equals_the_loops(inputs, tau=tau, smoothing=smoothing, reduction=reduction)


@pytest.mark.parametrize("views", [1, 2, 3, 4])
@pytest.mark.parametrize("similarity", ["cosine", "neg_euclidean"])
@pytest.mark.parametrize("positives", ["each", "joint"])
@pytest.mark.parametrize("reduction", ["all", "valid"])
def test_its_adaptations_equal_the_loops(views, similarity, positives, reduction, term_inputs):
    inputs = term_inputs(views=views)
    options = {"similarity": similarity, "positives": positives, "reduction": reduction}
    _assert_equals_the_loops(inputs, smoothing=1e-3, **options)


@pytest.mark.parametrize("positives", ["each", "joint"])
def test_every_anchor_may_have_a_temperature_of_its_own(positives, term_inputs):
    inputs = term_inputs()
    taus = torch.linspace(0.05, 2.0, 16, dtype=torch.float64)
    _assert_equals_the_loops(inputs, tau=taus, positives=positives)


def test_one_joint_positive_is_one_positive(term_inputs):
    inputs = term_inputs(labels=list(range(6)))
    z, bins = inputs.representations, inputs.label_bins
    each, joint = (supcon(z, bins, tau=0.3, positives=form) for form in ("each", "joint"))
    torch.testing.assert_close(joint, each)


@pytest.mark.parametrize("positives", ["each", "joint"])
def test_the_gradient_of_the_distance_form_is_its_slope(positives, term_inputs):
    inputs = term_inputs(samples=5, dim=3)
    term = SupCon(similarity="neg_euclidean", tau=0.5, positives=positives)
    assert torch.autograd.gradcheck(lambda z: term(replace(inputs, representations=z)), (inputs.representations,))


def test_equal_vectors_give_each_other_no_gradient_in_the_distance_form():
    z = torch.ones(6, 3, requires_grad=True)
    loss = supcon(z, torch.tensor([0, 0, 0, 1, 1, 2]), tau=0.05, similarity="neg_euclidean")
    loss.backward()
    assert loss.isfinite()
    assert z.grad.abs().max() == 0


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = term_inputs()
    z, bins = inputs.representations, inputs.label_bins
    official = SupCon(gamma=3.0, tau=0.2, epsilon=0.1, reduction="valid")
    paper = SupCon(tau=0.2, epsilon=0.1, variant="paper")
    adapted = SupCon(tau=0.2, similarity="neg_euclidean", positives="joint")
    assert official.weight == 3.0
    assert official(inputs) == supcon(z, bins, tau=0.2, smoothing=0.1, reduction="valid")
    assert paper(inputs) == supcon(z, bins, tau=0.2, smoothing=0.0, reduction="all")
    assert adapted(inputs) == supcon(z, bins, tau=0.2, similarity="neg_euclidean", positives="joint")


@pytest.mark.parametrize(("variant", "constant"), [("official", -1.0), ("paper", 0.0)])
def test_anchors_without_positives_give_a_constant_without_gradient(variant, constant, term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1)
    loss = SupCon(variant=variant)(inputs)
    loss.backward()
    assert loss == constant
    assert inputs.representations.grad.abs().max() == 0


def test_without_valid_anchors_the_mean_over_them_is_zero(term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1)
    assert SupCon(reduction="valid")(inputs) == 0


def test_equal_labels_and_equal_vectors_reach_the_minimum():
    z = normalize(torch.ones(7, 3, dtype=torch.float64), dim=1)
    loss = supcon(z, torch.zeros(7, dtype=torch.long), tau=0.05)
    assert loss.item() == pytest.approx(math.log(6))


def test_pulling_a_positive_nearer_lowers_the_loss():
    turns = torch.tensor([0.0, 0.4, 2.0, 2.5], dtype=torch.float64)
    nearer = torch.tensor([0.0, 0.2, 2.0, 2.5], dtype=torch.float64)
    bins = torch.tensor([0, 0, 1, 1])
    losses = [supcon(torch.stack([t.cos(), t.sin()], 1), bins, tau=0.5) for t in (turns, nearer)]
    assert losses[1] < losses[0]


def test_positives_may_be_equal_rounded_labels(term_inputs):
    inputs = term_inputs(labels=[0.12, 0.08, 0.3, 0.34, 0.26, 4.96, 5.0])
    inputs = replace(inputs, label_bins=torch.zeros(14, dtype=torch.long))
    classes = [round(10 * label) for label in inputs.labels.tolist()]
    assert len(set(classes)) == 3
    expected = _supcon_by_loops(inputs.representations.tolist(), classes, **{**PLAIN, "smoothing": 1e-5})
    assert SupCon(tau=0.5, label_decimals=1)(inputs).item() == pytest.approx(expected, rel=1e-10)
    assert SupCon(tau=0.5)(inputs).item() != pytest.approx(expected, rel=1e-3)
