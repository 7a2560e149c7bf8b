"""Run with `pytest tests/pipelines/test_operator.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dirtune.data.ingest import ingest
from dirtune.data.store import decode, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import ShotRule
from dirtune.pipelines.operator import (
    LABEL,
    SENSORS,
    compute_training_counts,
    draw,
    draw_samples,
    evaluate_antiderivatives,
    evaluate_at_sensors,
)
from dirtune.reweighting.density import label_bins, shot_regions


def test_training_bins_are_14_many_28_medium_and_58_few_shot() -> None:
    counts = compute_training_counts()
    regions = shot_regions(counts, ShotRule())
    assert [int((regions == region).sum()) for region in ("many", "medium", "few")] == [14, 28, 58]
    assert counts.sum() == 4064
    for index, count in enumerate(counts):
        assert count == max(1, round(240 * math.exp(-abs(-1 + 0.02 * (index + 0.5)) / 0.17)))


def test_the_label_is_the_integral_of_the_input_up_to_the_point() -> None:
    coefficients, points = draw(np.random.default_rng(0), 20)
    labels = evaluate_antiderivatives(coefficients, points)
    for row in range(20):
        x = np.linspace(0, points[row], 4001)
        u = coefficients[row, 0] + sum(
            math.sqrt(2) * a * np.cos(k * np.pi * x) for k, a in enumerate(coefficients[row]) if k
        )
        assert labels[row] == pytest.approx(np.trapezoid(u, x), abs=1e-6)


def test_the_input_holds_the_function_at_the_sensors_and_the_point() -> None:
    coefficients, points = draw(np.random.default_rng(1), 3)
    inputs = evaluate_at_sensors(coefficients, points)
    assert inputs.shape == (3, SENSORS + 1)
    np.testing.assert_array_equal(inputs[:, -1], points.astype(np.float32))
    for sensor in (0, 50, 99):
        x = sensor / 99
        expected = coefficients[:, 0] + math.sqrt(2) * sum(
            coefficients[:, k] * math.cos(k * math.pi * x) for k in range(1, 16)
        )
        np.testing.assert_allclose(inputs[:, sensor], expected, rtol=1e-5, atol=1e-6)


def test_functions_have_mean_zero_and_variance_one() -> None:
    inputs = evaluate_at_sensors(*draw(np.random.default_rng(2), 20_000))[:, :-1]
    assert abs(inputs.mean()) < 0.02
    assert inputs.var(axis=0).mean() == pytest.approx(1.0, abs=0.03)


def test_splits_fill_their_bins_and_share_no_function() -> None:
    made = draw_samples(0)
    for split, counts in {"train": compute_training_counts(), "val": np.full(100, 5), "test": np.full(100, 10)}.items():
        found = np.bincount(label_bins(made[split]["label"], LABEL), minlength=100)
        np.testing.assert_array_equal(found, counts)
    functions = [row.tobytes() for columns in made.values() for row in columns["function"]]
    assert len(set(functions)) == len(functions) == 4064 + 500 + 1000


def test_samples_depend_on_the_seed_alone() -> None:
    one, again, other = draw_samples(3), draw_samples(3), draw_samples(4)
    for split in one:
        for name in one[split]:
            np.testing.assert_array_equal(one[split][name], again[split][name])
        assert not np.array_equal(one[split]["label"], other[split]["label"])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ingest_stores_the_samples(tmp_path: Path) -> None:
    manifest = ingest("operator", root=tmp_path, report=str)
    assert manifest.train_counts == tuple(compute_training_counts())
    made = draw_samples(0)
    for split, columns in made.items():
        stored = decode(read_split(Storage.open(tmp_path), manifest, split), manifest)
        order = np.argsort(stored["sample_id"])
        np.testing.assert_array_equal(stored["label"][order], columns["label"])
        np.testing.assert_array_equal(stored["function"][order], columns["function"])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_raw_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"operator: raw: operator is synthetic"):
        ingest("operator", root=tmp_path, raw=tmp_path)
