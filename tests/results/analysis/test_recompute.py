from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import ShotRule
from dirtune.metrics import METRICS
from dirtune.results.analysis.recompute import compute_bin_errors, read_sample_predictions, recompute
from dirtune.results.records.parquetfile import encode_table
from dirtune.results.records.store import read_table, write_record
from tests.results.predicted import RULES, TRAIN, make_manifest, make_predictions, make_trial
from tests.results.record_factory import record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Trials of both shot rules and one that failed, with the manifest as a sweep would keep it."""
    storage = Storage.open(tmp_path / "study")
    for made in (make_trial("a", 0, None), make_trial("a", 1, "counts"), make_trial("b", 0, "published")):
        write_record(storage, made)
    write_record(storage, record("b", 1, status="failed", fingerprint=make_manifest().fingerprint))
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return tmp_path


def test_with_nothing_changed_it_gives_the_stored_metrics(root: Path) -> None:
    stored = {
        (row["trial_id"], row["split"], row["metric"], row["region"]): (row["value"], row["n"])
        for row in read_table(root, "metrics").to_pylist()
    }
    checked = 0
    for metric in METRICS:
        for split in ("val", "test"):
            for trial_id, regions in recompute(root, "study", metric=metric, split=split).items():
                for region, found in regions.items():
                    value, n = stored[trial_id, split, metric, region]
                    expected = math.nan if value is None else value
                    assert found.value == pytest.approx(expected, rel=1e-12, nan_ok=True)
                    assert found.n == n
                    checked += 1
    assert checked == len(stored) == 9 * 2 * 4 * 3


def test_another_rule_moves_the_regions_as_a_loop_over_the_samples_does(root: Path) -> None:
    rule = ShotRule(many_above=60, few_below=30)

    found = recompute(root, "study", metric="mae", rule=rule)["a-1"]

    errors: dict[str, list[float]] = {region: [] for region in ("all", "many", "medium", "few")}
    counts = [sum(math.floor(label) == position for label in TRAIN) for position in range(10)]
    test = make_predictions(1)["test"]
    for label, prediction in zip(test.labels, test.predictions, strict=True):
        n = counts[math.floor(label)]
        region = "many" if n > 60 else "few" if n < 30 else "medium"
        for name in ("all", region):
            errors[name].append(abs(prediction - label))
    for region, values in errors.items():
        assert found[region].n == len(values) > 0
        assert found[region].value == pytest.approx(np.mean(values), rel=1e-12)


def test_another_bin_width_moves_regions_and_balanced_error(root: Path) -> None:
    found = recompute(root, "study", metric="balanced_mae", rule=RULES["counts"], bin_width=2.5, train_labels=TRAIN)[
        "a-0"
    ]

    test = make_predictions(0)["test"]
    bins = np.floor(test.labels / 2.5)
    errors = np.abs(test.predictions - test.labels)
    counts = np.array([((2.5 * b <= TRAIN) & (2.5 * b + 2.5 > TRAIN)).sum() for b in range(4)])
    many = counts[bins.astype(int)] > 40
    for region, rows in (("all", np.full(60, True)), ("many", many)):
        means = [errors[rows & (bins == b)].mean() for b in np.unique(bins[rows])]
        assert found[region].value == pytest.approx(np.mean(means), rel=1e-12)


def test_a_multiple_of_the_bin_width_needs_no_labels(root: Path) -> None:
    keys = {"metric": "mse", "rule": RULES["counts"], "bin_width": 2.0}

    assert recompute(root, "study", **keys) == recompute(root, "study", **keys, train_labels=TRAIN)


def test_spearman_is_scipys(root: Path) -> None:
    test = make_predictions(0)["test"]

    found = recompute(root, "study", metric="spearman", trials=["a-0"])

    assert list(found) == ["a-0"]
    assert found["a-0"]["all"].value == pytest.approx(
        stats.spearmanr(test.labels, test.predictions).statistic, rel=1e-12
    )


def test_errors_by_bin_are_those_of_a_loop(root: Path) -> None:
    found = compute_bin_errors(root, "study", trials=["a-0"])["a-0"]
    test = make_predictions(0)["test"]

    assert len(found) == 10
    for position, one in enumerate(found):
        pairs = zip(test.labels, test.predictions, strict=True)
        errors = [p - y for y, p in pairs if position <= y < position + 1]
        assert (one.low, one.high, one.n) == (position, position + 1, len(errors))
        assert one.train == make_manifest().train_counts[position]
        assert one.signed == pytest.approx(np.mean(errors) if errors else math.nan, nan_ok=True)
        assert one.absolute == pytest.approx(np.mean(np.abs(errors)) if errors else math.nan, nan_ok=True)


def test_errors_by_bin_show_the_pull_and_a_bin_without_samples_has_none(root: Path) -> None:
    found = compute_bin_errors(root, "study", trials=["a-0"], bin_width=5.0)["a-0"]

    assert [one.n for one in found] == [int((make_predictions(0)["test"].labels < 5).sum()), 60 - found[0].n]
    assert found[1].signed < found[0].signed < 0


def test_the_manifest_may_be_given_and_must_be_of_the_same_data(root: Path) -> None:
    kept = recompute(root, "study", metric="mae")
    (root / "study/manifest.json").unlink()

    with pytest.raises(InputError, match=r"manifest\.json: is not there; give the manifest"):
        recompute(root, "study", metric="mae")
    assert recompute(root, "study", metric="mae", manifest=make_manifest()) == kept
    with pytest.raises(InputError, match="trials on other data than angles data-b"):
        recompute(root, "study", metric="mae", manifest=make_manifest("data-b"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "mea"}, "unknown metric, got 'mea'; known: balanced_mae, "),
        ({"metric": "mae", "split": "train"}, "unknown split, got 'train'"),
        ({"metric": "mae", "bin_width": 2.0}, "the shot rule is a list of bins of width 1"),
        ({"metric": "mae", "bin_width": 2.5}, "must be a multiple of 1"),
    ],
)
def test_what_cannot_be_computed_is_refused(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recompute(root, "study", **options)


def test_a_damaged_manifest_is_named(root: Path) -> None:
    for content in (b"{", b"{}"):
        (root / "study/manifest.json").write_bytes(content)
        with pytest.raises(InputError, match=r"study/manifest\.json"):
            recompute(root, "study", metric="mae")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Trials of one shot rule on the same samples; the samples of b are stored in the opposite order."""
    storage = Storage.open(tmp_path / "study")
    for arm, seed in (("a", 0), ("a", 1), ("b", 0)):
        predictions = make_predictions(len(arm) + 10 * ord(arm) + seed, labels_seed=3)
        if arm == "b":
            predictions = {
                split: replace(
                    one,
                    sample_ids=one.sample_ids[::-1],
                    labels=one.labels[::-1],
                    predictions=one.predictions[::-1],
                )
                for split, one in predictions.items()
            }
        write_record(storage, make_trial(arm, seed, "counts", predictions))
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"rule": ShotRule(many_above=60, few_below=30)}, {"bin_width": 2.0}])
def test_predictions_by_sample_have_the_recomputed_metrics(shared: Path, options: dict[str, object]) -> None:
    trials = ["a-0", "a-1", "b-0"]

    found = read_sample_predictions(Storage.open(shared / "study"), trials, **options)

    judge = recompute(shared, "study", metric="mae", **options)
    assert set(found.predictions) == set(trials)
    for trial_id, predictions in found.predictions.items():
        for region, rows in found.regions.items():
            error = np.abs(predictions - found.labels)[rows].mean()
            assert error == pytest.approx(judge[trial_id][region].value, rel=1e-12)
            assert rows.sum() == judge[trial_id][region].n


def test_predictions_by_sample_are_in_one_order_for_all_trials(shared: Path) -> None:
    found = read_sample_predictions(Storage.open(shared / "study"), ["a-0", "b-0"])

    for trial_id, seed in (("a-0", 971), ("b-0", 981)):
        test = make_predictions(seed, labels_seed=3)["test"]
        order = sorted(range(60), key=lambda i: test.sample_ids[i])
        assert found.predictions[trial_id].tolist() == test.predictions[order].tolist()
        assert found.labels.tolist() == test.labels[order].tolist()


def test_trials_without_predictions_are_left_out_and_those_on_other_samples_refused(shared: Path, root: Path) -> None:
    storage, other = Storage.open(shared / "study"), Storage.open(root / "study")
    write_record(storage, record("c", 0, fingerprint=make_manifest().fingerprint))

    assert set(read_sample_predictions(storage, ["a-0", "c-0"]).predictions) == {"a-0"}
    with pytest.raises(InputError, match="has no stored predictions of split test"):
        read_sample_predictions(storage, ["c-0"])
    with pytest.raises(InputError, match="different samples in split test: a-0, a-1"):
        read_sample_predictions(other, ["a-0", "a-1"])
    with pytest.raises(InputError, match=r"several shot rules; choose one \(shots\)"):
        read_sample_predictions(other, ["a-0", "b-0"])


def test_groups_are_those_of_the_studys_folder_if_it_has_all_samples(shared: Path) -> None:
    storage = Storage.open(shared / "study")
    trials = ["a-0", "b-0"]
    assert read_sample_predictions(storage, trials).groups is None

    ids = sorted(make_predictions(971, labels_seed=3)["test"].sample_ids)
    columns = {"split": ["test"] * 60, "sample_id": ids, "group": [f"p{i % 7}" for i in range(60)]}
    storage.write("groups.parquet", encode_table(pa.table(columns)))
    assert read_sample_predictions(storage, trials).groups.tolist() == [i % 7 for i in range(60)]

    storage.write("groups.parquet", encode_table(pa.table(columns).slice(1)))
    assert read_sample_predictions(storage, trials).groups is None
