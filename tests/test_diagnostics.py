"""`pytest tests/test_diagnostics.py`: every diagnostic against plain loops over pairs, in blocks and at the edges."""

from __future__ import annotations

import math
import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from dirtune import diagnostics
from dirtune.diagnostics import (
    DIAGNOSTICS,
    EmbeddedSamples,
    compute_anchor_curve,
    compute_representation_metrics,
    sum_pairs,
)

RANGE = 10.0


def _embedded(n=23, dim=4, seed=0, **changes):
    drawn = np.random.default_rng(seed)
    # Beyond the range, where target angles stop at 180 degrees
    labels = drawn.random(n) * 12
    given = {
        "representations": drawn.normal(size=(n, dim)) * drawn.random((n, 1)),
        "labels": labels,
        "bins": labels.astype(np.int64),
        "label_range": RANGE,
    }
    return EmbeddedSamples(**{**given, **changes})


def _values(embedded):
    sums = sum_pairs(embedded)
    return {name: diagnostic(sums) for name, diagnostic in DIAGNOSTICS.items()}


def _by_loops(embedded):
    z = [row / np.sqrt((row * row).sum()) for row in embedded.representations]
    squares, cosines, neighbors, distances, off = [], [], [], [], []
    for i, j in combinations(range(len(z)), 2):
        squares.append(((z[i] - z[j]) ** 2).sum())
        cosines.append((z[i] * z[j]).sum())
        neighbors.append(embedded.bins[i] == embedded.bins[j])
        distances.append(np.sqrt(((embedded.labels[i] - embedded.labels[j]) ** 2).sum()))
        target = 180 * min(distances[-1] / RANGE, 1)
        off.append(abs(math.degrees(math.acos(cosines[-1])) - target))
    near = [(s, c) for s, c, is_near in zip(squares, cosines, neighbors, strict=True) if is_near]
    return {
        "alignment": np.mean([square for square, _ in near]),
        "uniformity": math.log(np.mean([math.exp(-2 * square) for square in squares])),
        "tolerance": np.mean([cosine for _, cosine in near]),
        "cosine_correlation": np.corrcoef(cosines, distances)[0, 1],
        "angle_deviation": np.mean(off),
    }


@pytest.mark.parametrize("entries", [1, 60, 1 << 20], ids=["row by row", "blocks", "one block"])
@pytest.mark.parametrize("label_dim", [1, 2])
def test_every_diagnostic_equals_plain_loops(entries, label_dim, monkeypatch):
    monkeypatch.setattr(diagnostics, "BLOCK_ENTRIES", entries)
    embedded = _embedded()
    if label_dim == 2:
        embedded = _embedded(labels=np.stack([embedded.labels, embedded.labels[::-1]], axis=1))
    expected = _by_loops(embedded)
    assert _values(embedded).keys() == expected.keys()
    for name, value in _values(embedded).items():
        assert value == pytest.approx(expected[name], rel=1e-12), name


def test_float32_representations_are_evaluated_in_float64():
    embedded = _embedded()
    rounded = embedded.representations.astype(np.float32)
    assert _values(_embedded(representations=rounded)) == _values(_embedded(representations=rounded.astype(np.float64)))


def test_the_length_of_a_representation_has_no_effect():
    embedded = _embedded()
    scaled = _values(_embedded(representations=embedded.representations * 7))
    for name, value in _values(embedded).items():
        assert scaled[name] == pytest.approx(value, rel=1e-12)


def test_a_half_circle_in_the_order_of_the_labels_has_accons_target_angles():
    labels = np.linspace(0, RANGE, 21)
    angles = np.pi * labels / RANGE
    half_circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    bins = labels.astype(np.int64)
    values = _values(EmbeddedSamples(representations=half_circle, labels=labels, bins=bins, label_range=RANGE))
    assert values["angle_deviation"] == pytest.approx(0, abs=1e-5)
    assert values["cosine_correlation"] < -0.95
    assert values["tolerance"] == pytest.approx(1 - values["alignment"] / 2, abs=1e-12)


def test_a_row_without_length_is_perpendicular_to_every_other():
    rows = np.array([[3.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    embedded = EmbeddedSamples(
        representations=rows, labels=np.zeros(3), bins=np.zeros(3, dtype=np.int64), label_range=1.0
    )
    values = _values(embedded)
    assert values["tolerance"] == pytest.approx(1 / 3)
    assert values["alignment"] == pytest.approx((1 + 0 + 1) / 3)
    assert values["angle_deviation"] == pytest.approx(60)


@pytest.mark.parametrize("n", [0, 1])
def test_without_a_pair_everything_is_undefined(n):
    assert all(math.isnan(value) for value in _values(_embedded(n)).values())
    rows = compute_representation_metrics(_embedded(n))
    assert [row["n"] for row in rows] == [n] * len(DIAGNOSTICS)


def test_without_neighbors_only_alignment_and_tolerance_are_undefined():
    values = _values(_embedded(5, bins=np.arange(5)))
    assert {name for name, value in values.items() if math.isnan(value)} == {"alignment", "tolerance"}


def test_a_collapsed_representation_has_no_correlation():
    values = _values(_embedded(6, representations=np.full((6, 3), 0.1)))
    assert math.isnan(values["cosine_correlation"])
    assert values["uniformity"] == pytest.approx(0, abs=1e-12)
    assert values["alignment"] == pytest.approx(0, abs=1e-12)


def test_a_nearly_collapsed_representation_keeps_its_correlation(monkeypatch):
    monkeypatch.setattr(diagnostics, "BLOCK_ENTRIES", 40)
    labels = np.linspace(0, RANGE, 20)
    rows = np.stack([np.ones(20), 1e-4 * labels], axis=1)
    value = _values(_embedded(20, representations=rows, labels=labels))["cosine_correlation"]
    assert value == pytest.approx(np.corrcoef(*_far_and_cosine(rows, labels))[0, 1], rel=1e-6)


def _far_and_cosine(rows, labels):
    pairs = list(combinations(range(len(rows)), 2))
    angles = np.arctan(rows[:, 1])
    return zip(
        *((abs(labels[i] - labels[j]), -2 * np.sin((angles[i] - angles[j]) / 2) ** 2) for i, j in pairs), strict=True
    )


def test_a_representation_that_is_not_finite_gives_nan():
    rows = _embedded().representations.copy()
    rows[3, 1] = np.nan
    assert all(math.isnan(value) for value in _values(_embedded(representations=rows)).values())


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.zeros(22)},
        {"bins": np.zeros((23, 1), dtype=np.int64)},
        {"representations": np.zeros(23)},
        {"label_range": 0.0},
    ],
)
def test_shapes_that_do_not_agree_are_refused(changes):
    with pytest.raises(ValueError, match="but got"):
        _embedded(**changes)


def test_every_diagnostic_is_a_row_of_the_metrics_table():
    embedded = _embedded()
    rows = compute_representation_metrics(embedded)
    assert {row["metric"]: row["value"] for row in rows} == _values(embedded)
    assert {(row["region"], row["n"]) for row in rows} == {("all", 23)}


def test_memory_stays_below_one_matrix_of_all_pairs():
    n, dim = 4000, 8
    embedded = _embedded(n, dim)
    tracemalloc.start()
    try:
        compute_representation_metrics(embedded)
        compute_anchor_curve(embedded.representations, embedded.labels, 3.0, bin_width=8.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * n * 8 * 0.75


def _curve_by_loops(rows, labels, anchor_label, bin_width):
    points = {}
    for i, anchor in enumerate(labels):
        if not -0.5 <= (anchor - anchor_label) / bin_width < 0.5:
            continue
        for j, label in enumerate(labels):
            if j != i:
                cosine = rows[i] @ rows[j] / np.sqrt(rows[i] @ rows[i] * (rows[j] @ rows[j]))
                step = math.floor(abs(label - anchor) / bin_width + 0.5)
                points.setdefault(step, []).append(cosine)
    return dict(sorted(points.items()))


@pytest.mark.parametrize("entries", [1, 60, 1 << 20])
def test_the_curve_of_an_anchor_equals_plain_loops(entries, monkeypatch):
    monkeypatch.setattr(diagnostics, "BLOCK_ENTRIES", entries)
    embedded = _embedded(60)
    rows, labels = embedded.representations, embedded.labels
    expected = _curve_by_loops(rows, labels, 4.0, 1.5)
    curve = compute_anchor_curve(rows, labels, 4.0, bin_width=1.5)
    assert len(expected) > 3
    np.testing.assert_allclose(curve.distances, [step * 1.5 for step in expected])
    np.testing.assert_allclose(curve.means, [np.mean(c) for c in expected.values()], rtol=1e-12)
    np.testing.assert_allclose(curve.deviations, [np.std(c) for c in expected.values()], rtol=1e-9)
    assert curve.pairs.tolist() == [len(c) for c in expected.values()]


def test_decimal_labels_fall_where_they_are_written():
    # 0.4 - 0.1 and 0.7 - 0.4 differ by rounding
    labels = np.array([0.1, 0.1, 0.4, 0.7])
    curve = compute_anchor_curve(np.eye(4), labels, 0.1, bin_width=0.2)
    np.testing.assert_allclose(curve.distances, [0.0, 0.4, 0.6])
    assert curve.pairs.tolist() == [2, 2, 2]


@pytest.mark.parametrize("n", [0, 5])
def test_a_label_without_samples_gives_an_empty_curve(n):
    embedded = _embedded(n)
    curve = compute_anchor_curve(embedded.representations, embedded.labels, 99.0, bin_width=1.0)
    assert [len(column) for column in curve] == [0, 0, 0, 0]
