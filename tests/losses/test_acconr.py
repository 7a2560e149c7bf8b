"""`pytest tests/losses/test_acconr.py`: ACCon+ConR against loops that turn angles."""

import math
from dataclasses import replace

import pytest
import torch

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.losses import blocks
from dirtune.losses.acconr import ACConR, acconr
from dirtune.losses.conr import conr

SETTINGS = {
    "label_range": 10.0,
    "omega": 1.0,
    "tau": 0.2,
    "push_power": 0.3,
    "epsilon": 0.0,
    "pushing": "exp",
    "denominator": "paper",
    "outer_weight": False,
    "clamps_logits": False,
    "rho": None,
}
OFFICIAL = {"pushing": "none", "denominator": "official", "outer_weight": True, "clamps_logits": True}


def _turned(cosine, distance, settings):
    """The cosine of what is left of the pair's angle beyond its target, negated; with an angle where that is exact."""
    delta = math.pi * min(distance / settings["label_range"], 1.0)
    if settings["clamps_logits"]:
        cosine = max(-1.0, min(1.0, cosine / settings["tau"]))
    if settings["epsilon"] == 0:
        return -math.cos(math.acos(cosine) - delta)
    sine = math.sqrt(1 - cosine**2 + settings["epsilon"])
    return -cosine * math.cos(delta) - sine * math.sin(delta)


def _acconr_by_loops(inputs, **settings):
    z, y = inputs.representations.tolist(), inputs.labels.tolist()
    p, w = inputs.predictions.tolist(), inputs.weights.tolist()
    rows, omega, tau = range(len(z)), settings["omega"], settings["tau"]
    losses = []
    for i in rows:
        cosines = [sum(a * b for a, b in zip(z[i], z[j], strict=True)) for j in rows]
        positives = [j for j in rows if j != i and abs(y[i] - y[j]) <= omega]
        negatives = [j for j in rows if abs(y[i] - y[j]) > omega and abs(p[i] - p[j]) <= omega]
        if not positives or not negatives:
            losses.append(0.0)
            continue
        terms = [math.exp(cosines[j] / tau) for j in positives]
        for j in negatives:
            distance = abs(y[i] - y[j])
            push = w[i] * math.exp(settings["push_power"] * distance)
            factor = push if settings["pushing"] == "exp" else 1.0
            terms.append(factor * math.exp(_turned(cosines[j], distance, settings) / tau))
        if settings["denominator"] == "official":
            terms += [1.0] * (len(z) - len(positives))
        loss = sum(math.log(sum(terms)) - cosines[j] / tau for j in positives)
        if settings["rho"] is not None:
            loss = tau * (loss + len(positives) * (settings["rho"] - math.log(len(terms))))
        loss /= len(positives)
        losses.append(loss * w[i] if settings["outer_weight"] else loss)
    return sum(losses) / len(losses)


def _acconr(inputs, **changed):
    rows = (inputs.representations, inputs.labels, inputs.predictions, inputs.weights)
    return acconr(*rows, **{**SETTINGS, **changed})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("pushing", ["exp", "none"])
@pytest.mark.parametrize("denominator", ["official", "paper"])
@pytest.mark.parametrize("outer_weight", [True, False])
@pytest.mark.parametrize("clamps_logits", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_acconr_equals_the_loops(seed, views, pushing, denominator, outer_weight, clamps_logits, epsilon, term_inputs):
    inputs = term_inputs(samples=12, views=views, seed=seed)
    changed = {
        "pushing": pushing,
        "denominator": denominator,
        "outer_weight": outer_weight,
        "clamps_logits": clamps_logits,
        "epsilon": epsilon,
    }
    expected = _acconr_by_loops(inputs, **{**SETTINGS, **changed})
    assert expected > 0
    # At a clamped cosine of one, the sine is that of the smallest angle that the dtype resolves.
    tolerance = 1e-6 if clamps_logits and epsilon == 0 else 1e-10
    assert _acconr(inputs, **changed).item() == pytest.approx(expected, rel=tolerance)


def test_the_robust_form_equals_the_loops(term_inputs):
    inputs = term_inputs(samples=12)
    expected = _acconr_by_loops(inputs, **{**SETTINGS, "rho": 0.3})
    assert _acconr(inputs, rho=0.3).item() == pytest.approx(expected, rel=1e-10)


def test_a_temperature_per_anchor_is_that_of_its_row(term_inputs):
    inputs = term_inputs()
    one = torch.full((16,), 0.2, dtype=torch.float64)
    torch.testing.assert_close(_acconr(inputs, tau=one), _acconr(inputs))
    taus = torch.linspace(0.2, 1.0, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda taus: _acconr(inputs, tau=taus), (taus,))


def test_the_loss_falls_towards_the_target_angle_from_either_side(term_inputs):
    # Target angle 0.3 pi
    inputs = term_inputs(labels=[0, 0, 3, 3], views=1, dim=2)
    inputs = replace(inputs, predictions=torch.zeros_like(inputs.predictions))

    def loss(fraction):
        turns = torch.tensor([0, 0, fraction, fraction], dtype=torch.float64) * math.pi
        return _acconr(replace(inputs, representations=torch.stack([turns.cos(), turns.sin()], dim=1))).item()

    losses = [loss(fraction) for fraction in (0.1, 0.2, 0.3, 0.4, 0.5, 0.9)]
    assert losses[0] > losses[1] > losses[2] < losses[3] < losses[4] < losses[5]


def test_labels_at_opposite_ends_repel_as_in_conr(term_inputs):
    # A target angle of pi turns nothing
    inputs = term_inputs(labels=[0, 0, 10, 10])
    inputs = replace(inputs, predictions=torch.zeros_like(inputs.predictions))
    switches = {"pushing": "exp", "denominator": "paper", "outer_weight": False}
    expected = conr(
        inputs.representations,
        inputs.labels,
        inputs.predictions,
        inputs.weights,
        omega=1.0,
        tau=0.2,
        push_power=0.3,
        **switches,
    )
    torch.testing.assert_close(_acconr(inputs), expected)


@pytest.mark.parametrize(("clamps_logits", "moves"), [(True, False), (False, True)])
def test_the_official_form_gives_most_negatives_no_gradient(clamps_logits, moves, term_inputs):
    inputs = term_inputs(labels=[0, 0, 5], views=1, dim=2)
    inputs = replace(inputs, predictions=torch.zeros_like(inputs.predictions))
    # A cosine of 0.54, above tau
    turns = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    z = torch.stack([turns.cos(), turns.sin()], dim=1).requires_grad_()
    _acconr(replace(inputs, representations=z), clamps_logits=clamps_logits).backward()
    assert bool(z.grad[2].abs().max() > 0) == moves


def test_a_batch_without_negatives_gives_zero_with_a_backward_pass(term_inputs):
    inputs = term_inputs()
    inputs = replace(inputs, predictions=1000 * torch.arange(16, dtype=torch.float64))
    loss = _acconr(inputs)
    loss.backward()
    assert loss == 0
    assert inputs.representations.grad.abs().max() == 0


def test_labels_of_several_dimensions_are_compared_by_the_label_distance(term_inputs):
    flat = term_inputs()
    zeros = torch.zeros_like(flat.labels)
    plane = replace(
        flat, labels=torch.stack([zeros, flat.labels], dim=1), predictions=torch.stack([zeros, flat.predictions], dim=1)
    )
    for label_distance in ("l1", "l2", "max"):
        torch.testing.assert_close(_acconr(plane, label_distance=label_distance), _acconr(flat))
    diagonal = replace(plane, labels=torch.stack([flat.labels, flat.labels], dim=1))
    assert _acconr(diagonal, label_distance="l1") != _acconr(diagonal, label_distance="max")


@pytest.mark.parametrize("clamps_logits", [True, False])
def test_blocks_of_anchors_give_the_same_loss_and_gradient(clamps_logits, term_inputs, monkeypatch):
    inputs = term_inputs(samples=12)
    whole = _acconr(inputs, clamps_logits=clamps_logits)
    gradient = torch.autograd.grad(whole, inputs.representations)[0]
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 24 * 5)
    parts = _acconr(inputs, clamps_logits=clamps_logits)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, inputs.representations)[0], gradient)


@pytest.mark.parametrize(
    ("term", "switches"),
    [
        (ACConR(), {}),
        (ACConR(variant="official"), OFFICIAL),
        (ACConR(pushing="none"), {"pushing": "none"}),
        (ACConR(denominator="official"), {"denominator": "official"}),
        (ACConR(variant="official", outer_weight=False), {**OFFICIAL, "outer_weight": False}),
    ],
)
def test_the_variant_sets_the_switches_that_are_not_given(term, switches, term_inputs):
    inputs = term_inputs()
    defaults = {"tau": 0.07, "push_power": 0.01, "epsilon": 1e-6}
    assert term(inputs) == _acconr(inputs, **defaults, **switches)


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = term_inputs()
    inputs = replace(
        inputs, labels=inputs.labels[:, None].expand(-1, 2), predictions=inputs.predictions[:, None].expand(-1, 2)
    )
    term = ACConR(gamma=0.5, omega=4.0, tau=0.3, push_power=0.4, epsilon=0.01, label_distance="l1")
    changed = {"omega": 4.0, "push_power": 0.4, "epsilon": 0.01, "label_distance": "l1"}
    assert term.weight == 0.5
    assert term(inputs) == _acconr(inputs, tau=0.3, **changed) > 0
    taus = torch.linspace(0.2, 1.0, 16, dtype=torch.float64)
    assert term.evaluate_at(inputs, taus, rho=0.1) == _acconr(inputs, tau=taus, rho=0.1, **changed)


def test_the_official_form_refuses_a_pushing_weight():
    with pytest.raises(InputError, match="pushing must be 'none' with variant 'official'"):
        read(ACConR, {"variant": "official", "pushing": "exp"}, where="study.yaml")
