"""`pytest tests/losses/test_contract.py`: what every regularizer term promises, for every term and variant there is.

A term that is added to `TERMS` is tested here without a line being added.
"""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from dirtune.losses import TERMS


def _terms():
    for name, term in sorted(TERMS.items()):
        field = term.model_fields.get("variant")
        for variant in get_args(field.annotation) if field else ():
            yield pytest.param(term(variant=variant), id=f"{name}-{variant}")
        if field is None:
            yield pytest.param(term(), id=name)


every_term = pytest.mark.parametrize("term", list(_terms()))
every_temperature = pytest.mark.parametrize("tau", [0.01, 1.0])


def _gradient(term, inputs):
    loss = term(inputs)
    assert loss.shape == ()
    return loss, torch.autograd.grad(loss, inputs.representations)[0]


def _assert_finite(term, inputs):
    loss, gradient = _gradient(term, inputs)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    return loss, gradient


def _with_tau(term, tau):
    if "tau" not in type(term).model_fields:
        pytest.skip("a term without a temperature")
    return term.model_copy(update={"tau": tau})


def _with_rows(inputs, order):
    return replace(
        inputs,
        representations=inputs.representations.detach()[order].requires_grad_(),
        labels=inputs.labels[order],
        label_bins=inputs.label_bins[order],
        predictions=inputs.predictions[order],
        weights=inputs.weights[order],
    )


def _in_dtype(inputs, dtype):
    return replace(
        inputs,
        representations=inputs.representations.detach().to(dtype).requires_grad_(),
        labels=inputs.labels.to(dtype),
        predictions=inputs.predictions.to(dtype),
        weights=inputs.weights.to(dtype),
    )


@every_term
def test_the_weight_is_a_number_that_is_not_negative(term):
    assert term.weight >= 0


@every_term
def test_a_usual_batch_gives_a_finite_scalar_and_moves_the_representations(term, term_inputs):
    _, gradient = _assert_finite(term, term_inputs())
    assert gradient.abs().max() > 0


@every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_keeps_the_precision_of_the_representations(term, dtype, term_inputs):
    loss, gradient = _gradient(term, term_inputs(dtype=dtype))
    assert loss.dtype == gradient.dtype == dtype


@every_term
def test_permuting_the_samples_changes_nothing(term, term_inputs):
    inputs = term_inputs()
    samples = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    permuted = _with_rows(inputs, torch.cat([samples, samples + 8]))
    torch.testing.assert_close(term(permuted), term(inputs), rtol=1e-12, atol=0)


@every_term
def test_the_order_of_the_views_changes_nothing(term, term_inputs):
    inputs = term_inputs()
    swapped = _with_rows(inputs, torch.arange(16).roll(8))
    torch.testing.assert_close(term(swapped), term(inputs), rtol=1e-12, atol=0)


@every_term
def test_the_inputs_stay_as_they_were(term, term_inputs):
    inputs, untouched = term_inputs(), term_inputs()
    term(inputs).backward()
    for name in ("representations", "labels", "label_bins", "predictions", "weights"):
        assert torch.equal(getattr(inputs, name), getattr(untouched, name))


@every_term
@every_temperature
def test_one_row_gives_a_constant_with_a_backward_pass(term, tau, term_inputs):
    inputs = term_inputs(samples=1, views=1, dtype=torch.float32)
    _, gradient = _assert_finite(_with_tau(term, tau), inputs)
    assert gradient.abs().max() == 0


@every_term
@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("label_range", [0.0, 10.0])
def test_equal_labels_are_finite(term, views, label_range, term_inputs):
    inputs = term_inputs(labels=[4] * 6, views=views, dtype=torch.float32)
    _assert_finite(term, replace(inputs, label_range=label_range))


@every_term
@every_temperature
def test_distinct_labels_in_one_view_are_finite(term, tau, term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1, dtype=torch.float32)
    _assert_finite(_with_tau(term, tau), inputs)


@every_term
@every_temperature
def test_duplicates_and_antipodes_have_finite_gradients(term, tau, term_inputs):
    inputs = term_inputs(dtype=torch.float32)
    first = inputs.representations.detach()[0]
    inputs.representations.data[1:4] = first
    inputs.representations.data[8:11] = -first
    _assert_finite(_with_tau(term, tau), inputs)


@every_term
@every_temperature
def test_identical_representations_of_all_rows_have_finite_gradients(term, tau, term_inputs):
    inputs = term_inputs(dtype=torch.float32)
    inputs.representations.data[:] = inputs.representations.detach()[0]
    _assert_finite(_with_tau(term, tau), inputs)


@every_term
@every_temperature
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(term, tau, dtype, term_inputs):
    term, inputs = _with_tau(term, tau), _in_dtype(term_inputs(), dtype)
    loss, gradient = _assert_finite(term, inputs)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(loss, term(_in_dtype(inputs, torch.float32)))


@every_term
def test_autocast_changes_nothing(term, term_inputs):
    inputs = term_inputs(dtype=torch.float32)
    loss, gradient = _gradient(term, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = term(inputs)
    under_autocast.backward()
    torch.testing.assert_close(under_autocast, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(inputs.representations.grad, gradient, rtol=1e-5, atol=1e-6)


@every_term
def test_the_gradient_is_the_slope_of_the_loss(term, term_inputs):
    inputs = term_inputs(samples=5, dim=3)

    def loss(representations):
        return term(replace(inputs, representations=representations))

    assert torch.autograd.gradcheck(loss, (inputs.representations,))
