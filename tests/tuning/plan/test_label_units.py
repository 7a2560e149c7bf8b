"""Run with `pytest tests/tuning/plan/test_label_units.py`: scale and offset of predictions from the training labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dirtune
from dirtune.cli.display import format_plan
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.data.label_units import estimate_label_units, resolve_label_units
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.manifest import LabelSpec, Manifest
from dirtune.models.regressor import PixelUnits
from dirtune.presets import expand_presets
from tests.data.manifests import AGES
from tests.training.conftest import configuration
from tests.tuning.sweeps import STUDY, open_folder, rows, sweep_without_ray

__all__ = ["configuration"]

WIDE = LabelSpec(name="price", unit="EUR", low=0, high=1000, bin_width=1, num_bins=1000)
AUTO = {"model": {"encoder": {"name": "mlp", "hidden": [4]}, "label_scale": "auto", "label_offset": "auto"}}


def count(labels: np.ndarray, spec: LabelSpec = WIDE) -> list[int]:
    bins = np.clip((labels - spec.low) // spec.bin_width, 0, spec.num_bins - 1).astype(int)
    return np.bincount(bins, minlength=spec.num_bins).tolist()


def test_of_normal_labels_they_are_mean_and_standard_deviation() -> None:
    labels = np.random.default_rng(0).normal(500, 60, 200_000)
    center, spread = estimate_label_units(WIDE, count(labels))
    assert center == pytest.approx(500, abs=1.5)
    assert spread == pytest.approx(60, rel=0.01)


def test_a_few_labels_far_away_change_little() -> None:
    labels = np.random.default_rng(0).normal(100, 10, 10_000)
    outliers = np.concatenate([labels, np.full(300, 999.0)])
    before, after = (estimate_label_units(WIDE, count(each)) for each in (labels, outliers))
    assert after == pytest.approx(before, rel=0.1)
    assert np.std(outliers) > 10 * after[1]


def test_most_labels_in_one_bin_have_the_standard_deviation_of_all() -> None:
    labels = np.concatenate([np.zeros(950), np.full(50, 100.0)])
    center, spread = estimate_label_units(WIDE, count(labels))
    assert 0 <= center <= 1
    assert spread == pytest.approx(np.std(labels), rel=0.01)
    assert estimate_label_units(WIDE, count(np.full(10, 7.0))) == (7.5, 1.0)


def test_labels_of_several_dimensions_have_the_means_of_their_dimensions() -> None:
    axes = tuple(
        LabelSpec(name=name, unit="deg", low=-50, high=50, bin_width=1, num_bins=100) for name in ("pitch", "yaw")
    )
    spec = LabelSpec.grid("gaze", "deg", axes)
    drawn = np.random.default_rng(0)
    pitch, yaw = drawn.normal(-10, 4, 50_000), drawn.normal(5, 8, 50_000).clip(-50, 49)
    grid = np.zeros((100, 100), dtype=int)
    np.add.at(grid, ((pitch + 50).astype(int), (yaw + 50).astype(int)), 1)
    center, spread = estimate_label_units(spec, grid.ravel().tolist())
    assert center == pytest.approx(-2.5, abs=0.2)
    assert spread == pytest.approx(6, rel=0.02)


def test_numbers_that_are_given_stay(toy: ResidentData, configuration: Callable[..., TrialConfig]) -> None:
    config = configuration()
    assert resolve_label_units(config, toy.manifest) is config
    half = configuration(model={"label_offset": "auto"})
    labels = toy.splits["train"].labels.double().numpy()
    found = resolve_label_units(half, toy.manifest).model
    assert found.label_scale == config.model.label_scale
    assert found.label_offset == pytest.approx(np.median(labels), abs=toy.manifest.label.bin_width / 2)


def test_settings_with_the_unit_of_the_label_are_counted_in_bins_unless_they_are_given(
    toy: ResidentData, configuration: Callable[..., TrialConfig]
) -> None:
    width = toy.manifest.label.bin_width
    assert width == 2
    model = {"label_scale": 5.0}
    left_open = configuration(model=model, loss={"name": "huber"}, terms={"conr": {}, "acconr": {"omega": 0.5}})
    found = resolve_label_units(left_open, toy.manifest)
    assert (found.terms.conr.omega, found.terms.conr.push_power) == (width, 0.01 / width)
    assert (found.terms.acconr.omega, found.terms.acconr.push_power) == (0.5, 0.01 / width)
    assert found.loss.beta == width / 5
    assert resolve_label_units(found, toy.manifest) is found
    focal = resolve_label_units(configuration(model=model, loss={"name": "focal_l1"}), toy.manifest)
    assert focal.loss.beta == 0.2 * 5 / width
    scheme = {"name": "rrt", "loss": {"name": "huber"}}
    assert resolve_label_units(configuration(model=model, scheme=scheme), toy.manifest).scheme.loss.beta == width / 5
    given = configuration(terms={"conr": {"omega": 1.0, "push_power": 0.01}})
    assert resolve_label_units(given, toy.manifest) is given


def test_ages_and_their_years_have_the_published_settings(toy: ResidentData) -> None:
    years = toy.manifest.label.model_copy(update={"bin_width": 1.0})
    ages = toy.manifest.model_copy(update={"label": years})
    for name in ("conr", "focal_r"):
        asked = {"data": {"name": "agedb"}, "recipe": "conr", "methods": [name]}
        published = read(TrialConfig, expand_presets(asked, "agedb", where="test"), where="test")
        model = {**AUTO["model"], "label_scale": 1.0, "label_offset": 0.0}
        other = {"data": {"name": "own"}, "model": model, "methods": [name]}
        own = read(TrialConfig, expand_presets(other, "own", where="test"), where="test")
        found = resolve_label_units(own, ages)
        assert (found.loss, found.terms) == (published.loss, published.terms)


def test_a_plan_shows_what_is_taken_from_the_data(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    base = {**STUDY["base"], "model": {**STUDY["base"]["model"], "label_offset": "auto"}}
    shown = format_plan(dirtune.plan(study_file(base=base), data=data_root, results=tmp_path)).caption
    # Of 202 training labels, 60 are below 2 and 45 in the next bin, which ends at 4.
    assert "from the data: model.label_offset 3.82, terms.conr.push_power 0.005" in str(shown)


def test_without_numbers_no_regressor_is_built() -> None:
    config = read(TrialConfig, {"data": {"name": "toy"}, **AUTO}, where="test")
    with pytest.raises(ValueError, match="must be numbers"):
        config.model.get_label_units()


def test_a_study_records_the_numbers_and_equal_numbers_are_the_same_trials(
    data_root: Path, toy: ResidentData, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(seeds=[0], base={**STUDY["base"], **AUTO})
    assert sweep_without_ray(path, data_root, tmp_path) == 2
    center, spread = estimate_label_units(toy.manifest.label, toy.manifest.train_counts)
    sql = 'select distinct "config.model.label_scale", "config.model.label_offset" from trials'
    assert rows(sql, tmp_path).values.tolist() == [[spread, center]]
    written = {**AUTO["model"], "label_scale": spread, "label_offset": center}
    path = study_file(seeds=[0], base={**STUDY["base"], "model": written})
    assert open_folder(path, data_root, tmp_path).find_reuse().is_complete
    plain = {"data": {"name": "toy"}, **AUTO, "recipe": STUDY["base"]["recipe"]}
    single = dirtune.train(plain, data=data_root, results=tmp_path)
    trial_ids = rows("select trial_id from trials where study = 'tiny' and arm = 'vanilla'", tmp_path)
    assert [single.trial_id] == trial_ids["trial_id"].tolist()


def test_a_search_tries_numbers_alone(data_root: Path, tmp_path: Path, study_file: Callable[..., str]) -> None:
    space = {"model.label_scale": {"distribution": "choice", "values": [1.0, "auto"]}}
    path = study_file(seeds=[0], space=space, search={"trials": 2})
    with pytest.raises(InputError, match="a search tries numbers"):
        open_folder(path, data_root, tmp_path)


def test_images_are_standardized_by_their_own_units_or_by_those_of_the_weights() -> None:
    spec = AGES.inputs["image"].model_copy(update={"pixel_mean": (0.1, 0.2, 0.3), "pixel_deviation": (1.0, 2.0, 3.0)})
    known = AGES.model_copy(update={"inputs": {"image": spec}})
    units = {"label_scale": 1, "label_offset": 0}

    def resolve(manifest: Manifest, **model: object) -> TrialConfig:
        config = {"data": {"name": "ages"}, "model": {"encoder": {"name": "resnet18"}, **units, **model}}
        return resolve_label_units(read(TrialConfig, config, where="test"), manifest)

    assert resolve(known).model.pixel_units == PixelUnits(mean=(0.1, 0.2, 0.3), deviation=(1.0, 2.0, 3.0))
    pretrained = resolve(known, encoder={"name": "resnet18", "weights_file": "a.pt"}).model.pixel_units
    assert pretrained == PixelUnits(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
    given = {"mean": [0, 0, 0], "deviation": [1, 1, 1]}
    assert resolve(known, pixel_units=given).model.pixel_units == PixelUnits(mean=(0, 0, 0), deviation=(1, 1, 1))
    assert resolve(known, pixel_units=None).model.pixel_units is None
    # Published data sets have no such units, and the ids of their trials stay.
    assert resolve(AGES) == resolve(AGES, pixel_units="auto")
    assert resolve(AGES).compute_trial_id("data") != resolve(known).compute_trial_id("data")
