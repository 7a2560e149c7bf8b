"""Run with `pytest tests/training/test_synthesis.py`: synthetic rows, by plain loops, and what they leave untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dirtune.data import cache
from dirtune.data.cache import ResidentData
from dirtune.data.synthetic_rows import add_synthetic_rows
from dirtune.errors import InputError
from dirtune.synthesis import SMOGN, SmoteR, SyntheticRows, compute_relevance, interpolate, list_runs
from dirtune.training.state import begin_training
from tests.training.runs import Configure, trained, without_images
from tests.training.toy_inputs import make_case_config, make_data

DRAWN = np.random.default_rng(0)
LABELS = np.concatenate([DRAWN.normal(10, 2, 180), [30.0, 31.0, 33.0, 36.0, 40.0, 44.0], [-9.0, -12.0]])
VECTORS = np.stack([LABELS + DRAWN.normal(0, 1, 188), DRAWN.normal(0, 3, 188), LABELS > 31], axis=1).astype(float)


def test_relevance_follows_the_whiskers_of_the_box_plot() -> None:
    lower, median, upper = np.percentile(LABELS, [25, 50, 75])
    inside = [y for y in LABELS if lower - 1.5 * (upper - lower) <= y <= upper + 1.5 * (upper - lower)]
    low, high = min(inside), max(inside)
    for label, found in zip(LABELS, compute_relevance(LABELS), strict=True):
        t = min(1.0, (label - median) / (high - median) if label > median else (median - label) / (median - low))
        assert found == pytest.approx(3 * t**2 - 2 * t**3)
    # No outliers below: the smallest labels are not rare.
    one_sided = LABELS[LABELS > 0]
    assert compute_relevance(one_sided)[one_sided < np.median(one_sided)].max() == 0
    assert not compute_relevance(np.full(9, 4.0)).any()


def test_runs_get_their_mean_size_from_neighbors_inside_of_them() -> None:
    runs = list(list_runs(LABELS, 0.5))
    assert [is_rare for _, is_rare in runs] == [True, False, True]
    made = SmoteR(neighbors=2).make_rows(VECTORS, LABELS, np.random.default_rng(1))
    size = round(188 / 3)
    normal = runs[1][0]
    assert np.isin(made.kept, normal).sum() == size
    assert set(runs[0][0]) | set(runs[2][0]) <= set(made.kept.tolist())
    below, above = ((made.labels * side > LABELS.mean() * side).sum() for side in (-1, 1))
    assert [below, above] == [size - len(runs[0][0]), size - len(runs[2][0])]
    for vector, label in zip(made.vectors, made.labels, strict=True):
        # Between some row of the run and one of its two nearest others, in every column
        run = next(rows for rows, is_rare in runs if is_rare and LABELS[rows].min() <= label <= LABELS[rows].max())
        fits = []
        for own in run:
            far = sorted((float(np.linalg.norm(VECTORS[own] - VECTORS[other])), other) for other in run if other != own)
            for _, other in far[:2]:
                low, high = np.minimum(VECTORS[own], VECTORS[other]), np.maximum(VECTORS[own], VECTORS[other])
                near = [float(np.linalg.norm(vector - VECTORS[each])) for each in (own, other)]
                expected = (near[1] * LABELS[own] + near[0] * LABELS[other]) / sum(near)
                fits.append(((vector >= low - 1e-12) & (vector <= high + 1e-12)).all() and abs(expected - label) < 1e-9)
        assert any(fits)
        assert vector[2] in {0.0, 1.0}
    whole = SmoteR(neighbors=2, thin=False).make_rows(VECTORS, LABELS, np.random.default_rng(1))
    assert whole.kept.tolist() == list(range(188))


def test_far_neighbors_are_replaced_by_noise() -> None:
    vectors, labels = np.array([[0.0, 1.0], [10.0, 1.0], [10.5, 0.0], [30.0, 0.0]]), np.array([1.0, 2.0, 3.0, 4.0])
    is_binary = np.array([False, True])
    # Row 1: the nearest is at 1.1, and half of the median distance to the others is 5.
    vector, label = SMOGN(neighbors=1).make_row(vectors, labels, 1, is_binary, np.random.default_rng(3))
    assert 10.0 <= vector[0] <= 10.5
    assert 2.0 <= label <= 3.0
    drawn = [
        SMOGN(neighbors=1).make_row(vectors, labels, 0, is_binary, np.random.default_rng(seed)) for seed in range(400)
    ]
    columns = np.array([vector for vector, _ in drawn])
    assert (columns[:, 1] == 1.0).all()
    assert columns[:, 0].std() == pytest.approx(0.02 * vectors[:, 0].std(), rel=0.15)
    assert np.std([label for _, label in drawn]) == pytest.approx(0.02 * labels.std(), rel=0.15)
    assert np.mean([label for _, label in drawn]) == pytest.approx(1.0, abs=0.01)
    equal = interpolate(vectors[[0, 0]], np.array([1.0, 2.0]), is_binary, np.random.default_rng(0))
    assert equal[1] == 1.5


def test_a_training_has_the_rows_and_nothing_else_changes(configuration: Configure, toy: ResidentData) -> None:
    data = without_images(toy)
    config = configuration(synthesis={"name": "smoter"}, model={"label_transform": "log1p"}, recipe={"epochs": 1})
    training = begin_training(config, data)
    split, before = training.data.splits["train"], data.splits["train"]
    synthetic = [name.startswith("synthetic/") for name in split.sample_ids]
    assert 0 < sum(synthetic) < len(split)
    assert all(synthetic[synthetic.index(True) :])
    real = [before.sample_ids.index(name) for name in split.sample_ids[: synthetic.index(True)]]
    assert torch.equal(split.inputs["vector"][: len(real)], before.inputs["vector"][real])
    np.testing.assert_allclose(split.labels.numpy(), np.log1p(split.exact_labels), rtol=1e-6)
    assert split.label_bins.tolist() == (split.exact_labels // 2).astype(int).tolist()
    assert training.data.manifest is data.manifest
    assert all(training.data.splits[name] is data.splits[name] for name in ("val", "test"))
    again = begin_training(config, data).data.splits["train"]
    assert torch.equal(again.inputs["vector"], split.inputs["vector"])
    assert np.isfinite(trained(config, data).history[-1]["train/loss"])


def test_the_rows_do_not_depend_on_how_the_set_is_stored() -> None:
    class Doubled:
        name = "doubled"

        def make_rows(self, vectors: Any, labels: Any, generator: np.random.Generator) -> SyntheticRows:
            return SyntheticRows(np.arange(0, len(labels), 2), 2 * vectors[:3], labels[:3])

    found = [
        add_synthetic_rows(make_data(kind, torch.device("cpu")), Doubled(), seed=0, transform="none").splits["train"]
        for kind in ("pair", "pair streamed")
    ]
    assert found[0].sample_ids == found[1].sample_ids
    assert all(torch.equal(found[0].inputs[name], found[1].inputs[name]) for name in found[0].inputs)
    original = make_data("pair", torch.device("cpu")).splits["train"].inputs["second_features"]
    assert torch.equal(found[0].inputs["second_features"], torch.cat([original[::2], 2 * original[:3]]))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("image", "synthesis: needs neighbors among vectors, and input 'image' is none; .* frozen encoder"),
        ("dense", "synthesis: is not defined for per-pixel labels"),
        ("vector grid", "synthesis: is made for labels of one dimension, not 2; sampling, mixing and reweighting"),
        ("vector", "synthesis: finds no rare labels: none is beyond the whiskers"),
    ],
)
def test_where_it_has_no_form_it_is_refused_in_a_sentence(inputs: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        begin_training(
            make_case_config(inputs, {"synthesis": {"name": "smoter"}}), make_data(inputs, torch.device("cpu"))
        )


def test_a_set_that_is_read_in_windows_is_refused(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.Split, "is_windowed", True)
    with pytest.raises(InputError, match="synthesis: needs all training rows in memory"):
        begin_training(configuration(synthesis={"name": "smogn"}), without_images(toy))
