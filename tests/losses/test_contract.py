"""`pytest tests/losses/test_contract.py`: what every regularizer term promises, for every term and variant there is.

The promises that a term of a plug-in makes as well are the checks of `dirtune.testing`, which are run here one by one. A
term that is added to `TERMS` is tested here without a line being added.
"""

from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn

from dirtune.batch import TermInputs
from dirtune.data.cache import get_rank_share
from dirtune.frozen import Frozen
from dirtune.losses import LOSSES, TERMS
from dirtune.losses.pairs import LabelDistance
from dirtune.testing import LOSS_CHECKS, TERM_CHECKS, check_term, compute_gradient, fit, make_inputs_for
from dirtune.training.distributed import Ranks
from tests.training.gloo import on_ranks

# Their gradient is by definition not the slope of their loss, which is a staircase, or holds centers or mixtures constant
NOT_A_SLOPE = (TERMS["ranksim"], TERMS["srl"], TERMS["supremix"])

# Losses with a factor that passes no gradient: the spread of the errors, and the predicted variance
DETACHED_FACTORS = ("tukey", "beta_nll")


def _terms():
    for name, term in sorted(TERMS.items()):
        field = term.model_fields.get("variant")
        for variant in get_args(field.annotation) if field else ():
            yield f"{name}-{variant}", term(variant=variant)
        if field is None:
            yield name, term()


def _parametrized(terms):
    return pytest.mark.parametrize("term", [pytest.param(term, id=name) for name, term in terms])


every_term = _parametrized(_terms())
every_term_with_a_label_distance = _parametrized(
    (name, term) for name, term in _terms() if "label_distance" in type(term).model_fields
)


@every_term
@pytest.mark.parametrize("check", TERM_CHECKS)
def test_every_term_keeps_the_contract(term, check):
    if check == "the_gradient_is_the_slope_of_the_loss" and isinstance(term, NOT_A_SLOPE):
        pytest.skip("not a slope")
    TERM_CHECKS[check](term)


@pytest.mark.parametrize("check", LOSS_CHECKS)
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_keeps_the_contract(name, check):
    if name in DETACHED_FACTORS and check == "the_gradient_is_the_slope_of_the_loss":
        pytest.skip("not a slope")
    LOSS_CHECKS[check](LOSSES[name]())


class _Norms(Frozen):
    weight: float = 1.0

    def __call__(self, inputs):
        return inputs.representations.square().sum(dim=1).mean()


def test_a_term_of_each_row_keeps_the_contract_if_it_says_so():
    check_term(_Norms, compares_rows=False)
    with pytest.raises(AssertionError, match=r"one row has no gradient .*compares_rows=False"):
        check_term(_Norms)


def _assert_finite(term, inputs):
    loss, gradient = compute_gradient(term, inputs)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    return loss, gradient


def _in_dtype(inputs, dtype):
    return replace(
        inputs,
        representations=inputs.representations.detach().to(dtype).requires_grad_(),
        labels=inputs.labels.to(dtype),
        predictions=inputs.predictions.to(dtype),
        weights=inputs.weights.to(dtype),
    )


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(term, dtype):
    inputs = _in_dtype(make_inputs_for(term), dtype)
    loss, gradient = _assert_finite(term, inputs)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(loss, fit(term)(_in_dtype(inputs, torch.float32)))


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(term, dtype):
    inputs = make_inputs_for(term, dtype=torch.float32)
    loss, gradient = compute_gradient(term, inputs)
    with torch.autocast("cpu", dtype=dtype):
        under_autocast = fit(term)(inputs)
    under_autocast.backward()
    torch.testing.assert_close(under_autocast, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(inputs.representations.grad, gradient, rtol=1e-5, atol=1e-6)


@every_term
def test_inexact_products_of_the_process_change_nothing(term):
    inputs = make_inputs_for(term, samples=128, dtype=torch.float32)
    loss, gradient = compute_gradient(term, inputs)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        inexact_loss, inexact_gradient = compute_gradient(term, inputs)
    finally:
        matmul.fp32_precision = before
    torch.testing.assert_close(inexact_loss, loss, rtol=1e-5, atol=1e-7)
    # Products in bfloat16 would be off by a thousandth.
    torch.testing.assert_close(inexact_gradient, gradient, rtol=0, atol=1e-4 * float(gradient.abs().max()))


@every_term
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("entries", [1, 60])
def test_blocks_of_anchors_equal_one_block(term, views, entries, monkeypatch):
    inputs = make_inputs_for(term, samples=9, views=views)
    loss, gradient = compute_gradient(term, inputs)
    monkeypatch.setattr("dirtune.losses.blocks.BLOCK_ENTRIES", entries)
    in_blocks, gradient_in_blocks = compute_gradient(term, inputs)
    torch.testing.assert_close(in_blocks, loss, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(gradient_in_blocks, gradient, rtol=1e-9, atol=1e-11)


def _in_the_plane(inputs):
    """The labels and predictions as points of the plane, on its first axis."""
    zeros = torch.zeros_like(inputs.labels)
    labels, predictions = inputs.labels.detach(), inputs.predictions
    return replace(
        inputs, labels=torch.stack([labels, zeros], dim=1), predictions=torch.stack([predictions, zeros], dim=1)
    )


def _fitted_to_planes(term):
    return fit(term, torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).double())


@every_term_with_a_label_distance
@pytest.mark.parametrize("label_distance", ["l1", "l2", "max"])
def test_points_on_a_line_are_labels_of_one_dimension(term, label_distance):
    inputs = make_inputs_for(term)
    named = term.model_copy(update={"label_distance": label_distance})
    torch.testing.assert_close(_fitted_to_planes(named)(_in_the_plane(inputs)), fit(term)(inputs), rtol=1e-10, atol=0)


@every_term_with_a_label_distance
@pytest.mark.parametrize("label_distance", get_args(LabelDistance))
@pytest.mark.parametrize("views", [1, 2])
def test_labels_of_two_dimensions_are_finite(term, label_distance, views):
    inputs = make_inputs_for(term, views=views, dtype=torch.float32)
    gaze = inputs.labels[:, None] * torch.tensor([0.05, -0.1])
    guessed = inputs.predictions[:, None] * torch.tensor([0.05, -0.1])
    fitted = _fitted_to_planes(term.model_copy(update={"label_distance": label_distance}))
    loss = fitted(replace(inputs, labels=gaze, predictions=guessed, label_range=1.0))
    loss.backward()
    assert loss.isfinite()
    assert inputs.representations.grad.isfinite().all()


# 14 rows: shares are uneven on four ranks, and cut through samples on both
SAMPLES, VIEWS = 7, 2


def _gathered_batch(term, ranks):
    """The global batch as a rank sees it, gathered from shares of rows, and the rank's own rows."""
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(SAMPLES * VIEWS, 5, generator=generator, dtype=torch.float64)
    if getattr(term, "reads", "representation") == "representation":
        vectors = nn.functional.normalize(vectors, dim=1)
    labels = torch.randint(0, 5, (SAMPLES,), generator=generator).double().repeat(VIEWS)
    noise = torch.randn(len(labels), generator=generator, dtype=torch.float64)
    start, stop = get_rank_share(len(labels), ranks.rank, ranks.world)
    own = vectors[start:stop].requires_grad_()
    rows = {
        "labels": labels,
        "label_bins": labels.long(),
        "predictions": labels + noise,
        "weights": 0.5 + torch.rand(SAMPLES, generator=generator).double().repeat(VIEWS),
        "samples": torch.arange(SAMPLES).repeat(VIEWS),
    }
    gathered = {name: ranks.gather(values[start:stop]) for name, values in rows.items()}
    representations = ranks.gather(own)
    inputs = TermInputs(representations=representations, num_views=VIEWS, label_range=5.0, **gathered)
    return inputs, own


def _loss_and_gradient(rank, world):
    """By term: the loss on the global batch, and the gradient of this rank's rows, averaged as DDP averages."""
    return {name: _run_term(fit(term), term, Ranks(rank, world)) for name, term in _terms()}


def _compiled_loss_and_gradient(rank, world):
    """The same of compiled terms, each on a batch of one rank; the processes share the terms."""
    results = {}
    for name, term in list(_terms())[rank::world]:
        # So that no term uses up another's recompilations
        torch.compiler.reset()
        results[name] = _run_term(torch.compile(fit(term), backend="aot_eager"), term, Ranks(0, 1))
    return results


def _run_term(fitted, term, ranks):
    inputs, own = _gathered_batch(term, ranks)
    loss = fitted(inputs)
    loss.backward()
    return {"loss": loss.detach(), "gradient": own.grad / ranks.world}


def _assert_same(results, expected):
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-13)
    close(torch.cat([result["gradient"] for result in results]), expected["gradient"])
    assert expected["gradient"].abs().max() > 0
    for result in results:
        close(result["loss"], expected["loss"])


@pytest.fixture(scope="module", params=[2, 4], ids=["two_ranks", "four_ranks"])
def on_several_ranks(request):
    return on_ranks(request.param, _loss_and_gradient)


@pytest.fixture(scope="module")
def on_one_rank():
    return _loss_and_gradient(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in _terms()])
def test_several_ranks_equal_one_process(name, on_several_ranks, on_one_rank):
    _assert_same([results[name] for results in on_several_ranks], on_one_rank[name])


@pytest.fixture(scope="module")
def compiled():
    """Computed in other processes, because no compiler can see through the checks of shapes that the tests add."""
    first, second = on_ranks(2, _compiled_loss_and_gradient)
    return first | second


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in _terms()])
def test_compiling_changes_nothing(name, compiled, on_one_rank):
    _assert_same([compiled[name]], on_one_rank[name])
