"""Run with `pytest tests/results/analysis/test_conformal.py`: intervals against their definition, in a loop over samples."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.conformal import compute_intervals, compute_quantile
from dirtune.results.records.parquetfile import encode_table
from dirtune.results.records.schema import SplitPredictions
from dirtune.reweighting.density import label_bins, shot_regions
from tests.results.predicted import LABEL, RULES, make_manifest, make_predictions, make_trial
from tests.results.record_factory import write_study

LEVEL = 0.8


def _with_deviations(predictions: dict[str, SplitPredictions]) -> dict[str, SplitPredictions]:
    return {split: replace(one, deviations=0.5 + one.labels / 10) for split, one in predictions.items()}


@pytest.fixture
def trials() -> dict[str, list[dict[str, SplitPredictions]]]:
    return {
        "plain": [make_predictions(seed, labels_seed=3) for seed in (0, 1)],
        "scaled": [_with_deviations(make_predictions(seed, labels_seed=3)) for seed in (2, 3)],
    }


def _write(root: Path, trials: dict[str, list[dict[str, SplitPredictions]]]) -> Path:
    records = [make_trial(arm, seed, "counts", one) for arm, found in trials.items() for seed, one in enumerate(found)]
    keys = {"reference": "plain", "arms": [*trials], "seeds": [0, 1], "objective": {"metric": "mae"}}
    storage = write_study(root, records, data={"name": "angles", "unit": "degrees"}, **keys)
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return root


def _expected(trial: dict[str, SplitPredictions], kind: str, region: str) -> tuple[float, float]:
    """Coverage and width, sample by sample."""
    by_bin = shot_regions(make_manifest().train_counts, RULES["counts"])

    def region_of(value: float) -> str:
        return str(by_bin[label_bins(np.array([value]), LABEL)][0])

    def quantile(scores: list[float]) -> float:
        rank = math.ceil((len(scores) + 1) * LEVEL)
        return sorted(scores)[rank - 1] if rank <= len(scores) else math.inf

    rows = {}
    for split, one in trial.items():
        deviations = np.ones(len(one.labels)) if one.deviations is None else one.deviations
        rows[split] = [*zip(one.labels.tolist(), one.predictions.tolist(), deviations.tolist(), strict=True)]
    inside, widths = [], []
    for label, prediction, deviation in rows["test"]:
        if region not in ("all", region_of(label)):
            continue
        scores = [abs(y - p) / (s if kind == "scaled" else 1) for y, p, s in rows["val"]]
        half = quantile(scores) * (deviation if kind == "scaled" else 1)
        if kind == "by region":
            own = [abs(y - p) for y, p, _ in rows["val"] if region_of(p) == region_of(prediction)]
            half = quantile(own) if math.isfinite(quantile(own)) else half
        inside.append(abs(label - prediction) <= half)
        widths.append(2 * half)
    return float(np.mean(inside)), float(np.mean(widths))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_region_without_calibration_is_noted_whichever_seed_lacks_it(seed: int, tmp_path: Path) -> None:
    both = [make_predictions(each, labels_seed=3) for each in (0, 1)]
    # All predictions of the validation split are in one region.
    val = both[seed]["val"]
    both[seed]["val"] = replace(val, predictions=np.full_like(val.predictions, val.labels.min()))
    found = compute_intervals(_write(tmp_path, {"plain": both}), "study", level=LEVEL).to_pylist()
    notes = {row["kind"]: row["note"] for row in found}
    assert "0 validation predictions are" in notes["by region"]
    assert notes["one"] == ""


def test_intervals_are_their_definition(tmp_path: Path, trials: dict[str, list[dict[str, SplitPredictions]]]) -> None:
    found = compute_intervals(_write(tmp_path, trials), "study", level=LEVEL).to_pylist()
    assert {(row["arm"], row["kind"]) for row in found} == {
        ("plain", "one"),
        ("plain", "by region"),
        ("scaled", "one"),
        ("scaled", "by region"),
        ("scaled", "scaled"),
    }
    for row in found:
        each = [_expected(trial, row["kind"], row["region"]) for trial in trials[row["arm"]]]
        coverage, width = zip(*each, strict=True)
        assert row["coverage"] == pytest.approx(np.mean(coverage))
        assert row["width"] == pytest.approx(np.mean(width))
        assert row["width_sd"] == pytest.approx(np.std(width, ddof=1))
        assert row["seeds"] == 2


def test_records_without_the_column_of_deviations_remain_readable(
    tmp_path: Path, trials: dict[str, list[dict[str, SplitPredictions]]]
) -> None:
    root = _write(tmp_path, trials)
    for path in (root / "study/results/predictions").glob("*.parquet"):
        path.write_bytes(encode_table(pq.ParquetFile(path).read().drop_columns(["deviation"])))
    kinds = set(compute_intervals(root, "study")["kind"].to_pylist())
    assert kinds == {"one", "by region"}


def test_what_has_no_intervals_is_one_sentence(
    tmp_path: Path, trials: dict[str, list[dict[str, SplitPredictions]]]
) -> None:
    root = _write(tmp_path, trials)
    with pytest.raises(InputError, match="level: must be between 0 and 1, got 1"):
        compute_intervals(root, "study", level=1.0)
    with pytest.raises(InputError, match="has 40 validation samples, too few for intervals"):
        compute_intervals(root, "study", level=0.99)


def test_predictions_that_are_no_finite_numbers_are_one_sentence(
    tmp_path: Path, trials: dict[str, list[dict[str, SplitPredictions]]]
) -> None:
    root = _write(tmp_path, trials)
    for path in (root / "study/results/predictions").glob("*.parquet"):
        table = pq.ParquetFile(path).read()
        values = [math.inf if place % 2 else math.nan for place in range(len(table))]
        place = table.column_names.index("prediction")
        path.write_bytes(encode_table(table.set_column(place, "prediction", pa.array(values))))

    with pytest.raises(InputError, match="has 40 of 40 predictions that are no finite numbers, too many"):
        compute_intervals(root, "study")


def test_the_quantile_covers_new_scores_at_the_level() -> None:
    generator = np.random.default_rng(0)
    covered = [generator.exponential() <= compute_quantile(generator.exponential(size=19), 0.9) for _ in range(4000)]
    # 18 of 20 exchangeable scores; four standard errors
    assert np.mean(covered) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 4000))
    assert compute_quantile(np.arange(8.0), 0.9) == math.inf
    assert compute_quantile(np.arange(9.0), 0.9) == 8.0
