"""Run with `pytest tests/training/test_objective.py`: the total loss against its formula, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dirtune.batch import Batch, TermInputs, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.losses.accon import ACCon
from dirtune.losses.conr import ConR
from dirtune.manifest import LabelSpec
from dirtune.models.regressor import RegressorOutput
from dirtune.training.distributed import Ranks
from dirtune.training.objective import Loss, TrainingLoss, stack_views

SAMPLES, DIM, LABEL_RANGE = 9, 4, 12.0
TERMS = {"conr": {"beta": 2.0, "omega": 1.5, "tau": 0.5}, "accon": {"gamma": 0.3, "tau": 0.5}}
VIEWS = [(1, "all"), (2, "all"), (3, "all"), (2, "first"), (3, "first")]

Configure = Callable[..., TrialConfig]

LABELS = TrainingLabels(
    labels=torch.arange(12.0),
    label_bins=torch.arange(12),
    label_scale=5.0,
    spec=LabelSpec(name="length", unit="m", low=1, high=1 + LABEL_RANGE, bin_width=1, num_bins=12),
)


def total_loss(config: TrialConfig, output: RegressorOutput, batch: Batch) -> Loss:
    loss: Loss = TrainingLoss(config, LABELS)(output, batch, Ranks())
    return loss


def batch_of(views: int) -> Batch:
    generator = torch.Generator().manual_seed(views)
    # Labels that repeat, so that every bin has positives.
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 5, 5, 9], dtype=torch.float64) + 0.25
    return Batch(
        views=tuple({"x": torch.full((SAMPLES, 2), float(view))} for view in range(views)),
        labels=labels,
        label_bins=labels.long(),
        rows=torch.arange(SAMPLES),
        weights=0.5 + torch.rand(SAMPLES, generator=generator, dtype=torch.float64),
    )


def output_for(views: int) -> RegressorOutput:
    generator = torch.Generator().manual_seed(10 + views)
    rows = views * SAMPLES
    vectors = normalize(torch.randn(rows, DIM, generator=generator, dtype=torch.float64), dim=1)
    predictions = 3 + torch.randn(rows, generator=generator, dtype=torch.float64)
    return RegressorOutput(vectors, vectors, predictions.requires_grad_(), directions=vectors.requires_grad_())


def error_by_hand(name: str, prediction: Tensor, label: Tensor) -> Tensor:
    error = abs(prediction - label)
    if name == "huber":
        return error**2 / 2 if error < 1 else error - 0.5
    return error if name == "l1" else error**2


def regression_by_hand(name: str, scale: float, views: list[int], output: RegressorOutput, batch: Batch) -> Tensor:
    """The weighted mean of the errors of every sample in every one of these views."""
    losses = [
        batch.weights[i] * error_by_hand(name, output.predictions[v * SAMPLES + i] / scale, batch.labels[i] / scale)
        for v in views
        for i in range(SAMPLES)
    ]
    return torch.stack(losses).mean()


def term_inputs_by_hand(views: list[int], output: RegressorOutput, batch: Batch) -> TermInputs:
    rows = [(v, i) for v in views for i in range(SAMPLES)]
    return TermInputs(
        representations=torch.stack([output.representations[v * SAMPLES + i] for v, i in rows]),
        predictions=torch.stack([output.predictions[v * SAMPLES + i] for v, i in rows]).detach(),
        labels=torch.stack([batch.labels[i] for _, i in rows]),
        label_bins=torch.stack([batch.label_bins[i] for _, i in rows]),
        weights=torch.stack([batch.weights[i] for _, i in rows]),
        samples=torch.stack([batch.rows[i] for _, i in rows]),
        num_views=len(views),
        label_range=LABEL_RANGE,
    )


class Recorder:
    """A term that keeps what it is given."""

    weight = 1.0

    reads = "representation"

    def __init__(self) -> None:
        self.seen: list[TermInputs] = []
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, inputs: TermInputs) -> Tensor:
        self.seen.append(inputs)
        return inputs.representations.sum()

    def to_loss(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        self.pairs.append((predictions, labels, weights))
        return predictions.sum()


@pytest.mark.parametrize("loss", ["l1", "mse", "huber"])
@pytest.mark.parametrize(("views", "regression"), VIEWS)
def test_the_total_is_alpha_times_the_regression_loss_plus_the_weighted_terms(
    configuration: Configure, loss: str, views: int, regression: str
) -> None:
    config = configuration(
        loss={"name": loss},
        alpha=0.7,
        terms=TERMS,
        model={"label_scale": 5.0},
        recipe={"views": {"count": views, "regression": regression}},
    )
    batch, output, again = batch_of(views), output_for(views), output_for(views)
    found = total_loss(config, output, batch)
    found.total.backward()

    every = list(range(views))
    seen_by_terms = every if regression == "all" else every[1:]
    inputs = term_inputs_by_hand(seen_by_terms, again, batch)
    expected = {
        "regression": regression_by_hand(loss, 5.0, every if regression == "all" else [0], again, batch),
        "accon": ACCon(**TERMS["accon"])(inputs),
        "conr": ConR(**TERMS["conr"])(inputs),
    }
    total = 0.7 * expected["regression"] + 0.3 * expected["accon"] + 2.0 * expected["conr"]
    total.backward()

    assert all(part != 0 for part in expected.values())
    torch.testing.assert_close(found.parts, expected)
    torch.testing.assert_close(found.total, total)
    for name in ("predictions", "representations"):
        torch.testing.assert_close(getattr(output, name).grad, getattr(again, name).grad)


def test_without_terms_the_total_is_the_regression_loss_alone(configuration: Configure) -> None:
    config, batch, output = configuration(alpha=2.0), batch_of(1), output_for(1)
    found = total_loss(config, output, batch)
    assert list(found.parts) == ["regression"]
    expected = 2.0 * regression_by_hand("l1", 1.0, [0], output, batch)
    torch.testing.assert_close(found.total, expected)


def test_conr_official_scheme_gives_view_one_to_the_regression_and_the_others_to_the_terms(
    configuration: Configure,
) -> None:
    config = configuration(recipe={"views": {"count": 3, "regression": "first"}}, terms=TERMS)
    output = output_for(3)
    total_loss(config, output, batch_of(3)).total.backward()
    reached = [
        [bool(view.abs().max() > 0) for view in rows.grad.split(SAMPLES)]
        for rows in (output.predictions, output.representations)
    ]
    assert reached == [[True, False, False], [False, True, True]]


@pytest.mark.parametrize(("views", "regression"), VIEWS)
def test_a_term_reads_view_major_rows_in_label_units_and_detached_predictions(
    configuration: Configure, views: int, regression: str
) -> None:
    recorder, batch, output = Recorder(), batch_of(views), output_for(views)
    terms = SimpleNamespace(get_active=lambda: {"recorder": recorder})
    config = configuration(
        model={"label_scale": 5.0}, recipe={"views": {"count": views, "regression": regression}}
    ).model_copy(update={"terms": terms})
    total_loss(config, output, batch)
    (seen,) = recorder.seen
    expected = term_inputs_by_hand(list(range(views))[int(regression == "first") :], output, batch)
    for name in ("representations", "predictions", "labels", "label_bins", "weights"):
        assert torch.equal(getattr(seen, name), getattr(expected, name)), name
    assert (seen.num_views, seen.label_range) == (expected.num_views, LABEL_RANGE)
    assert not seen.predictions.requires_grad
    assert seen.representations.requires_grad


@pytest.mark.parametrize("regression", ["all", "first"])
def test_labels_of_several_dimensions_keep_their_rows(configuration: Configure, regression: str) -> None:
    pointwise, term, rows = Recorder(), Recorder(), 3 * SAMPLES
    config = configuration(
        model={"label_scale": 5.0}, recipe={"views": {"count": 3, "regression": regression}}
    ).model_copy(update={"loss": pointwise.to_loss, "terms": SimpleNamespace(get_active=lambda: {"term": term})})
    labels = torch.arange(2.0 * SAMPLES, dtype=torch.float64).reshape(SAMPLES, 2)
    predictions = 100 + torch.arange(2.0 * rows, dtype=torch.float64).reshape(rows, 2)
    output = output_for(3)._replace(predictions=predictions)
    total_loss(config, output, replace(batch_of(3), labels=labels))

    entering = 3 if regression == "all" else 1
    ((found, expected, weights),) = pointwise.pairs
    assert torch.equal(found, predictions[: entering * SAMPLES] / 5.0)
    assert torch.equal(expected, torch.cat([labels] * entering) / 5.0)
    assert torch.equal(weights, batch_of(3).weights.repeat(entering))
    (seen,) = term.seen
    skipped = 0 if regression == "all" else 1
    assert torch.equal(seen.predictions, predictions[skipped * SAMPLES :])
    assert torch.equal(seen.labels, torch.cat([labels] * (3 - skipped)))


def test_every_term_gets_its_input(configuration: Configure) -> None:
    plain, raw, unit = Recorder(), Recorder(), Recorder()
    raw.reads, unit.reads = "embedding", "direction"
    terms = {"plain": plain, "raw": raw, "unit": unit}
    config = configuration(recipe={"views": {"count": 2, "regression": "first"}}).model_copy(
        update={"terms": SimpleNamespace(get_active=lambda: terms)}
    )
    output = output_for(2)
    embeddings = torch.arange(2.0 * SAMPLES).reshape(-1, 1).repeat(1, 7).requires_grad_()
    total_loss(config, output._replace(embeddings=embeddings), batch_of(2))
    assert torch.equal(plain.seen[0].representations, output.representations[SAMPLES:])
    assert torch.equal(raw.seen[0].representations, embeddings[SAMPLES:])
    lengths = embeddings[SAMPLES:].norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit.seen[0].representations, embeddings[SAMPLES:] / lengths)
    assert raw.seen[0].representations.requires_grad
    assert unit.seen[0].representations.requires_grad
    for name in ("predictions", "labels", "label_bins", "weights", "samples"):
        assert torch.equal(getattr(plain.seen[0], name), getattr(raw.seen[0], name))


def test_only_inputs_of_terms_are_gathered(configuration: Configure) -> None:
    @dataclass(frozen=True)
    class Counting(Ranks):
        widths: list[int] = field(default_factory=list)

        def gather_together(self, parts: Sequence[Tensor], counts: Sequence[int] | None = None) -> list[Tensor]:
            self.widths.extend(part.shape[-1] for part in parts if part.ndim == 3)
            return list(parts)

    embeddings = torch.ones(SAMPLES, 7)
    output = output_for(1)._replace(embeddings=embeddings)
    for wanted, expected in (("representation", DIM), ("embedding", 7)):
        recorder, ranks = Recorder(), Counting(world=2)
        recorder.reads = wanted
        config = configuration().model_copy(
            update={"terms": SimpleNamespace(get_active=lambda term=recorder: {"term": term})}
        )
        TrainingLoss(config, LABELS)(output, batch_of(1), ranks)
        assert [width for width in ranks.widths if width] == [expected]


def test_a_loss_without_its_regression_or_its_terms_is_the_other_half(configuration: Configure) -> None:
    config, batch, output = configuration(terms=TERMS, alpha=0.7), batch_of(1), output_for(1)
    whole = total_loss(config, output, batch)
    terms = TrainingLoss(config, LABELS, regression=False)(output, batch, Ranks())
    regression = TrainingLoss(config, LABELS, terms=False)(output, batch, Ranks())
    assert [*terms.parts, *regression.parts] == ["accon", "conr", "regression"]
    assert {**terms.parts, **regression.parts} == whole.parts
    torch.testing.assert_close(terms.total + regression.total, whole.total)


def test_a_term_of_weight_zero_is_reported_and_changes_nothing(configuration: Configure) -> None:
    batch, output = batch_of(1), output_for(1)
    plain = total_loss(configuration(), output, batch)
    config = configuration(terms={"conr": {**TERMS["conr"], "beta": 0.0}})
    found = total_loss(config, output, batch)
    assert found.parts["conr"] > 0
    assert torch.equal(found.total, plain.total)


def test_views_are_stacked_one_after_the_other() -> None:
    one, three = batch_of(1), batch_of(3)
    assert stack_views(one.views) is one.views[0]
    assert stack_views(three.views)["x"][:, 0].tolist() == [0.0] * 9 + [1.0] * 9 + [2.0] * 9


def test_a_term_may_compare_predictions_in_the_scale_of_the_regression_loss(configuration: Configure) -> None:
    batch, output = batch_of(1), output_for(1)
    settings = {"variant": "official_sts", "tau": 1.0}
    config = configuration(terms={"conr": settings}, model={"label_scale": 0.5})
    found = total_loss(config, output, batch).parts["conr"]
    inputs = term_inputs_by_hand([0], output, batch)
    assert torch.equal(found, ConR(**settings)(replace(inputs, label_scale=0.5)))
    assert not torch.equal(found, ConR(**settings)(inputs))
