"""The contracts of terms, losses, encoders and metrics as functions, for the tests of plug-ins.

    from dirtune.testing import check_term

    def test_spread():
        check_term(Spread)

Each function runs all checks of its kind and raises an `AssertionError` that names the violated one. The same checks run on
the parts of dirtune itself, one by one: `TERM_CHECKS`, `LOSS_CHECKS`, `ENCODER_CHECKS`, `METRIC_CHECKS`.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from dirtune.batch import EvaluatedRows, Inputs, TermInputs, TrainingLabels
from dirtune.errors import InputError
from dirtune.frozen import Frozen, read
from dirtune.losses import EndsEpochs, RawLoss
from dirtune.manifest import InputSpec, LabelSpec
from dirtune.models.heads import Head, HeadLabels
from dirtune.randomness import derive_seed

_Check = TypeVar("_Check", bound=Callable[..., None])
PER_ROW = ("labels", "label_bins", "predictions", "weights", "samples")
"""Fields of `TermInputs` with one entry per row, besides the representations."""
_LABELS, _DIM = 10, 5
_FEATURES = 4
TERM_CHECKS: dict[str, Callable[[Any], None]] = {}
LOSS_CHECKS: dict[str, Callable[[Any], None]] = {}
ENCODER_CHECKS: dict[str, Callable[[Any, Mapping[str, InputSpec]], None]] = {}
METRIC_CHECKS: dict[str, Callable[[Callable[..., float], bool], None]] = {}


def check_term(term: Any, *, has_slope: bool = True, compares_rows: bool = True) -> None:
    """Check a regularizer term: a class with its defaults, or a value.

    Args:
        term: the term.
        has_slope: its gradient is the derivative of its value. False for terms of ranks, whose value is a staircase.
        compares_rows: it compares rows of a batch, so that a batch of one row has no gradient. False for terms of each row,
            such as a norm.
    """
    checks = dict(TERM_CHECKS)
    if not has_slope:
        del checks["the_gradient_is_the_slope_of_the_loss"]
    if not compares_rows:
        del checks["one_row_has_no_gradient"]
    _run(checks, _make_value(term))


def check_loss(loss: Any, *, has_slope: bool = True) -> None:
    """Check a regression loss: a class with its defaults, or a value.

    Args:
        loss: the loss.
        has_slope: its gradient is the derivative of its value. False for losses with parts that pass no gradient.
    """
    checks = dict(LOSS_CHECKS)
    if not has_slope:
        del checks["the_gradient_is_the_slope_of_the_loss"]
    _run(checks, _make_value(loss))


def check_encoder(encoder: Any, inputs: Mapping[str, InputSpec]) -> None:
    """Check an encoder: a class with its defaults, or a value.

    Args:
        encoder: the encoder.
        inputs: those of a data set that it reads; small ones make the check fast.
    """
    _run(ENCODER_CHECKS, _make_value(encoder), dict(inputs))


def check_metric(metric: Callable[..., float], *, higher_is_better: bool | None = None) -> None:
    """Check a metric.

    Args:
        metric: the function.
        higher_is_better: None means its attribute of this name.
    """
    higher = getattr(metric, "higher_is_better", None) if higher_is_better is None else higher_is_better
    assert isinstance(higher, bool), "the metric has no attribute higher_is_better"
    _run(METRIC_CHECKS, metric, higher)


def make_term_inputs(
    *,
    samples: int = 8,
    views: int = 2,
    dim: int = _DIM,
    dtype: torch.dtype = torch.float64,
    labels: Sequence[float] | None = None,
    seed: int = 0,
    reads: str = "representation",
) -> TermInputs:
    """Return a random batch: labels from 0 to 9, one bin per label, predictions off by a few labels.

    Args:
        samples: their number, without `labels`.
        views: of each sample.
        dim: of the representations.
        dtype: of all numbers.
        labels: of the samples.
        seed: of the random numbers.
        reads: what the term reads; vectors of different lengths for "embedding" and "direction".
    """
    generator = torch.Generator().manual_seed(seed)
    if labels is None:
        labels = torch.randint(0, _LABELS, (samples,), generator=generator).tolist()
    rows = torch.tensor(labels, dtype=dtype).repeat(views)
    noise = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(len(labels), generator=generator, dtype=torch.float64)
    vectors = torch.randn(len(rows), dim, generator=generator, dtype=torch.float64)
    vectors = nn.functional.normalize(vectors, dim=1)
    if reads != "representation":
        vectors = vectors * (0.5 + torch.arange(len(rows)).remainder(5))[:, None]
    return TermInputs(
        representations=vectors.to(dtype).requires_grad_(),
        labels=rows,
        label_bins=rows.long(),
        predictions=rows + 2 * noise.to(dtype),
        weights=weights.to(dtype).repeat(views),
        samples=torch.arange(len(labels)).repeat(views),
        num_views=views,
        label_range=float(_LABELS),
    )


def make_inputs_for(term: Any, **options: Any) -> TermInputs:
    """Return `make_term_inputs` of what a term reads."""
    return make_term_inputs(reads=getattr(term, "reads", "representation"), **options)


def fit(part: Any, labels: Tensor | None = None) -> Any:
    """Return what training calls: a loss or term itself, or what its `fit` returns for these training labels.

    A part with statistics of an epoch (`dirtune.losses.EndsEpochs`) has seen one of random vectors of 5 dimensions.
    """
    if not hasattr(part, "fit"):
        return part
    if labels is None:
        labels = torch.arange(40).double() % _LABELS
    bins = labels.long() if labels.ndim == 1 else torch.zeros(len(labels), dtype=torch.long)
    dims = dict.fromkeys(("representation", "embedding", "direction"), _DIM)
    fitted = part.fit(TrainingLabels(labels=labels, label_bins=bins, spec=_make_label_spec(), dims=dims)) or part
    if isinstance(fitted, EndsEpochs):
        generator = torch.Generator().manual_seed(1)
        vectors = torch.randn(len(labels), _DIM, generator=generator, dtype=torch.float64)
        rows = EvaluatedRows(
            vectors=nn.functional.normalize(vectors, dim=1),
            predictions=labels.double(),
            labels=labels,
            label_bins=bins,
            samples=torch.arange(len(labels)),
        )
        fitted.end_epoch(fitted.compute_statistics(rows))
    return fitted


def _make_label_spec() -> LabelSpec:
    return LabelSpec(name="age", unit="years", low=0, high=_LABELS, bin_width=1, num_bins=_LABELS)


def make_inputs(specs: Mapping[str, InputSpec], batch: int, seed: int = 0) -> Inputs:
    """Return a random batch as training makes it: images and vectors as floats, token rows with at least one token."""
    generator = torch.Generator().manual_seed(seed)
    inputs: Inputs = {}
    for name, spec in specs.items():
        shape = (batch, *spec.shape)
        if spec.kind != "tokens":
            inputs[name] = torch.rand(shape, generator=generator)
            continue
        tokens = torch.randint(1, spec.vocabulary or 2, shape, generator=generator)
        lengths = torch.randint(1, spec.shape[0] + 1, (batch, 1), generator=generator)
        inputs[name] = (tokens * (torch.arange(spec.shape[0]) < lengths)).to(torch.int32)
    return inputs


def compute_gradient(term: Any, inputs: TermInputs) -> tuple[Tensor, Tensor]:
    """Return the value of a term, and its gradient by the representations."""
    loss = fit(term)(inputs)
    assert loss.shape == (), f"a term is a scalar, got the shape {tuple(loss.shape)}"
    return loss, torch.autograd.grad(loss, inputs.representations)[0]


def _as_check(checks: dict[str, _Check], name: str) -> Callable[[_Check], _Check]:
    """Add the decorated function to `checks`."""

    def add(check: _Check) -> _Check:
        checks[name] = check
        return check

    return add


def _make_value(part: Any) -> Any:
    return part() if isinstance(part, type) else part


def _run(checks: Mapping[str, Callable[..., None]], *arguments: Any) -> None:
    for name, check in checks.items():
        try:
            check(*arguments)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise AssertionError(f"violated: {name.replace('_', ' ')} ({lines[0]})") from error


def _assert_finite(term: Any, inputs: TermInputs) -> Tensor:
    loss, gradient = compute_gradient(term, inputs)
    assert loss.isfinite(), f"the value is {loss.item()}"
    assert gradient.isfinite().all(), "the gradient is not finite"
    return gradient


def _reorder(inputs: TermInputs, order: Tensor) -> TermInputs:
    rows = {name: getattr(inputs, name)[order] for name in PER_ROW}
    return replace(inputs, representations=inputs.representations.detach()[order].requires_grad_(), **rows)


@_as_check(TERM_CHECKS, "the_weight_is_not_negative")
def _term_weight_is_not_negative(term: Any) -> None:
    assert term.weight >= 0


@_as_check(TERM_CHECKS, "it_reads_back_from_plain_data")
@_as_check(LOSS_CHECKS, "it_reads_back_from_plain_data")
def _part_reads_back_from_plain_data(part: Any) -> None:
    assert isinstance(part, Frozen), "must be derived from dirtune.frozen.Frozen"
    assert read(type(part), part.model_dump(mode="json"), where="the part") == part


@_as_check(TERM_CHECKS, "a_usual_batch_gives_a_finite_scalar_and_moves_the_representations")
def _term_is_finite_and_moves_the_representations(term: Any) -> None:
    assert _assert_finite(term, make_inputs_for(term)).abs().max() > 0, "the gradient is zero"


@_as_check(TERM_CHECKS, "the_loss_keeps_the_precision_of_the_representations")
def _term_keeps_the_precision(term: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        loss, gradient = compute_gradient(term, make_inputs_for(term, dtype=dtype))
        assert loss.dtype == gradient.dtype == dtype, f"{dtype} gives {loss.dtype}"


@_as_check(TERM_CHECKS, "permuting_the_samples_changes_nothing")
def _term_ignores_the_order_of_samples(term: Any) -> None:
    inputs, fitted = make_inputs_for(term), fit(term)
    samples = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    permuted = _reorder(inputs, torch.cat([samples, samples + 8]))
    torch.testing.assert_close(fitted(permuted), fitted(inputs), rtol=1e-12, atol=1e-15)


@_as_check(TERM_CHECKS, "the_order_of_the_views_changes_nothing")
def _term_ignores_the_order_of_views(term: Any) -> None:
    for views in (2, 3, 4):
        inputs, fitted = make_inputs_for(term, views=views), fit(term)
        turned = _reorder(inputs, torch.arange(8 * views).roll(8))
        torch.testing.assert_close(fitted(turned), fitted(inputs), rtol=1e-12, atol=1e-15)


@_as_check(TERM_CHECKS, "the_inputs_stay_as_they_were")
def _term_leaves_its_inputs(term: Any) -> None:
    inputs, untouched = make_inputs_for(term), make_inputs_for(term)
    fit(term)(inputs).backward()
    for name in ("representations", *PER_ROW):
        assert torch.equal(getattr(inputs, name), getattr(untouched, name)), f"{name} was changed"


@_as_check(TERM_CHECKS, "one_row_is_finite")
def _term_of_one_row_is_finite(term: Any) -> None:
    _assert_finite(term, make_inputs_for(term, samples=1, views=1, dtype=torch.float32))


@_as_check(TERM_CHECKS, "one_row_has_no_gradient")
def _term_of_one_row_has_no_gradient(term: Any) -> None:
    fitted = fit(term)
    # A part with a state, as centers or proxies, compares one row with that.
    if not (isinstance(fitted, nn.Module) and fitted.state_dict()):
        gradient = _assert_finite(term, make_inputs_for(term, samples=1, views=1, dtype=torch.float32))
        assert gradient.abs().max() == 0, (
            "a term of each row, which compares none: check_term(..., compares_rows=False)"
        )


@_as_check(TERM_CHECKS, "one_sample_is_finite")
def _term_of_one_sample_is_finite(term: Any) -> None:
    for views in (2, 3):
        _assert_finite(term, make_inputs_for(term, samples=1, views=views, dtype=torch.float32))


@_as_check(TERM_CHECKS, "equal_labels_are_finite")
def _term_of_equal_labels_is_finite(term: Any) -> None:
    for views in (1, 2, 3, 4):
        for label_range in (0.0, 10.0):
            inputs = make_inputs_for(term, labels=[4] * 6, views=views, dtype=torch.float32)
            _assert_finite(term, replace(inputs, label_range=label_range))


@_as_check(TERM_CHECKS, "distinct_labels_in_one_view_are_finite")
def _term_of_distinct_labels_is_finite(term: Any) -> None:
    _assert_finite(term, make_inputs_for(term, labels=list(range(6)), views=1, dtype=torch.float32))


@_as_check(TERM_CHECKS, "labels_beyond_their_range_are_finite")
def _term_of_labels_beyond_their_range_is_finite(term: Any) -> None:
    inputs = make_inputs_for(term, dtype=torch.float32)
    labels = 30 * inputs.labels - 100
    _assert_finite(term, replace(inputs, labels=labels, label_bins=labels.long()))


def list_degenerate_inputs(term: Any) -> Iterator[TermInputs]:
    """Yield batches with duplicates and opposites among the representations, and with all of them equal."""
    inputs = make_inputs_for(term, dtype=torch.float32)
    first = inputs.representations.detach()[0].clone()
    inputs.representations.data[1:4] = first
    inputs.representations.data[8:11] = -first
    yield inputs
    inputs = make_inputs_for(term, dtype=torch.float32)
    inputs.representations.data[:] = inputs.representations.detach()[0].clone()
    yield inputs


@_as_check(TERM_CHECKS, "degenerate_representations_have_finite_gradients")
def _term_of_degenerate_representations_is_finite(term: Any) -> None:
    for inputs in list_degenerate_inputs(term):
        _assert_finite(term, inputs)


@_as_check(TERM_CHECKS, "any_temperature_is_finite")
def _term_is_finite_at_any_temperature(term: Any) -> None:
    if "tau" not in type(term).model_fields:
        return
    for tau in (0.01, 1.0):
        tempered = term.model_copy(update={"tau": tau})
        for views in (1, 2):
            labels = [0, 1, 1, 2, 5, 9]
            _assert_finite(tempered, make_inputs_for(term, labels=labels, views=views, dtype=torch.float32))
        for inputs in list_degenerate_inputs(term):
            _assert_finite(tempered, inputs)


@_as_check(TERM_CHECKS, "the_gradient_is_the_slope_of_the_loss")
def _term_gradient_is_the_slope(term: Any) -> None:
    inputs, fitted = make_inputs_for(term, samples=5), fit(term)
    assert torch.autograd.gradcheck(
        lambda representations: fitted(replace(inputs, representations=representations)),
        (inputs.representations,),
        # Along random directions
        fast_mode=True,
    )


def make_loss_inputs(loss: Any, samples: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return predictions, or raw outputs of the loss's head, with labels from 0 to 9 and weights of mean one.

    The label bins are the labels as integers.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, _LABELS, (samples,), generator=generator).double()
    predictions = labels + 0.3 + torch.randn(samples, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(samples, generator=generator, dtype=torch.float64)
    if isinstance(loss, RawLoss):
        head = make_head(loss)
        features = torch.randn(samples, _FEATURES, generator=generator, dtype=torch.float64)
        predictions = head(features).detach()
        predictions = predictions + 0.1 * torch.randn(predictions.shape, generator=generator, dtype=torch.float64)
    return predictions.to(dtype).requires_grad_(), labels.to(dtype), (weights / weights.mean()).to(dtype)


def make_head(loss: Any, labels: Tensor | None = None) -> Head:
    """Return the head of a loss in float64, for labels from 0 to 9 or these ones, initialized with one seed."""
    spec = _make_label_spec()
    labels = torch.arange(40) % _LABELS if labels is None else labels
    counts = torch.bincount(labels.long(), minlength=_LABELS).tolist()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        head: Head = loss.build_head(_FEATURES, HeadLabels.from_histogram(spec, counts, offset=4.0))
    return head.double()


def call_loss(loss: Any, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return a loss, fitted to labels from 0 to 9, of one label bin for each label."""
    options = {"label_bins": labels.long()} if getattr(loss, "reads_bins", False) else {}
    value: Tensor = fit(loss)(predictions, labels, weights, **options)
    return value


@_as_check(LOSS_CHECKS, "the_name_is_the_only_value_of_its_field")
def _loss_name_is_its_tag(loss: Any) -> None:
    assert get_args(type(loss).model_fields["name"].annotation) == (loss.name,)


@_as_check(LOSS_CHECKS, "a_usual_batch_gives_a_finite_scalar_and_moves_the_predictions")
def _loss_is_finite_and_moves_the_predictions(loss: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        predictions, labels, weights = make_loss_inputs(loss, dtype=dtype)
        value = call_loss(loss, predictions, labels, weights)
        assert value.shape == ()
        assert value.dtype == dtype
        (gradient,) = torch.autograd.grad(value, predictions)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@_as_check(LOSS_CHECKS, "permuting_the_rows_changes_nothing")
def _loss_ignores_the_order_of_rows(loss: Any) -> None:
    rows = make_loss_inputs(loss)
    order = torch.arange(12).flip(0)
    predictions, labels, weights = (each[order] for each in rows)
    turned = call_loss(loss, predictions, labels, weights)
    torch.testing.assert_close(turned, call_loss(loss, *rows), rtol=1e-12, atol=0)


@_as_check(LOSS_CHECKS, "the_weights_are_used")
def _loss_uses_the_weights(loss: Any) -> None:
    predictions, labels, weights = make_loss_inputs(loss)
    value, turned = (call_loss(loss, predictions, labels, each) for each in (weights, weights.flip(0)))
    assert not torch.isclose(value, turned)


@_as_check(LOSS_CHECKS, "the_inputs_stay_as_they_were")
def _loss_leaves_its_inputs(loss: Any) -> None:
    rows, untouched = make_loss_inputs(loss), make_loss_inputs(loss)
    call_loss(loss, *rows).backward()
    assert all(torch.equal(each, before) for each, before in zip(rows, untouched, strict=True))


@_as_check(LOSS_CHECKS, "one_and_two_rows_and_exact_predictions_are_finite")
def _loss_of_few_rows_is_finite(loss: Any) -> None:
    for samples in (1, 2):
        predictions, labels, weights = make_loss_inputs(loss, samples)
        exact = predictions if isinstance(loss, RawLoss) else labels.clone().requires_grad_()
        for guessed in (predictions, exact):
            value = call_loss(loss, guessed, labels, weights)
            (gradient,) = torch.autograd.grad(value, guessed)
            assert value.isfinite()
            assert gradient.isfinite().all()


@_as_check(LOSS_CHECKS, "the_gradient_is_the_slope_of_the_loss")
def _loss_gradient_is_the_slope(loss: Any) -> None:
    predictions, labels, weights = make_loss_inputs(loss, 5)
    assert torch.autograd.gradcheck(
        lambda guessed: call_loss(loss, guessed, labels, weights), (predictions,), fast_mode=True
    )


def _build(spec: Any, inputs: Mapping[str, InputSpec], seed: int = 0) -> Any:
    torch.manual_seed(derive_seed(seed, "testing"))
    return spec.build(dict(inputs))


@_as_check(ENCODER_CHECKS, "embeddings_have_the_announced_size")
def _encoder_has_the_announced_size(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    encoder = _build(spec, inputs).eval()
    for batch in (1, 3):
        embeddings = encoder(make_inputs(inputs, batch))
        assert embeddings.shape[:2] == (batch, encoder.embedding_dim)
        assert embeddings.ndim == (4 if encoder.is_dense else 2)


@_as_check(ENCODER_CHECKS, "the_gradient_reaches_every_parameter")
def _encoder_gradient_reaches_every_parameter(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    encoder = _build(spec, inputs).train()
    torch.manual_seed(1)
    trained = {name: each for name, each in encoder.named_parameters() if each.requires_grad}
    if not trained:
        return
    optimizer = torch.optim.SGD(trained.values(), lr=0.01)
    waiting = set(trained)
    # A second step, because a residual branch may start with a factor of zero
    for _ in range(2):
        embeddings = encoder(make_inputs(inputs, 4))
        optimizer.zero_grad()
        (embeddings * torch.randn_like(embeddings)).sum().backward()
        for name, parameter in trained.items():
            assert parameter.grad is not None, f"{name} has no gradient, for which a distributed trial would wait"
            assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
            if parameter.grad.abs().max() > 0:
                waiting.discard(name)
        optimizer.step()
    assert not waiting, f"the gradient of {min(waiting)} is zero"


@_as_check(ENCODER_CHECKS, "one_sample_can_be_trained_on")
def _encoder_trains_on_one_sample(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    embeddings = _build(spec, inputs).train()(make_inputs(inputs, 1))
    assert torch.isfinite(embeddings).all()


@_as_check(ENCODER_CHECKS, "evaluation_repeats_itself_and_does_not_mix_samples")
def _encoder_does_not_mix_samples(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    encoder, rows = _build(spec, inputs).eval(), make_inputs(inputs, 3)
    with torch.no_grad():
        embeddings = encoder(rows)
        assert torch.equal(encoder(rows), embeddings)
        alone = encoder({key: value[1:2] for key, value in rows.items()})
    torch.testing.assert_close(alone, embeddings[1:2], rtol=1e-4, atol=1e-5)


@_as_check(ENCODER_CHECKS, "one_seed_gives_one_start")
def _encoder_starts_equal_with_a_seed(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    first, same = (_build(spec, inputs).state_dict() for _ in range(2))
    assert first.keys() == same.keys()
    assert all(torch.equal(first[part], same[part]) for part in first)


@_as_check(ENCODER_CHECKS, "it_survives_a_round_trip_of_its_state")
def _encoder_survives_a_round_trip(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    encoder, other = _build(spec, inputs, 0).eval(), _build(spec, inputs, 1).eval()
    other.load_state_dict(copy.deepcopy(encoder.state_dict()))
    rows = make_inputs(inputs, 2)
    with torch.no_grad():
        assert torch.equal(encoder(rows), other(rows))


@_as_check(ENCODER_CHECKS, "a_data_set_without_fitting_inputs_is_refused")
def _encoder_refuses_other_inputs(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    try:
        spec.build({})
    except InputError:
        return
    raise AssertionError("a data set without inputs must raise InputError (dirtune.models.encoders.encoder)")


@_as_check(ENCODER_CHECKS, "it_is_built_on_the_meta_device")
def _encoder_is_built_without_memory(spec: Any, inputs: Mapping[str, InputSpec]) -> None:
    with torch.device("meta"):
        encoder = spec.build(dict(inputs))
    assert all(each.is_meta for each in encoder.parameters()), "`dirtune plan` builds it on the device meta"


def _make_predictions(error: float = 1.0) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, _LABELS, 50).astype(np.float64)
    return labels, labels + error * generator.standard_normal(50)


@_as_check(METRIC_CHECKS, "it_is_a_finite_number")
def _metric_is_a_finite_number(metric: Callable[..., float], higher: bool) -> None:
    assert math.isfinite(float(metric(*_make_predictions())))


@_as_check(METRIC_CHECKS, "no_sample_gives_nan")
def _metric_of_no_sample_is_nan(metric: Callable[..., float], higher: bool) -> None:
    empty = np.empty(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(float(metric(empty, empty))), "a region without samples must give NaN"


@_as_check(METRIC_CHECKS, "permuting_the_samples_changes_nothing")
def _metric_ignores_the_order(metric: Callable[..., float], higher: bool) -> None:
    labels, predictions = _make_predictions()
    assert math.isclose(
        float(metric(labels, predictions)), float(metric(labels[::-1], predictions[::-1])), rel_tol=1e-9
    )


@_as_check(METRIC_CHECKS, "small_errors_are_better")
def _metric_prefers_small_errors(metric: Callable[..., float], higher: bool) -> None:
    good, bad = float(metric(*_make_predictions(0.01))), float(metric(*_make_predictions(5.0)))
    direction = "higher" if higher else "lower"
    assert (good >= bad) if higher else (good <= bad), (
        f"{direction} is better, but small errors give {good}, large {bad}"
    )


@_as_check(METRIC_CHECKS, "the_inputs_stay_as_they_were")
def _metric_leaves_its_inputs(metric: Callable[..., float], higher: bool) -> None:
    rows, untouched = _make_predictions(), _make_predictions()
    metric(*rows)
    assert all(np.array_equal(each, before) for each, before in zip(rows, untouched, strict=True))
