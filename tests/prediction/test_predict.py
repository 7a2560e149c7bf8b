"""Run with `pytest tests/prediction/test_predict.py`: kept models predict new samples, and rows are checked by their contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import dirtune
from dirtune import plugins
from dirtune.cli import app
from dirtune.data.cache import ResidentData
from dirtune.data.contract import InputContract
from dirtune.data.new_samples import read_new_samples
from dirtune.data.store import read_manifest, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.metrics import compute_region_metrics
from dirtune.training.trial import TrialRun
from tests.plugin_sources import SPREAD, forgotten_plugins, write
from tests.prediction.conftest import make_frame
from tests.training.runs import Configure, finish, job_of

__all__ = ["forgotten_plugins"]


@pytest.fixture(scope="session")
def recorded(results: Path) -> pd.DataFrame:
    """The recorded test predictions: label and one column per seed, by sample id."""
    sql = """select sample_id, label, seed, prediction from predictions join trials using (trial_id)
             where arm = 'smooth' and split = 'test'"""
    rows = dirtune.query(sql, results=results)
    wide = rows.pivot(index=["sample_id", "label"], columns="seed", values="prediction").reset_index("label")
    return wide.sort_index()


@pytest.fixture(scope="session")
def test_file(raw: Path, recorded: pd.DataFrame) -> Path:
    """The rows of the test split as in the raw file, without label, in another order of rows and columns."""
    frame = pd.read_csv(raw)
    frame = frame[frame["name"].isin(recorded.index)].sample(frac=1, random_state=3)
    file = raw.parent / "test.csv"
    frame[["kind", "name", "height", "width"]].to_csv(file, index=False)
    return file


def test_the_test_file_gets_the_recorded_predictions_bit_for_bit(
    results: Path, recorded: pd.DataFrame, test_file: Path
) -> None:
    found = dirtune.load("mine", arm="smooth", results=results).predict(test_file, each_seed=True)
    assert found["sample_id"].tolist() == pd.read_csv(test_file)["name"].tolist()
    found = found.set_index("sample_id").loc[recorded.index]
    for seed in (0, 1, 5):
        np.testing.assert_array_equal(found[f"seed_{seed}"], recorded[seed])
    each = recorded[[0, 1, 5]].to_numpy()
    np.testing.assert_allclose(found["prediction"], each.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["spread"], each.std(axis=1, ddof=1), rtol=1e-9)


def test_a_model_of_logarithms_predicts_in_the_labels_unit(results: Path, test_file: Path) -> None:
    trained = dirtune.load("mine", arm="logarithms", results=results, seeds=[0])
    found = trained.predict(test_file).set_index("sample_id")["prediction"]
    sql = """select sample_id, prediction from predictions join trials using (trial_id)
             where arm = 'logarithms' and split = 'test' and seed = 0"""
    expected = dirtune.query(sql, results=results).set_index("sample_id")["prediction"].loc[found.index]
    np.testing.assert_array_equal(found, expected)
    inputs = read_new_samples(test_file, trained.contract).read(np.arange(len(found)))
    mean, _ = trained.module(torch.from_numpy(inputs["features"]))
    np.testing.assert_allclose(mean.detach(), expected, rtol=1e-5)


def test_every_prediction_has_its_region_and_the_test_error_there(
    results: Path, own_root: Path, recorded: pd.DataFrame, test_file: Path
) -> None:
    manifest = read_manifest(Storage.open(own_root), "own")
    label, rule = manifest.label, manifest.shot_rules[manifest.default_shot_rule]
    train = read_split(Storage.open(own_root), manifest, "train")["label"].to_numpy()

    def describe(values: np.ndarray) -> tuple[list[int], np.ndarray]:
        bins = np.clip(((values - label.low) / label.bin_width + 1e-9).astype(int), 0, label.num_bins - 1)
        counts = np.bincount(
            np.clip(((train - label.low) / label.bin_width + 1e-9).astype(int), 0, label.num_bins - 1),
            minlength=label.num_bins,
        )
        many, few = counts[bins] > rule.many_above, counts[bins] < rule.few_below
        if rule.many_bins is not None and rule.medium_bins is not None:
            many, few = np.isin(bins, rule.many_bins), ~np.isin(bins, rule.many_bins + rule.medium_bins)
        return counts[bins].tolist(), np.where(many, "many", np.where(few, "few", "medium"))

    found = dirtune.load("mine", arm="smooth", results=results).predict(test_file)
    counts, regions = describe(found["prediction"].to_numpy())
    assert found["region"].tolist() == regions.tolist()
    assert found["training_samples"].tolist() == counts
    _, of_labels = describe(recorded["label"].to_numpy())
    expected = {}
    for region in ("many", "medium", "few"):
        rows = recorded[of_labels == region]
        errors = [(rows[seed] - rows["label"]).abs().mean() for seed in (0, 1, 5)]
        expected[region] = (np.mean(errors), np.std(errors, ddof=1))
    wanted = np.array([expected[region] for region in found["region"]])
    np.testing.assert_allclose(found[["test_mae", "test_mae_spread"]], wanted, rtol=1e-9)


def test_frames_arrays_and_model_inputs_get_the_same_predictions(results: Path, test_file: Path) -> None:
    trained = dirtune.load("mine", arm="plain", results=results)
    frame = pd.read_csv(test_file)
    from_file, from_frame = trained.predict(test_file), trained.predict(frame)
    pd.testing.assert_frame_equal(from_file, from_frame)
    features = trained.contract.features
    columns = [
        (frame[each.name] == each.text) if each.text is not None else (frame[each.name] - each.mean) / each.sd
        for each in features
    ]
    stored = np.stack(columns, axis=1).astype(np.float32)
    given = trained.predict({"features": torch.from_numpy(stored)})
    np.testing.assert_allclose(given["prediction"], from_file["prediction"], rtol=1e-5)
    mean, spread = trained.module(torch.from_numpy(stored))
    np.testing.assert_allclose(mean.detach(), from_file["prediction"], rtol=1e-5)
    np.testing.assert_allclose(spread.detach(), from_file["spread"], rtol=1e-3, atol=1e-5)
    raw_numbers = frame[["width", "height", "kind"]].to_numpy()
    np.testing.assert_array_equal(
        trained.predict(raw_numbers)["prediction"].sort_values(), from_file["prediction"].sort_values()
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.drop(columns="width"), "new rows: width: missing column, which the model reads"),
        (lambda f: f.assign(weight=1.0), "new rows: weight: unknown column, which the model's data did not have"),
        (lambda f: f.rename(columns={"width": "Width"}), "width: missing column.*Width: unknown column"),
        (
            lambda f: f.assign(kind=["mud", *f["kind"][1:]]),
            "new rows:1: kind: unknown category; training had 'clay', 'rock', 'sand'",
        ),
        (
            lambda f: f.assign(width=["wide", *f["width"][1:].astype(str)]),
            "new rows:1: width: must be a finite number.*got 'wide'",
        ),
        (lambda f: f.assign(width=[None, *f["width"][1:]]), "new rows:1: width: the cell is empty"),
        (lambda f: f.assign(width=np.inf), "width: most numbers are infinite or beyond"),
    ],
)
def test_rows_that_break_the_contract_are_refused_in_one_sentence(results: Path, change: object, sentence: str) -> None:
    frame = make_frame().drop(columns="y").head(5)
    with pytest.raises(InputError, match=f"(?s){sentence}"):
        dirtune.load("mine", arm="plain", results=results).predict(change(frame))  # type: ignore[operator]


def test_a_file_with_another_delimiter_than_that_of_the_ingest_is_refused_with_both(
    results: Path, tmp_path: Path
) -> None:
    trained, file = dirtune.load("mine", arm="plain", results=results), tmp_path / "new.csv"
    sentence = r"\(the header has the delimiter ';'; the data set was ingested with ','\)$"
    # With decimal commas, rows have more cells than the header.
    for decimal in (".", ","):
        make_frame().head(5).to_csv(file, index=False, sep=";", decimal=decimal)
        with pytest.raises(InputError, match=sentence):
            trained.predict(file)


def test_unknown_categories_can_be_none_of_the_known_ones(results: Path) -> None:
    trained = dirtune.load("mine", arm="plain", results=results, seeds=[1])
    frame = make_frame().head(1).assign(kind="mud")
    found = trained.predict(frame, unknown_categories="zeros")
    features = trained.contract.features
    stored = [0.0 if each.text else (frame[each.name][0] - each.mean) / each.sd for each in features]
    expected = trained.predict({"features": np.array([stored], dtype=np.float32)})
    assert found["prediction"].tolist() == expected["prediction"].tolist()
    assert found["spread"].isna().all()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"features": np.zeros((2, 4), np.float32)}, r"features: must have the shape \(samples, 5\), got \(2, 4\)"),
        ({"image": np.zeros((2, 5), np.float32)}, "unknown input.*known: features"),
        ({"features": np.full((2, 5), np.nan, np.float32)}, "features: must be finite numbers"),
        (np.zeros((2, 5)), "an array must have the 3 columns width, height, kind"),
        (["a.png"], "must be a table, a file, or arrays by input"),
    ],
)
def test_arrays_of_another_form_are_refused(results: Path, given: object, sentence: str) -> None:
    with pytest.raises(InputError, match=f"(?s){sentence}"):
        dirtune.load("mine", arm="plain", results=results).predict(given)


def test_unknown_arms_seeds_and_lost_models_are_named(results: Path, tmp_path: Path) -> None:
    for given, sentence in (
        ({}, "an arm must be named.*known: logarithms, plain, smooth"),
        ({"arm": "plan"}, "unknown arm.*'plan'"),
        ({"arm": "plain", "seeds": [0, 3]}, "no complete trial of this seed, got 3; known: 0, 1, 5"),
    ):
        with pytest.raises(InputError, match=f"(?s){sentence}"):
            dirtune.load("mine", results=results, **given)
    models = Storage.open(results / "mine")
    trial = dirtune.query("select trial_id from trials where arm = 'plain' and seed = 1", results=results)["trial_id"][
        0
    ]
    models.move(f"models/{trial}/inputs.json", "inputs.json")
    try:
        with pytest.raises(
            InputError, match=rf"recorded without a model: seed 1 \(trial {trial}\); choose of seeds 0, 5"
        ):
            dirtune.load("mine", arm="plain", results=results)
        assert list(dirtune.load("mine", arm="plain", results=results, seeds=[0, 5]).models) == [0, 5]
    finally:
        models.move("inputs.json", f"models/{trial}/inputs.json")


def test_the_command_writes_a_file_and_refuses_in_one_line(results: Path, test_file: Path, tmp_path: Path) -> None:
    command = ["predict", "mine", "--arm", "smooth", "--results", str(results), "--raw"]
    for name, read in (("out.csv", pd.read_csv), ("out.parquet", pd.read_parquet)):
        done = CliRunner().invoke(app, [*command, str(test_file), "--output", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert "by 3 models" in done.output
        expected = dirtune.load("mine", arm="smooth", results=results).predict(test_file)
        pd.testing.assert_frame_equal(read(tmp_path / name), expected)
    for arguments in (
        [str(tmp_path / "none.csv")],
        [str(test_file), "--output", "out.xls"],
        [str(test_file), "--output", str(test_file)],
    ):
        done = CliRunner().invoke(app, [*command, *arguments])
        assert isinstance(done.exception, InputError)


def test_a_metric_of_the_predictions_is_the_recorded_one(results: Path, recorded: pd.DataFrame) -> None:
    """The errors shown with predictions are those of the tables."""
    errors = dirtune.load("mine", arm="smooth", results=results).errors
    values = [
        compute_region_metrics(recorded["label"], recorded[seed], np.full(len(recorded), "few"))[0]["value"]
        for seed in (0, 1, 5)
    ]
    assert errors["all"].mean == pytest.approx(np.mean(values))
    assert errors["all"].samples == len(recorded)


@pytest.mark.usefixtures("forgotten_plugins")
def test_models_with_parts_of_a_plug_in_need_its_code(
    configuration: Configure, toy: ResidentData, tmp_path: Path
) -> None:
    (plugin,) = plugins.load_files([write(tmp_path, SPREAD)])
    study = Storage.open(tmp_path / "results" / "study")
    job = job_of(configuration(terms={"spread": {"weight": 0.1}}), toy)
    finish(TrialRun(job, toy, study, contract=InputContract(manifest=toy.manifest)))
    # As a sweep records it
    study.write("plugins/my_terms.py", SPREAD.encode())
    plugins.unload(plugin)
    with pytest.raises(InputError, match=r"study/plugins: the sweep uses the code of my_terms\.py"):
        dirtune.load("study", results=tmp_path / "results")
    trained = dirtune.load("study", results=tmp_path / "results", allow_plugins=True)
    assert trained.arm == "conr"
    rows = toy.splits["test"].sample_ids
    (inputs,) = toy.splits["test"].read([torch.arange(len(rows))])
    found = trained.predict(inputs)["prediction"]
    sql = "select prediction from predictions where split = 'test' order by sample_id"
    np.testing.assert_array_equal(found, dirtune.query(sql, results=tmp_path / "results")["prediction"])
