"""`pytest tests/losses/test_accon.py`: ACCon against the formula written with angles, as loops over anchors."""

import math

import pytest
import torch
from pydantic import ValidationError

from dirtune.losses.accon import ACCon, accon, compensated_cosines, target_angles
from dirtune.losses.supcon import supcon

SETTINGS = {"tau": 0.5, "label_range": 10.0, "epsilon": 0.0, "variant": "paper", "reduction": "all"}


def _similarity(z, y, *, label_range, epsilon):
    """A pair's cosine and its compensated form; with an angle where there is no epsilon."""
    c = sum(a * b for a, b in zip(*z, strict=True))
    delta = math.pi * min(abs(y[0] - y[1]) / label_range, 1.0)
    if epsilon == 0:
        return c, -math.cos(math.acos(max(-1.0, min(1.0, c))) - delta)
    return c, -c * math.cos(delta) - math.sqrt(1 - c**2 + epsilon) * math.sin(delta)


def _accon_by_loops(inputs, *, tau, label_range, epsilon, variant, reduction):
    z, y = inputs.representations.tolist(), inputs.labels.tolist()
    rows, losses = range(len(z)), []
    # The official code subtracts the largest logit, the anchor's own 1 / tau, from the positives only.
    shift = 0.0 if variant == "paper" else 1 / tau
    smoothing = 0.0 if variant == "paper" else epsilon
    sums, counts = 0.0, 0
    for i in rows:
        pairs = {
            j: _similarity((z[i], z[j]), (y[i], y[j]), label_range=label_range, epsilon=epsilon)
            for j in rows
        }
        similar = [j for j in rows if y[i] == y[j]]
        positives = similar if variant == "official_sts" else [j for j in similar if j != i]
        total = sum(math.exp(pairs[j][0] / tau - shift) for j in similar if j != i)
        total += sum(math.exp(pairs[j][1] / tau) for j in rows if j not in similar)
        log_shares = [pairs[j][0] / tau - shift - math.log(total) for j in positives]
        sums, counts = sums + sum(log_shares), counts + len(positives)
        if positives:
            losses.append(-(sum(log_shares) + smoothing) / (len(positives) + smoothing))
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
    [
        ("official", "all"),
        ("official", "valid"),
        ("official_sts", "all"),
        ("paper", "all"),
        ("paper", "valid"),
    ],
)
def test_accon_equals_the_loops(seed, views, tau, epsilon, variant, reduction, term_inputs):
    inputs = term_inputs(views=views, seed=seed)
    changed = {"tau": tau, "epsilon": epsilon, "variant": variant, "reduction": reduction}
    expected = _accon_by_loops(inputs, **{**SETTINGS, **changed})
    assert _accon(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


def test_target_angles_are_proportional_to_label_distance_and_end_at_pi():
    angles = target_angles(torch.tensor([0.0, 25.0, 100.0, 186.0]), 100.0)
    assert angles[0].tolist() == pytest.approx([0.0, math.pi / 4, math.pi, math.pi])
    assert torch.equal(angles, angles.T)


def test_target_angles_are_zero_where_labels_and_range_have_no_width():
    assert target_angles(torch.tensor([7.0, 7.0]), 0.0).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
@pytest.mark.parametrize("target", [0.3, 1.5, 3.0])
def test_a_negative_is_least_similar_at_its_target_angle(target, epsilon):
    angles = torch.linspace(0.001, math.pi - 0.001, 3001, dtype=torch.float64)
    compensated = compensated_cosines(
        angles.cos()[None], torch.full_like(angles, target)[None], epsilon=epsilon
    )
    assert angles[compensated.argmin()].item() == pytest.approx(target, abs=0.01)
    assert compensated.min().item() == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_the_slope_is_bounded_up_to_coincidence_and_opposition(dtype, epsilon):
    step = torch.finfo(dtype).eps
    cosines = torch.tensor(
        [[1.0, 1 - step, 1 + step, -1.0, step - 1, -1 - step, 1.01]], dtype=dtype
    )
    cosines.requires_grad_()
    compensated = compensated_cosines(cosines, torch.full_like(cosines, 1.0), epsilon=epsilon)
    compensated.sum().backward()
    assert compensated.isfinite().all()
    assert cosines.grad.isfinite().all()
    assert cosines.grad.abs().max() <= 1 + max(epsilon, step) ** -0.5
    assert cosines.grad[0, -1] == 0  # half precision can give cosines beyond one


def test_the_loss_falls_towards_the_target_angle_from_either_side():
    labels = torch.tensor([0.0, 0.0, 3.0, 3.0], dtype=torch.float64)  # target angle 0.3 pi

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
    ("variant", "epsilon", "constant"),
    [("official", 1e-6, -1.0), ("official", 0.0, 0.0), ("paper", 1e-6, 0.0)],
)
def test_anchors_without_positives_give_a_constant_without_gradient(
    variant, epsilon, constant, term_inputs
):
    inputs = term_inputs(labels=list(range(6)), views=1)
    loss = _accon(inputs, variant=variant, epsilon=epsilon)
    loss.backward()
    assert loss == constant
    assert inputs.representations.grad.abs().max() == 0


def test_the_term_hands_its_hyperparameters_on(term_inputs):
    inputs = term_inputs()
    term = ACCon(gamma=10.0, tau=0.3, epsilon=0.01, variant="official", reduction="valid")
    expected = _accon(inputs, tau=0.3, epsilon=0.01, variant="official", reduction="valid")
    assert term.weight == 10.0
    assert term(inputs) == expected


def test_the_sts_form_refuses_a_reduction_that_it_has_not():
    with pytest.raises(
        ValidationError, match="reduction must be 'all' with variant 'official_sts'"
    ):
        ACCon(variant="official_sts", reduction="valid")
