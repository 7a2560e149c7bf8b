"""`pytest tests/losses/test_contract.py`: what every regularizer term promises, for every term and variant there is.

A term that is added to `TERMS` is tested here without a line being added. A term with `fit` is fitted first. A term that
reads embeddings is given vectors of different lengths.
"""

from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.data.cache import get_rank_share
from dirtune.losses import TERMS
from dirtune.losses.pairs import LabelDistance
from dirtune.manifest import LabelSpec
from dirtune.training.distributed import Ranks
from tests.training.gloo import on_ranks

# Its gradient is by definition not the slope of its loss, which is a staircase
NOT_A_SLOPE = {"ranksim"}
PER_ROW = ("labels", "label_bins", "predictions", "weights", "samples")


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
every_smooth_term = _parametrized((name, term) for name, term in _terms() if name.split("-")[0] not in NOT_A_SLOPE)
every_tempered_term = _parametrized((name, term) for name, term in _terms() if "tau" in type(term).model_fields)
every_term_with_a_label_distance = _parametrized(
    (name, term) for name, term in _terms() if "label_distance" in type(term).model_fields
)
every_temperature = pytest.mark.parametrize("tau", [0.01, 1.0])


def _fitted(term, labels=None):
    """What the training loop would call: the term, or what its `fit` returns."""
    if not hasattr(term, "fit"):
        return term
    if labels is None:
        labels = torch.arange(40).double() % 10
    spec = LabelSpec(name="age", unit="years", low=0, high=10, bin_width=1, num_bins=10)
    bins = labels.long() if labels.ndim == 1 else torch.zeros(len(labels), dtype=torch.long)
    return term.fit(TrainingLabels(labels=labels, label_bins=bins, spec=spec)) or term


def _with_tau(term, tau):
    return term.model_copy(update={"tau": tau})


@pytest.fixture
def inputs_for(term_inputs):
    """Makes the inputs that a term reads: unit vectors, or embeddings of different lengths."""

    def inputs_for(term, **options):
        inputs = term_inputs(**options)
        if getattr(term, "reads", "representation") == "representation":
            return inputs
        z = inputs.representations.detach()
        lengths = 0.5 + torch.arange(len(z)).remainder(5).to(z.dtype)
        return replace(inputs, representations=(z * lengths[:, None]).requires_grad_())

    return inputs_for


def _gradient(term, inputs):
    loss = _fitted(term)(inputs)
    assert loss.shape == ()
    return loss, torch.autograd.grad(loss, inputs.representations)[0]


def _assert_finite(term, inputs):
    loss, gradient = _gradient(term, inputs)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    return loss, gradient


def _with_rows(inputs, order):
    rows = {name: getattr(inputs, name)[order] for name in PER_ROW}
    representations = inputs.representations.detach()[order].requires_grad_()
    return replace(inputs, representations=representations, **rows)


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
def test_a_usual_batch_gives_a_finite_scalar_and_moves_the_representations(term, inputs_for):
    _, gradient = _assert_finite(term, inputs_for(term))
    assert gradient.abs().max() > 0


@every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_keeps_the_precision_of_the_representations(term, dtype, inputs_for):
    loss, gradient = _gradient(term, inputs_for(term, dtype=dtype))
    assert loss.dtype == gradient.dtype == dtype


@every_term
def test_permuting_the_samples_changes_nothing(term, inputs_for):
    inputs, fitted = inputs_for(term), _fitted(term)
    samples = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    permuted = _with_rows(inputs, torch.cat([samples, samples + 8]))
    torch.testing.assert_close(fitted(permuted), fitted(inputs), rtol=1e-12, atol=0)


@every_term
@pytest.mark.parametrize("views", [2, 3, 4])
def test_the_order_of_the_views_changes_nothing(term, views, inputs_for):
    inputs, fitted = inputs_for(term, views=views), _fitted(term)
    turned = _with_rows(inputs, torch.arange(8 * views).roll(8))
    torch.testing.assert_close(fitted(turned), fitted(inputs), rtol=1e-12, atol=0)


@every_term
def test_the_inputs_stay_as_they_were(term, inputs_for):
    inputs, untouched = inputs_for(term), inputs_for(term)
    _fitted(term)(inputs).backward()
    for name in ("representations", *PER_ROW):
        assert torch.equal(getattr(inputs, name), getattr(untouched, name))


@every_term
def test_one_row_gives_a_constant_with_a_backward_pass(term, inputs_for):
    inputs = inputs_for(term, samples=1, views=1, dtype=torch.float32)
    _, gradient = _assert_finite(term, inputs)
    assert gradient.abs().max() == 0


@every_term
@pytest.mark.parametrize("views", [2, 3])
def test_one_sample_is_finite(term, views, inputs_for):
    _assert_finite(term, inputs_for(term, samples=1, views=views, dtype=torch.float32))


@every_term
@pytest.mark.parametrize("views", [1, 2, 3, 4])
@pytest.mark.parametrize("label_range", [0.0, 10.0])
def test_equal_labels_are_finite(term, views, label_range, inputs_for):
    inputs = inputs_for(term, labels=[4] * 6, views=views, dtype=torch.float32)
    _assert_finite(term, replace(inputs, label_range=label_range))


@every_term
def test_labels_beyond_their_range_are_finite(term, inputs_for):
    inputs = inputs_for(term, dtype=torch.float32)
    labels = 30 * inputs.labels - 100
    _assert_finite(term, replace(inputs, labels=labels, label_bins=labels.long()))


@every_tempered_term
@every_temperature
@pytest.mark.parametrize("views", [1, 2])
def test_any_temperature_is_finite(term, tau, views, inputs_for):
    inputs = inputs_for(term, labels=[0, 1, 1, 2, 5, 9], views=views, dtype=torch.float32)
    _assert_finite(_with_tau(term, tau), inputs)


@every_term
def test_distinct_labels_in_one_view_are_finite(term, inputs_for):
    _assert_finite(term, inputs_for(term, labels=list(range(6)), views=1, dtype=torch.float32))


def _with_duplicates_and_antipodes(inputs):
    first = inputs.representations.detach()[0]
    inputs.representations.data[1:4] = first
    inputs.representations.data[8:11] = -first
    return inputs


def _identical(inputs):
    inputs.representations.data[:] = inputs.representations.detach()[0]
    return inputs


@every_term
@pytest.mark.parametrize("degenerate", [_with_duplicates_and_antipodes, _identical])
def test_degenerate_representations_have_finite_gradients(term, degenerate, inputs_for):
    _assert_finite(term, degenerate(inputs_for(term, dtype=torch.float32)))


@every_tempered_term
@every_temperature
@pytest.mark.parametrize("degenerate", [_with_duplicates_and_antipodes, _identical])
def test_degenerate_representations_are_finite_at_any_temperature(term, tau, degenerate, inputs_for):
    _assert_finite(_with_tau(term, tau), degenerate(inputs_for(term, dtype=torch.float32)))


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(term, dtype, inputs_for):
    inputs = _in_dtype(inputs_for(term), dtype)
    loss, gradient = _assert_finite(term, inputs)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(loss, _fitted(term)(_in_dtype(inputs, torch.float32)))


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(term, dtype, inputs_for):
    inputs = inputs_for(term, dtype=torch.float32)
    loss, gradient = _gradient(term, inputs)
    with torch.autocast("cpu", dtype=dtype):
        under_autocast = _fitted(term)(inputs)
    under_autocast.backward()
    torch.testing.assert_close(under_autocast, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(inputs.representations.grad, gradient, rtol=1e-5, atol=1e-6)


@every_smooth_term
def test_the_gradient_is_the_slope_of_the_loss(term, inputs_for):
    inputs, fitted = inputs_for(term, samples=5, dim=3), _fitted(term)

    def loss(representations):
        return fitted(replace(inputs, representations=representations))

    assert torch.autograd.gradcheck(loss, (inputs.representations,))


@every_term
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("entries", [1, 60])
def test_blocks_of_anchors_equal_one_block(term, views, entries, inputs_for, monkeypatch):
    inputs = inputs_for(term, samples=9, views=views)
    loss, gradient = _gradient(term, inputs)
    monkeypatch.setattr("dirtune.losses.blocks.BLOCK_ENTRIES", entries)
    in_blocks, gradient_in_blocks = _gradient(term, inputs)
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
    return _fitted(term, torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).double())


@every_term_with_a_label_distance
@pytest.mark.parametrize("label_distance", ["l1", "l2", "max"])
def test_points_on_a_line_are_labels_of_one_dimension(term, label_distance, inputs_for):
    inputs = inputs_for(term)
    named = term.model_copy(update={"label_distance": label_distance})
    torch.testing.assert_close(
        _fitted_to_planes(named)(_in_the_plane(inputs)), _fitted(term)(inputs), rtol=1e-10, atol=0
    )


@every_term_with_a_label_distance
@pytest.mark.parametrize("label_distance", get_args(LabelDistance))
@pytest.mark.parametrize("views", [1, 2])
def test_labels_of_two_dimensions_are_finite(term, label_distance, views, inputs_for):
    inputs = inputs_for(term, views=views, dtype=torch.float32)
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
    vectors = torch.randn(SAMPLES * VIEWS, 4, generator=generator, dtype=torch.float64)
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
    return {name: _run_term(_fitted(term), term, Ranks(rank, world)) for name, term in _terms()}


def _compiled_loss_and_gradient(rank, world):
    """The same of compiled terms, each on a batch of one rank; the processes share the terms."""
    results = {}
    for name, term in list(_terms())[rank::world]:
        # So that no term uses up another's recompilations
        torch.compiler.reset()
        results[name] = _run_term(torch.compile(_fitted(term), backend="aot_eager"), term, Ranks(0, 1))
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


@pytest.mark.parametrize("name", [name for name, _ in _terms()])
def test_several_ranks_equal_one_process(name, on_several_ranks, on_one_rank):
    _assert_same([results[name] for results in on_several_ranks], on_one_rank[name])


@pytest.fixture(scope="module")
def compiled():
    """Computed in other processes, because no compiler can see through the checks of shapes that the tests add."""
    first, second = on_ranks(2, _compiled_loss_and_gradient)
    return first | second


@pytest.mark.parametrize("name", [name for name, _ in _terms()])
def test_compiling_changes_nothing(name, compiled, on_one_rank):
    _assert_same([compiled[name]], on_one_rank[name])
