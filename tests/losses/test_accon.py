"""`pytest tests/losses/test_accon.py`: ACCon against the formula written with angles, as loops over anchors."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from dirtune.losses.accon import ACCon, accon, compensate_cosines, compute_target_angles
from dirtune.losses.supcon import supcon

SETTINGS = {
    "tau": 0.5,
    "label_range": 10.0,
    "epsilon": 0.0,
    "epsilon_at": "inside",
    "variant": "paper",
    "reduction": "all",
    "positives": "each",
    "label_distance": "l2",
}


def _distance(a, b, name):
    if not isinstance(a, list):
        return abs(a - b)
    apart = [abs(p - q) for p, q in zip(a, b, strict=True)]
    return {"l1": sum(apart), "l2": math.hypot(*apart), "max": max(apart)}[name]


def _similarity(z, distance, *, label_range, epsilon, epsilon_at):
    """A pair's cosine and its compensated form; with an angle where there is no epsilon."""
    c = sum(a * b for a, b in zip(*z, strict=True))
    delta = math.pi * min(distance / label_range, 1.0)
    if epsilon == 0:
        return c, -math.cos(math.acos(max(-1.0, min(1.0, c))) - delta)
    if epsilon_at == "outside":
        return c, -c * math.cos(delta) - (math.sqrt(max(0.0, 1 - c**2)) + epsilon) * math.sin(delta)
    return c, -c * math.cos(delta) - math.sqrt(1 - c**2 + epsilon) * math.sin(delta)


def _accon_by_loops(inputs, *, tau, label_range, epsilon, epsilon_at, variant, reduction, positives, label_distance):
    z, y = inputs.representations.tolist(), inputs.labels.tolist()
    bins = inputs.label_bins.tolist()
    rows, losses = range(len(z)), []
    taus = tau.tolist() if isinstance(tau, torch.Tensor) else [tau] * len(z)
    smoothing = 0.0 if variant == "paper" or positives == "joint" else epsilon
    sums, counts = 0.0, 0
    for i in rows:
        # The official code subtracts the largest logit, the anchor's own 1 / tau, from the positives only.
        shift = 0.0 if variant == "paper" else 1 / taus[i]
        distances = [_distance(y[i], y[j], label_distance) for j in rows]
        pairs = [
            _similarity((z[i], z[j]), distances[j], label_range=label_range, epsilon=epsilon, epsilon_at=epsilon_at)
            for j in rows
        ]
        similar = [j for j in rows if bins[i] == bins[j]]
        found = similar if variant == "official_sts" else [j for j in similar if j != i]
        total = sum(math.exp(pairs[j][0] / taus[i] - shift) for j in similar if j != i)
        total += sum(math.exp(pairs[j][1] / taus[i]) for j in rows if j not in similar)
        log_shares = [pairs[j][0] / taus[i] - shift - math.log(total) for j in found]
        sums, counts = sums + sum(log_shares), counts + len(found)
        if found and positives == "joint":
            losses.append(-math.log(sum(math.exp(share) for share in log_shares)))
        elif found:
            losses.append(-(sum(log_shares) + smoothing) / (len(found) + smoothing))
        elif reduction == "all":
            losses.append(-1.0 if smoothing else 0.0)
    if variant == "official_sts":
        return -(sums + smoothing) / (counts + smoothing)
    return sum(losses) / len(losses)


def _accon(inputs, **changed):
    rows = (inputs.representations, inputs.labels, inputs.label_bins)
    return accon(*rows, **{**SETTINGS, **changed})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
@pytest.mark.parametrize(
    ("variant", "reduction"),
    [("official", "all"), ("official", "valid"), ("official_sts", "all"), ("paper", "all"), ("paper", "valid")],
)
def test_accon_equals_the_loops(seed, views, tau, epsilon, variant, reduction, term_inputs):
    inputs = term_inputs(views=views, seed=seed)
    changed = {"tau": tau, "epsilon": epsilon, "variant": variant, "reduction": reduction}
    expected = _accon_by_loops(inputs, **{**SETTINGS, **changed})
    assert _accon(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("views", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", ["official", "paper"])
@pytest.mark.parametrize("reduction", ["all", "valid"])
def test_joint_positives_equal_the_loops(views, variant, reduction, term_inputs):
    inputs = term_inputs(views=views)
    changed = {"positives": "joint", "variant": variant, "reduction": reduction, "epsilon": 1e-3}
    expected = _accon_by_loops(inputs, **{**SETTINGS, **changed})
    assert _accon(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("variant", ["official", "official_sts", "paper"])
def test_every_anchor_may_have_a_temperature_of_its_own(variant, term_inputs):
    inputs = term_inputs()
    changed = {"tau": torch.linspace(0.05, 2.0, 16, dtype=torch.float64), "variant": variant}
    expected = _accon_by_loops(inputs, **{**SETTINGS, **changed})
    assert _accon(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("label_distance", ["l1", "l2", "max"])
def test_labels_of_several_dimensions_are_compared_by_the_named_distance(label_distance, term_inputs):
    inputs = term_inputs()
    generator = torch.Generator().manual_seed(1)
    planes = 6 * torch.rand(8, 2, generator=generator, dtype=torch.float64).repeat(2, 1)
    inputs = replace(inputs, labels=planes, label_bins=torch.arange(8).repeat(2))
    changed = {"label_distance": label_distance}
    expected = _accon_by_loops(inputs, **{**SETTINGS, **changed})
    assert _accon(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


def test_gaze_labels_are_compared_by_their_angle(term_inputs):
    inputs = term_inputs(labels=[0, 1, 2])
    yaws = torch.tensor([0.0, 0.3, 1.2], dtype=torch.float64).repeat(2)
    # Without pitch the angle is the yaw
    gaze = torch.stack([torch.zeros_like(yaws), yaws], dim=1)
    by_angle = _accon(replace(inputs, labels=gaze), label_distance="angular", label_range=math.pi)
    by_yaw = _accon(replace(inputs, labels=yaws), label_range=math.pi)
    torch.testing.assert_close(by_angle, by_yaw)


def test_target_angles_are_proportional_to_label_distance_and_end_at_pi():
    angles = compute_target_angles(torch.tensor([0.0, 25.0, 100.0, 186.0]), 100.0)
    assert angles[0].tolist() == pytest.approx([0.0, math.pi / 4, math.pi, math.pi])
    assert torch.equal(angles, angles.T)


def test_target_angles_are_zero_where_labels_and_range_have_no_width():
    assert compute_target_angles(torch.tensor([7.0, 7.0]), 0.0).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
@pytest.mark.parametrize("target", [0.3, 1.5, 3.0])
def test_a_negative_is_least_similar_at_its_target_angle(target, epsilon):
    angles = torch.linspace(0.001, math.pi - 0.001, 3001, dtype=torch.float64)
    compensated = compensate_cosines(angles.cos()[None], torch.full_like(angles, target)[None], epsilon=epsilon)
    assert angles[compensated.argmin()].item() == pytest.approx(target, abs=0.01)
    assert compensated.min().item() == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize("variant", ["official", "official_sts", "paper"])
def test_epsilon_may_be_added_to_the_root_as_printed(variant, term_inputs):
    inputs = term_inputs()
    changed = {"epsilon": 0.05, "epsilon_at": "outside", "variant": variant}
    loss = _accon(inputs, **changed)
    assert loss.item() == pytest.approx(_accon_by_loops(inputs, **(SETTINGS | changed)), rel=1e-10)
    assert abs(loss.item() - _accon(inputs, **(changed | {"epsilon_at": "inside"})).item()) > 1e-6


def test_epsilon_outside_of_the_root_leaves_the_slope_as_without(term_inputs):
    slopes = []
    for epsilon in (0.0, 0.1):
        cosines = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)[None].requires_grad_()
        compensated = compensate_cosines(cosines, torch.full_like(cosines, 0.7), epsilon=epsilon, epsilon_at="outside")
        slopes.append(torch.autograd.grad(compensated.sum(), cosines)[0])
    assert torch.equal(*slopes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_the_slope_is_bounded_up_to_coincidence_and_opposition(dtype, epsilon):
    step = torch.finfo(dtype).eps
    cosines = torch.tensor([[1.0, 1 - step, 1 + step, -1.0, step - 1, -1 - step, 1.01]], dtype=dtype)
    cosines.requires_grad_()
    compensated = compensate_cosines(cosines, torch.full_like(cosines, 1.0), epsilon=epsilon)
    compensated.sum().backward()
    assert compensated.isfinite().all()
    assert cosines.grad.isfinite().all()
    assert cosines.grad.abs().max() <= 1 + max(epsilon, step) ** -0.5
    # Half precision can give cosines beyond one
    assert cosines.grad[0, -1] == 0


def test_the_loss_falls_towards_the_target_angle_from_either_side():
    # Target angle 0.3 pi
    labels = torch.tensor([0.0, 0.0, 3.0, 3.0], dtype=torch.float64)

    def loss(angle):
        turns = torch.tensor([0.0, 0.0, angle, angle], dtype=torch.float64)
        z = torch.stack([turns.cos(), turns.sin()], dim=1)
        return accon(z, labels, labels.long(), **{**SETTINGS, "tau": 0.1}).item()

    fractions = [0.1, 0.2, 0.3, 0.4, 0.5, 0.9]
    losses = [loss(fraction * math.pi) for fraction in fractions]
    assert losses[0] > losses[1] > losses[2] < losses[3] < losses[4] < losses[5]


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_equal_labels_reduce_it_to_supcon(variant, term_inputs):
    inputs = term_inputs(labels=[4] * 5)
    expected = supcon(inputs.representations, inputs.label_bins, tau=0.5)
    torch.testing.assert_close(_accon(inputs, variant=variant), expected)


@pytest.mark.parametrize(
    ("variant", "epsilon", "constant"), [("official", 1e-6, -1.0), ("official", 0.0, 0.0), ("paper", 1e-6, 0.0)]
)
def test_anchors_without_positives_give_a_constant_without_gradient(variant, epsilon, constant, term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1)
    loss = _accon(inputs, variant=variant, epsilon=epsilon)
    loss.backward()
    assert loss == constant
    assert inputs.representations.grad.abs().max() == 0


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = term_inputs()
    term = ACCon(gamma=10.0, tau=0.3, epsilon=0.01, reduction="valid", positives="joint")
    changed = {"tau": 0.3, "epsilon": 0.01, "variant": "official", "reduction": "valid"}
    assert term.weight == 10.0
    assert term(inputs) == _accon(inputs, **changed, positives="joint")
    planes = replace(inputs, labels=torch.stack([inputs.labels, -inputs.labels], dim=1))
    expected = _accon(planes, tau=0.05, epsilon=1e-6, variant="official", label_distance="max")
    assert ACCon(label_distance="max")(planes) == expected


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"reduction": "valid"}, "reduction must be 'all' with variant 'official_sts'"),
        ({"positives": "joint"}, "positives must be 'each' with variant 'official_sts'"),
    ],
)
def test_the_sts_form_refuses_other_reductions_and_positives(changed, rule):
    with pytest.raises(ValidationError, match=rule):
        ACCon(variant="official_sts", **changed)


def test_positives_may_be_equal_rounded_labels(term_inputs):
    inputs = replace(term_inputs(labels=[0.12, 0.08, 0.3, 0.34, 4.96, 5.0]), label_bins=torch.arange(12))
    classes = (10 * inputs.labels).round().long()
    found = ACCon(variant="official_sts", tau=1.0, label_decimals=1)(inputs)
    assert torch.equal(found, ACCon(variant="official_sts", tau=1.0)(replace(inputs, label_bins=classes)))
    assert found != ACCon(variant="official_sts", tau=1.0)(inputs)
