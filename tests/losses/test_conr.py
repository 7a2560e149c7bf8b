"""`pytest tests/losses/test_conr.py`: ConR against the formula written as loops over anchors."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.losses import blocks
from dirtune.losses.conr import ConR, conr

SETTINGS = {
    "omega": 1.0,
    "tau": 0.07,
    "push_power": 0.3,
    "pushing": "exp",
    "denominator": "official",
    "outer_weight": True,
    "counts_self": False,
    "label_distance": "l2",
    "rho": None,
}
DISTANCES = {
    "l1": lambda a, b: sum(abs(x - y) for x, y in zip(a, b, strict=True)),
    "l2": math.dist,
    "max": lambda a, b: max(abs(x - y) for x, y in zip(a, b, strict=True)),
}
PUSHES = {"exp": lambda w, e, d: w * math.exp(e * d), "linear": lambda w, e, d: w * e * d, "none": lambda w, e, d: 1.0}


def _points(values):
    return values[:, None].tolist() if values.ndim == 1 else values.tolist()


def _conr_by_loops(inputs, **settings):
    z, y, p = inputs.representations.tolist(), _points(inputs.labels), _points(inputs.predictions)
    rows, w = range(len(z)), inputs.weights.tolist()
    taus = torch.as_tensor(settings["tau"], dtype=torch.float64).expand(len(z)).tolist()
    losses = [_anchor_loss(i, rows, z, y, p, w[i], {**settings, "tau": taus[i]}) for i in rows]
    return sum(losses) / len(losses)


def _anchor_loss(i, rows, z, y, p, weight, settings):
    omega, tau, distance = settings["omega"], settings["tau"], DISTANCES[settings["label_distance"]]
    share = [math.exp(sum(a * b for a, b in zip(z[i], z[j], strict=True)) / tau) for j in rows]
    positives = [j for j in rows if j != i and distance(y[i], y[j]) <= omega]
    negatives = [j for j in rows if distance(y[i], y[j]) > omega and distance(p[i], p[j]) <= omega]
    if not positives or not negatives:
        return 0.0
    push = PUSHES[settings["pushing"]]
    terms = [share[j] for j in positives]
    terms += [push(weight, settings["push_power"], distance(y[i], y[j])) * share[j] for j in negatives]
    if settings["denominator"] == "official":
        terms += [1.0] * (len(z) - len(positives))
    loss = sum(-math.log(share[j] / sum(terms)) for j in positives)
    # The mean over the terms in place of their sum, times tau
    if settings["rho"] is not None:
        loss = tau * (loss + len(positives) * (settings["rho"] - math.log(len(terms))))
    loss /= len(positives) + settings["counts_self"]
    return loss * weight if settings["outer_weight"] else loss


def _conr(inputs, **changed):
    rows = (inputs.representations, inputs.labels, inputs.predictions, inputs.weights)
    return conr(*rows, **{**SETTINGS, **changed})


def _crowded(inputs):
    """Predictions that all agree, so that every pair of unlike labels is a negative."""
    return replace(inputs, predictions=torch.zeros_like(inputs.predictions))


def _vectors(inputs, dims):
    """The inputs with labels and predictions of several dimensions, a third of the pairs within one unit."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.rand(len(inputs.labels), dims, generator=generator, dtype=torch.float64)
    noise = torch.randn(labels.shape, generator=generator, dtype=torch.float64)
    return replace(inputs, labels=2 * labels, predictions=2 * labels + 0.5 * noise)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("pushing", ["exp", "linear", "none"])
@pytest.mark.parametrize("denominator", ["official", "paper"])
@pytest.mark.parametrize("outer_weight", [True, False])
@pytest.mark.parametrize("counts_self", [True, False])
@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_conr_equals_the_loops(seed, views, pushing, denominator, outer_weight, counts_self, tau, term_inputs):
    inputs = term_inputs(samples=12, views=views, seed=seed)
    changed = {
        "pushing": pushing,
        "denominator": denominator,
        "outer_weight": outer_weight,
        "counts_self": counts_self,
        "tau": tau,
    }
    expected = _conr_by_loops(inputs, **{**SETTINGS, **changed})
    assert expected > 0
    assert _conr(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("label_distance", ["l1", "l2", "max"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("pushing", ["exp", "linear"])
def test_labels_of_several_dimensions_equal_the_loops(label_distance, dims, pushing, term_inputs):
    inputs = _vectors(term_inputs(), dims)
    changed = {"label_distance": label_distance, "pushing": pushing}
    expected = _conr_by_loops(inputs, **{**SETTINGS, **changed})
    assert expected > 0
    assert _conr(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("denominator", ["official", "paper"])
@pytest.mark.parametrize("rho", [None, 0.3])
def test_a_temperature_per_anchor_equals_the_loops(denominator, rho, term_inputs):
    inputs = term_inputs(samples=12)
    changed = {"tau": torch.linspace(0.1, 1.0, 24), "denominator": denominator, "rho": rho}
    expected = _conr_by_loops(inputs, **{**SETTINGS, **changed})
    assert _conr(inputs, **changed).item() == pytest.approx(expected, rel=1e-6)


def test_the_gradient_reaches_the_temperatures(term_inputs):
    inputs = term_inputs(samples=5, dim=3)
    taus = torch.linspace(0.2, 1.0, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda taus: _conr(inputs, tau=taus, rho=0.3), (taus,))


def test_the_window_of_labels_takes_in_its_edge(term_inputs):
    inputs = _crowded(term_inputs(labels=[0, 1, 2], views=1))
    # Neighbors attract, the outer two repel
    assert _conr(inputs, omega=1.0) > 0
    # No negatives
    assert _conr(inputs, omega=2.0) == 0
    # No positives
    assert _conr(inputs, omega=0.5) == 0


def test_the_window_of_predictions_takes_in_its_edge(term_inputs):
    inputs = term_inputs(labels=[0, 0, 5, 5], views=1)
    inputs = replace(inputs, predictions=torch.tensor([0, 0, 1, 1], dtype=torch.float64))
    assert _conr(inputs, omega=1.0) > 0
    # Positives, but no negatives
    assert _conr(inputs, omega=0.5) == 0


def test_a_batch_without_negatives_gives_zero_with_a_backward_pass(term_inputs):
    inputs = term_inputs()
    inputs = replace(inputs, predictions=1000 * torch.arange(16, dtype=torch.float64))
    loss = _conr(inputs)
    loss.backward()
    assert loss == 0
    assert inputs.representations.grad.abs().max() == 0


def test_anchors_without_positives_add_nothing_but_count(term_inputs):
    pair = _crowded(term_inputs(labels=[0, 0, 5, 5], views=1))
    lonely = _crowded(term_inputs(labels=[0, 0, 5, 9], views=1))
    assert _conr(pair).item() == pytest.approx(_conr_by_loops(pair, **SETTINGS))
    assert _conr(lonely).item() == pytest.approx(_conr_by_loops(lonely, **SETTINGS))


def test_predictions_choose_the_negatives_and_get_no_gradient(term_inputs):
    inputs = term_inputs()
    inputs = replace(inputs, predictions=inputs.predictions.requires_grad_())
    _conr(inputs).backward()
    assert inputs.representations.grad.abs().max() > 0
    assert inputs.predictions.grad is None


@pytest.mark.parametrize("pushing", ["exp", "linear"])
def test_a_weight_of_zero_takes_the_negatives_away(pushing, term_inputs):
    inputs = _crowded(term_inputs(labels=[0, 0, 5, 5]))
    inputs = replace(inputs, weights=torch.zeros_like(inputs.weights))
    loss = _conr(inputs, pushing=pushing, denominator="paper", outer_weight=False)
    loss.backward()
    expected = _conr_by_loops(inputs, **{**SETTINGS, "pushing": pushing, "denominator": "paper", "outer_weight": False})
    assert loss.item() == pytest.approx(expected)
    assert inputs.representations.grad.isfinite().all()


def test_a_farther_label_is_pushed_harder(term_inputs):
    near = _crowded(term_inputs(labels=[0, 0, 3, 3]))
    far = replace(near, labels=3 * near.labels)
    for pushing in ("exp", "linear"):
        assert _conr(far, pushing=pushing) > _conr(near, pushing=pushing)
    assert _conr(far, pushing="none") == _conr(near, pushing="none")


def test_pushes_beyond_the_largest_float_stay_finite(term_inputs):
    inputs = _crowded(term_inputs(labels=[0, 0, 90, 90], dtype=torch.float32))
    loss = _conr(inputs, tau=0.01, push_power=10.0)
    loss.backward()
    assert loss.isfinite()
    assert inputs.representations.grad.isfinite().all()


def _loss_and_gradients(inputs, taus):
    leaves = (inputs.representations, taus)
    loss = _conr(inputs, tau=taus)
    return loss, *torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("entries", [1, 24 * 5, 24 * 23])
def test_blocks_of_anchors_give_the_same_loss_and_gradients(entries, term_inputs, monkeypatch):
    inputs = term_inputs(samples=12)
    taus = torch.linspace(0.1, 1.0, 24, dtype=torch.float64, requires_grad=True)
    whole = _loss_and_gradients(inputs, taus)
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
    for part, expected in zip(_loss_and_gradients(inputs, taus), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-12)


class _LargestTensor(TorchDispatchMode):
    """Watches the entries of every tensor that is computed."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        outputs = result if isinstance(result, tuple | list) else (result,)
        sizes = [output.numel() for output in outputs if isinstance(output, torch.Tensor)]
        self.entries = max([self.entries, *sizes])
        return result


def test_no_tensor_is_larger_than_a_block_of_anchors(term_inputs, monkeypatch):
    inputs = term_inputs(samples=64, dim=4)
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 8 * 128)
    with _LargestTensor() as largest:
        _conr(inputs).backward()
    assert largest.entries == 8 * 128


OFFICIAL = {"denominator": "official", "outer_weight": True}
NYU = {"pushing": "linear", "denominator": "official", "outer_weight": False, "counts_self": True}


@pytest.mark.parametrize(
    ("term", "switches"),
    [
        (ConR(), OFFICIAL),
        (ConR(variant="paper"), {"denominator": "paper", "outer_weight": False}),
        (ConR(variant="nyu"), NYU),
        (ConR(denominator="paper"), {"denominator": "paper", "outer_weight": True}),
        (ConR(variant="paper", outer_weight=True), {"denominator": "paper", "outer_weight": True}),
        (ConR(outer_weight=False), {"denominator": "official", "outer_weight": False}),
        (ConR(pushing="none"), {**OFFICIAL, "pushing": "none"}),
        (ConR(variant="nyu", pushing="exp"), {**NYU, "pushing": "exp"}),
    ],
)
def test_the_variant_sets_the_switches_that_are_not_given(term, switches, term_inputs):
    inputs = term_inputs()
    assert term(inputs) == _conr(inputs, push_power=0.01, **switches)


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = _vectors(term_inputs(), 2)
    term = ConR(beta=0.5, omega=0.7, tau=0.2, push_power=0.4, pushing="linear", label_distance="l1")
    changed = {"omega": 0.7, "push_power": 0.4, "pushing": "linear", "label_distance": "l1"}
    assert term.weight == 0.5
    assert term(inputs) == _conr(inputs, tau=0.2, **changed) > 0
    taus = torch.linspace(0.2, 1.0, 16, dtype=torch.float64)
    assert term.evaluate_at(inputs, taus, rho=0.1) == _conr(inputs, tau=taus, rho=0.1, **changed)


def test_impossible_hyperparameters_are_all_named():
    with pytest.raises(InputError) as caught:
        read(ConR, {"tau": 0, "omega": -1, "pushing": "cubic", "eta": 1}, where="study.yaml")
    assert sorted(fault.key for fault in caught.value.faults) == ["eta", "omega", "pushing", "tau"]


@pytest.mark.parametrize("given", [{"variant": "nyu"}, {"pushing": "linear"}])
def test_linear_pushing_without_a_slope_is_refused(given):
    with pytest.raises(InputError, match="push_power must be positive with pushing 'linear'"):
        read(ConR, {**given, "push_power": 0}, where="study.yaml")


def test_the_variant_of_sts_b_rounds_and_has_no_weights(term_inputs):
    generator = torch.Generator().manual_seed(3)
    labels = (5 * torch.rand(12, generator=generator, dtype=torch.float64)).tolist()
    inputs = replace(term_inputs(labels=labels, views=1), label_scale=5.0)
    rounded = replace(
        inputs,
        labels=torch.tensor([round(label, 1) for label in labels], dtype=torch.float64),
        predictions=torch.tensor([round(value / 5, 1) for value in inputs.predictions.tolist()], dtype=torch.float64),
        weights=torch.ones(12),
    )
    settings = {**SETTINGS, "tau": 1.0, "push_power": 0.01}
    found = ConR(variant="official_sts", tau=1.0)(inputs).item()
    assert found == pytest.approx(_conr_by_loops(rounded, **settings), rel=1e-10)
    assert found != pytest.approx(_conr_by_loops(inputs, **settings), rel=1e-3)
