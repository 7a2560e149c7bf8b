"""`pytest tests/losses/test_adasupcon.py`: AdaSupCon against loops over anchors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dirtune.batch import TrainingLabels
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.losses import blocks
from dirtune.losses.adasupcon import AdaSupCon, adasupcon, compute_accon_repo_sums, compute_midranks, interpolate
from dirtune.losses.supcon import supcon
from dirtune.manifest import LabelSpec

WHOLE_YEARS = LabelSpec(name="age", unit="years", low=0, high=10, bin_width=1, num_bins=11)


def _adasupcon_by_loops(inputs, positions, *, tau, smoothing, reduction):
    z, bins = inputs.representations.tolist(), inputs.label_bins.tolist()
    rows, losses = range(len(z)), []
    for i in rows:
        similarities = [sum(a * b for a, b in zip(z[i], z[j], strict=True)) for j in rows]
        for j in rows:
            if bins[i] != bins[j]:
                similarities[j] += min(2 * abs(positions[i] - positions[j]), 2.0)
        total = sum(math.exp(similarities[j] / tau) for j in rows if j != i)
        positives = [j for j in rows if j != i and bins[i] == bins[j]]
        log_shares = [similarities[j] / tau - math.log(total) for j in positives]
        if positives:
            losses.append(-(sum(log_shares) + smoothing) / (len(positives) + smoothing))
        elif reduction == "all":
            losses.append(-1.0 if smoothing else 0.0)
    return sum(losses) / len(losses)


def _training_labels(labels, *, dtype=torch.float64, spec=WHOLE_YEARS):
    rows = torch.tensor(labels, dtype=dtype)
    bins = ((rows - spec.low) / spec.bin_width).floor().long()
    return TrainingLabels(labels=rows, label_bins=bins, spec=spec)


def _positions(inputs):
    return interpolate(inputs.labels, *compute_midranks(inputs.labels))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 1e-5])
@pytest.mark.parametrize("reduction", ["all", "valid"])
@pytest.mark.parametrize("stretch", [1.0, 5.0])
def test_adasupcon_equals_the_loops(seed, views, tau, smoothing, reduction, stretch, term_inputs):
    inputs = term_inputs(views=views, seed=seed)
    # Stretched: the largest margins meet their bound
    positions = stretch * _positions(inputs)
    settings = {"tau": tau, "smoothing": smoothing, "reduction": reduction}
    expected = _adasupcon_by_loops(inputs, positions.tolist(), **settings)
    loss = adasupcon(inputs.representations, positions, inputs.label_bins, **settings)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_equal_positions_make_it_supcon(term_inputs):
    inputs = term_inputs()
    loss = adasupcon(inputs.representations, torch.ones(16), inputs.label_bins, tau=0.1)
    torch.testing.assert_close(loss, supcon(inputs.representations, inputs.label_bins, tau=0.1))


def test_labels_of_one_bin_have_no_margin(term_inputs):
    inputs = term_inputs(labels=[4] * 6)
    positions = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)
    loss = adasupcon(inputs.representations, positions, inputs.label_bins, tau=0.1)
    torch.testing.assert_close(loss, supcon(inputs.representations, inputs.label_bins, tau=0.1))


def test_labels_far_apart_in_the_distribution_are_pushed_apart_harder(term_inputs):
    inputs = term_inputs(labels=[0, 0, 5, 9], views=1, dim=3)
    z = torch.eye(3, dtype=torch.float64)[[0, 0, 1, 2]].requires_grad_()
    positions = torch.tensor([0.1, 0.1, 0.5, 0.9], dtype=torch.float64)
    adasupcon(z, positions, inputs.label_bins, tau=0.5).backward()
    towards_near, towards_far = z.grad[0, 1], z.grad[0, 2]
    assert towards_far > 2 * towards_near > 0


@pytest.mark.parametrize(("smoothing", "constant"), [(1e-5, -1.0), (0.0, 0.0)])
def test_anchors_without_positives_give_a_constant_without_gradient(smoothing, constant, term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1)
    loss = adasupcon(inputs.representations, _positions(inputs), inputs.label_bins, tau=0.1, smoothing=smoothing)
    loss.backward()
    assert loss == constant
    assert inputs.representations.grad.abs().max() == 0


def test_blocks_of_anchors_give_the_same_loss_and_gradient(term_inputs, monkeypatch):
    inputs = term_inputs(samples=12)
    rows = (inputs.representations, _positions(inputs), inputs.label_bins)
    whole = adasupcon(*rows, tau=0.1, reduction="valid")
    gradient = torch.autograd.grad(whole, inputs.representations)[0]
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 24 * 5)
    parts = adasupcon(*rows, tau=0.1, reduction="valid")
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, inputs.representations)[0], gradient)


def test_a_midrank_is_the_share_below_and_half_of_the_share_at_a_label():
    labels = [7.0, 2.5, 2.5, 9.0, 2.5, 7.0, 0.0, 9.5]
    knots, positions = compute_midranks(torch.tensor(labels))
    expected = {y: (sum(x < y for x in labels) + 0.5 * labels.count(y)) / len(labels) for y in labels}
    assert dict(zip(knots.tolist(), positions.tolist(), strict=True)) == expected
    assert knots.tolist() == sorted(expected)


def test_accons_code_adds_up_ages_where_it_means_counts():
    ages = [20, 20, 20, 21, 21, 25]
    knots, sums = compute_accon_repo_sums(torch.tensor(ages) - 5, first_key=5.0)
    # The first age's count, then ages; minus half of the own age.
    assert knots.tolist() == [15, 16, 20]
    assert sums.tolist() == [3 - 10, 3 + 21 - 10.5, 3 + 21 + 25 - 12.5]


def test_accons_code_on_text_weights_the_sums_of_tenths(term_inputs):
    scores = [0.0, 0.0, 0.5, 0.5, 0.5, 1.25, 4.7, 5.0]
    # `0.5 // 0.1` is 4 in float32, as in numpy.
    keys = [float(np.float32(score) // np.float32(0.1)) for score in scores]
    assert keys == [0, 0, 4, 4, 4, 12, 46, 49]
    sums, cumulated = {}, 0.0
    for key in sorted(set(keys)):
        cumulated += keys.count(key) if not sums else key
        sums[key] = cumulated - key / 2
    spec = LabelSpec(name="similarity", unit="score", low=0, high=5, bin_width=0.1, num_bins=50)
    inputs = term_inputs(labels=scores, views=1)
    inputs = replace(inputs, label_bins=torch.tensor([0, 0, 5, 5, 5, 12, 47, 49]))
    # The margin of two samples, 0.2 times the difference of their sums, is twice that of their positions.
    positions = [0.1 * sums[key] for key in keys]
    expected = _adasupcon_by_loops(inputs, positions, tau=1.0, smoothing=1e-5, reduction="all")
    fitted = AdaSupCon(variant="accon_repo_sts", tau=1.0).fit(_training_labels(scores, spec=spec))
    assert fitted(inputs).item() == pytest.approx(expected, rel=1e-12)
    assert 0.2 * (sums[12] - sums[4]) < 2 < 0.2 * (sums[46] - sums[12])


def test_unseen_labels_are_interpolated_and_held_at_the_ends():
    knots, positions = torch.tensor([2.0, 4.0, 8.0]), torch.tensor([0.1, 0.5, 0.9])
    values = torch.tensor([-5.0, 2.0, 3.0, 4.0, 7.0, 8.0, 99.0])
    expected = np.interp(values, knots, positions).tolist()
    assert interpolate(values, knots, positions).tolist() == pytest.approx(expected)


def test_one_label_in_training_has_one_position():
    fitted = compute_midranks(torch.tensor([3.0, 3.0]))
    values = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    assert interpolate(values, *fitted).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("variant", "by_bin", "settings"),
    [
        ("corrected", False, {"tau": 0.05}),
        ("official", True, {"tau": 1 / 150}),
        ("accon_repo", True, {"tau": 0.05, "smoothing": 1e-5}),
    ],
)
def test_the_variant_sets_distribution_temperature_and_smoothing(variant, by_bin, settings, term_inputs):
    inputs = replace(term_inputs(), labels=term_inputs().labels + 0.25)
    training = _training_labels([0.5, 0.7, 1.2, 3.1, 3.2, 3.9, 8.5])
    fitted = AdaSupCon(variant=variant).fit(training)
    if variant == "accon_repo":
        knots, sums = compute_accon_repo_sums(training.label_bins, first_key=0.0)
        distribution = knots, sums / 7
    else:
        distribution = compute_midranks(training.label_bins if by_bin else training.labels)
    values = inputs.label_bins.double() if by_bin else inputs.labels
    positions = interpolate(values, *distribution)
    expected = adasupcon(inputs.representations, positions, inputs.label_bins, **settings)
    assert fitted(inputs) == expected


def test_the_first_key_is_the_lowest_label_in_bin_widths(term_inputs):
    halves = LabelSpec(name="y", unit="", low=2, high=7, bin_width=0.5, num_bins=10)
    training = _training_labels([2.0, 2.6, 6.9], spec=halves)
    fitted = AdaSupCon(variant="accon_repo").fit(training)
    _, sums = compute_accon_repo_sums(torch.tensor([0, 1, 9]), first_key=4.0)
    assert torch.equal(fitted.positions, sums / 3)


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = term_inputs(labels=[0, 0, 5, 9], views=1)
    term = AdaSupCon(gamma=0.75, tau=0.3, reduction="valid")
    expected = adasupcon(inputs.representations, _positions(inputs), inputs.label_bins, tau=0.3, reduction="valid")
    assert term.weight == 0.75
    assert term.fit(_training_labels(inputs.labels.tolist()))(inputs) == expected > 0


@pytest.mark.parametrize("variant", ["corrected", "official", "accon_repo"])
def test_the_distribution_is_saved_with_the_state(variant, term_inputs):
    inputs = term_inputs(dtype=torch.float32)
    fitted = AdaSupCon(variant=variant).fit(_training_labels([0, 2, 2, 7, 9], dtype=torch.float32))
    other = AdaSupCon(variant=variant).fit(_training_labels([1, 1, 3, 4, 8], dtype=torch.float32))
    assert isinstance(fitted, nn.Module)
    assert not list(fitted.parameters())
    assert other(inputs) != fitted(inputs)
    other.load_state_dict(fitted.state_dict() | {"knots": torch.tensor([0.0, 2, 7, 9])})
    assert other(inputs) == fitted(inputs)


@pytest.mark.parametrize("variant", ["corrected", "official", "accon_repo", "accon_repo_sts"])
@pytest.mark.parametrize("tau", [None, 0.01])
def test_duplicates_and_antipodes_have_finite_gradients(variant, tau, term_inputs):
    inputs = term_inputs(dtype=torch.float32)
    first = inputs.representations.detach()[0]
    inputs.representations.data[1:4] = first
    inputs.representations.data[8:11] = -first
    fitted = AdaSupCon(variant=variant, tau=tau).fit(_training_labels([0, 2, 2, 7, 9]))
    loss = fitted(inputs)
    loss.backward()
    assert loss.isfinite()
    assert inputs.representations.grad.isfinite().all()


def test_labels_without_an_order_are_refused():
    plane = TrainingLabels(labels=torch.zeros(4, 2), label_bins=torch.zeros(4, dtype=torch.long), spec=WHOLE_YEARS)
    with pytest.raises(InputError, match="is made for labels of one dimension, got 2"):
        AdaSupCon().fit(plane)


def test_impossible_hyperparameters_are_all_named():
    with pytest.raises(InputError) as caught:
        read(AdaSupCon, {"tau": 0, "gamma": -1, "variant": "adacon"}, where="study.yaml")
    assert sorted(fault.key for fault in caught.value.faults) == ["gamma", "tau", "variant"]


def test_positives_may_be_equal_rounded_labels(term_inputs):
    inputs = replace(term_inputs(labels=[0.12, 0.08, 0.3, 0.34, 4.96, 5.0]), label_bins=torch.arange(12))
    term = AdaSupCon(label_decimals=1).fit(_training_labels([0.0, 0.1, 2.0, 5.0]))
    positions = interpolate(inputs.labels, term.knots, term.positions)
    classes = [round(10 * label) for label in inputs.labels.tolist()]
    expected = _adasupcon_by_loops(
        replace(inputs, label_bins=torch.tensor(classes)),
        positions.tolist(),
        tau=0.05,
        smoothing=0.0,
        reduction="all",
    )
    assert term(inputs).item() == pytest.approx(expected, rel=1e-10)
