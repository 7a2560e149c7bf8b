"""`pytest tests/losses/test_conr.py`: ConR against the formula written as loops over anchors."""

import math
from dataclasses import replace

import pytest
import torch

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.losses.conr import ConR, conr

SETTINGS = {
    "omega": 1.0,
    "tau": 0.07,
    "push_power": 0.3,
    "pushing": "exp",
    "denominator": "official",
    "outer_weight": True,
}


def _conr_by_loops(inputs, *, omega, tau, push_power, pushing, denominator, outer_weight):
    z, y = inputs.representations.tolist(), inputs.labels.tolist()
    p, w = inputs.predictions.tolist(), inputs.weights.tolist()
    rows, losses = range(len(z)), []
    for i in rows:
        share = [math.exp(sum(a * b for a, b in zip(z[i], z[j], strict=True)) / tau) for j in rows]
        positives = [j for j in rows if j != i and abs(y[i] - y[j]) <= omega]
        negatives = [j for j in rows if abs(y[i] - y[j]) > omega and abs(p[i] - p[j]) <= omega]
        if not positives or not negatives:
            losses.append(0.0)
            continue
        push = {
            "exp": lambda d, w=w[i]: w * math.exp(push_power * d),
            "linear": lambda d, w=w[i]: w * push_power * d,
            "none": lambda d: 1.0,
        }[pushing]
        total = sum(share[j] for j in positives)
        total += sum(push(abs(y[i] - y[j])) * share[j] for j in negatives)
        if denominator == "official":
            total += len(z) - len(positives)
        loss = sum(-math.log(share[j] / total) for j in positives) / len(positives)
        losses.append(loss * w[i] if outer_weight else loss)
    return sum(losses) / len(losses)


def _conr(inputs, **changed):
    rows = (inputs.representations, inputs.labels, inputs.predictions, inputs.weights)
    return conr(*rows, **{**SETTINGS, **changed})


def _crowded(inputs):
    """Predictions that all agree, so that every pair of unlike labels is a negative."""
    return replace(inputs, predictions=torch.zeros_like(inputs.predictions))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("pushing", ["exp", "linear", "none"])
@pytest.mark.parametrize("denominator", ["official", "paper"])
@pytest.mark.parametrize("outer_weight", [True, False])
@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_conr_equals_the_loops(seed, views, pushing, denominator, outer_weight, tau, term_inputs):
    inputs = term_inputs(samples=12, views=views, seed=seed)
    changed = {
        "pushing": pushing,
        "denominator": denominator,
        "outer_weight": outer_weight,
        "tau": tau,
    }
    expected = _conr_by_loops(inputs, **{**SETTINGS, **changed})
    assert expected > 0
    assert _conr(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


def test_the_window_of_labels_takes_in_its_edge(term_inputs):
    inputs = _crowded(term_inputs(labels=[0, 1, 2], views=1))
    assert _conr(inputs, omega=1.0) > 0  # neighbours attract, the outer two repel
    assert _conr(inputs, omega=2.0) == 0  # no negatives
    assert _conr(inputs, omega=0.5) == 0  # no positives


def test_the_window_of_predictions_takes_in_its_edge(term_inputs):
    inputs = term_inputs(labels=[0, 0, 5, 5], views=1)
    inputs = replace(inputs, predictions=torch.tensor([0, 0, 1, 1], dtype=torch.float64))
    assert _conr(inputs, omega=1.0) > 0
    assert _conr(inputs, omega=0.5) == 0  # positives, but no negatives


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
    expected = _conr_by_loops(
        inputs, **{**SETTINGS, "pushing": pushing, "denominator": "paper", "outer_weight": False}
    )
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


@pytest.mark.parametrize(
    ("term", "switches"),
    [
        (ConR(), {"denominator": "official", "outer_weight": True}),
        (ConR(variant="paper"), {"denominator": "paper", "outer_weight": False}),
        (ConR(denominator="paper"), {"denominator": "paper", "outer_weight": True}),
        (ConR(variant="paper", outer_weight=True), {"denominator": "paper", "outer_weight": True}),
        (ConR(outer_weight=False), {"denominator": "official", "outer_weight": False}),
    ],
)
def test_the_variant_sets_the_switches_that_are_not_given(term, switches, term_inputs):
    inputs = term_inputs()
    assert term(inputs) == _conr(inputs, push_power=0.01, **switches)


def test_the_term_hands_its_hyperparameters_on(term_inputs):
    inputs = term_inputs()
    term = ConR(beta=0.5, omega=2.0, tau=0.2, push_power=0.4, pushing="linear")
    assert term.weight == 0.5
    assert term(inputs) == _conr(inputs, omega=2.0, tau=0.2, push_power=0.4, pushing="linear")


def test_impossible_hyperparameters_are_all_named():
    with pytest.raises(InputError) as caught:
        read(ConR, {"tau": 0, "omega": -1, "pushing": "cubic", "eta": 1}, where="study.yaml")
    assert sorted(fault.key for fault in caught.value.faults) == ["eta", "omega", "pushing", "tau"]
