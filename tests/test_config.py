"""Run with `pytest tests/test_config.py`."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from dirtune.config import Terms, TrialConfig
from dirtune.errors import InputError
from dirtune.frozen import hash_json, read
from dirtune.losses import LOSSES, TERMS
from dirtune.nested import get_leaf, merge, nest

MINIMAL: dict[str, Any] = {
    "data": {"name": "digits"},
    "model": {"encoder": {"name": "cnn"}, "label_scale": 1, "label_offset": 0},
}
ADDED: dict[str, Any] = {
    "data.fraction": 0.5,
    "synthesis": {"name": "smoter"},
    "sampling": {"name": "inverse"},
    "mixing": {"name": "c_mixup"},
    "sharpness": {"name": "sam"},
    "model.label_transform": "log",
    "model.pixel_units": None,
    "data.split": 2,
    "model.projection_layers": 2,
    "model.predictor_output": "relu",
    "model.target_copies": 2,
    "recipe.precision": "bf16",
    "recipe.channels_last": True,
    "recipe.accumulation": 2,
    "recipe.compile": True,
    "recipe.sync_batch_norm": True,
    "recipe.batch_norm_groups": 2,
    "recipe.steps_per_epoch": 400,
    "recipe.early_stopping": {"patience": 3},
    "recipe.last_batch": "drop",
    "recipe.views.passes": "apart",
}
"""Settings that came after trials had been recorded, with another value than their default."""
VALID_WITH: dict[str, dict[str, Any]] = {
    "model.projection_layers": {"model": {"projection_dim": 8}},
    "recipe.views.passes": {"recipe": {"views": {"count": 2, "regression": "first"}}},
}
ID_BEFORE_THEY_CAME = "a73f5db91c2f8711"


def configuration(**settings: Any) -> TrialConfig:
    return read(TrialConfig, merge(MINIMAL, settings), where="test")


def faults_of(settings: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        configuration(**settings)
    return [str(fault) for fault in caught.value.faults]


def test_a_written_configuration_reads_back_equal() -> None:
    config = configuration(terms={"conr": {}, "accon": {"tau": 0.2}}, seed=3)
    assert read(TrialConfig, config.to_plain(), where="again") == config


def test_equal_settings_have_the_same_trial_id() -> None:
    one = configuration(terms={"conr": {"omega": 1}})
    same = configuration(terms={"conr": {"omega": 1.0}, "accon": None})
    assert one.compute_trial_id("data") == same.compute_trial_id("data")
    assert one.compute_trial_id("data") != one.compute_trial_id("other data")
    assert one.compute_trial_id("data") != configuration(terms={"conr": {"omega": 2}}).compute_trial_id("data")
    assert one.compute_trial_id("data") != configuration(terms={"conr": {"omega": 1}}, seed=1).compute_trial_id("data")


def test_the_id_of_a_trial_is_the_hash_of_its_configuration_without_what_came_later() -> None:
    whole = configuration().to_plain()
    assert whole["data"]["fraction"] == 1.0
    for path in ADDED:
        *parents, name = path.split(".")
        del reduce(dict.__getitem__, parents, whole)[name]
    assert configuration().compute_trial_id("data") == hash_json({"config": whole, "data": "data"})
    assert configuration().compute_trial_id("data") == ID_BEFORE_THEY_CAME


@pytest.mark.parametrize("path", ADDED)
def test_a_setting_that_came_later_changes_the_trial_id_unless_it_has_its_default(path: str) -> None:
    base = VALID_WITH.get(path, {})
    changed = configuration(**merge(base, nest(path, ADDED[path])))
    default = get_leaf(configuration().to_plain(), path)
    assert changed.compute_trial_id("data") != configuration(**base).compute_trial_id("data")
    same = configuration(**merge(base, nest(path, default)))
    assert same.compute_trial_id("data") == configuration(**base).compute_trial_id("data")


def test_terms_need_two_samples_per_micro_batch() -> None:
    recipe = {"batch_size": 4, "accumulation": 4}
    assert configuration(recipe=recipe).recipe.micro_batch == 1
    (fault,) = faults_of({"recipe": recipe, "terms": {"conr": {}}})
    assert "recipe.accumulation must leave two samples in a micro-batch: terms compare pairs" in fault


def test_an_unused_term_is_left_out_of_the_configuration() -> None:
    assert configuration().to_plain()["terms"] == {}
    assert list(configuration(terms={"conr": {}}).to_plain()["terms"]) == ["conr"]


def test_terms_are_active_when_present() -> None:
    active = configuration(terms={"conr": {}, "accon": {}}).terms.get_active()
    assert list(active) == ["accon", "conr"]
    assert Terms().get_active() == {}


def test_all_faults_are_reported_at_once_with_key_value_and_known_names() -> None:
    faults = faults_of(
        {"loss": {"name": "l3"}, "terms": {"comr": {}, "conr": {"omga": 1, "tau": -1.0}}, "recipe": {"epochs": "ten"}}
    )
    assert any(f"loss.name: unknown name, got 'l3'; known: {', '.join(sorted(LOSSES))}" in text for text in faults)
    assert any(f"terms.comr: unknown key, got 'comr'; known: {', '.join(sorted(TERMS))}" in text for text in faults)
    assert any("did you mean 'conr'" in text for text in faults)
    assert any("terms.conr.omga: unknown key, got 'omga'" in text and "omega" in text for text in faults)
    assert any("terms.conr.tau: should be greater than 0, got -1.0" in text for text in faults)
    assert any("recipe.epochs: should be a valid integer, got 'ten'" in text for text in faults)
    assert len(faults) == 5


@pytest.mark.parametrize("value", [True, "1.0", [1]])
def test_a_number_must_be_a_number(value: object) -> None:
    assert "alpha" in faults_of({"alpha": value})[0]


def test_an_unknown_metric_is_rejected_with_the_known_ones() -> None:
    (fault,) = faults_of({"objective": {"metric": "maee"}})
    assert "mae" in fault
    assert "rmse" in fault


def test_the_terms_need_a_view() -> None:
    assert "count >= 2" in faults_of({"recipe": {"views": {"regression": "first"}}})[0]


ACCON = {"accon": {}}
FROZEN = {"encoder": {"name": "torchvision", "model": "resnet18", "freeze": True}}


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"scheme": {"name": "two_stage"}}, "'two_stage' needs terms"),
        ({"scheme": {"name": "two_stage"}, "terms": ACCON, "alpha": 0.0}, "needs alpha > 0"),
        ({"scheme": {"name": "rrt"}, "terms": ACCON, "alpha": 0.0}, "needs alpha > 0"),
        (
            {"scheme": {"name": "two_stage"}, "terms": ACCON, "reweighting": {"fds": {}}},
            "'two_stage' leaves reweighting.fds without effect",
        ),
        ({"scheme": {"name": "two_stage"}, "terms": ACCON, "model": FROZEN}, "nothing to train in its first stage"),
        (
            # Rank-N-Contrast reads the embedding.
            {"scheme": {"name": "two_stage"}, "terms": {"rnc": {}}, "model": {**FROZEN, "projection_dim": 4}},
            "nothing to train in its first stage",
        ),
    ],
    ids=[
        "no terms",
        "no regression",
        "no regression to retrain",
        "smoothing for nothing",
        "frozen",
        "frozen and no projection read",
    ],
)
def test_a_scheme_with_a_stage_without_loss_is_rejected(settings: dict[str, Any], rule: str) -> None:
    (fault,) = faults_of(settings)
    assert rule in fault


def test_a_first_stage_may_train_the_projection_of_a_frozen_encoder() -> None:
    model = {**FROZEN, "projection_dim": 4}
    assert configuration(scheme={"name": "two_stage"}, terms=ACCON, model=model).scheme.name == "two_stage"


def test_an_unknown_scheme_is_rejected_with_the_known_ones() -> None:
    (fault,) = faults_of({"scheme": {"name": "rtt"}})
    assert "scheme.name: unknown name, got 'rtt'; known: joint, rrt, two_stage" in fault
    assert "did you mean 'rrt'" in fault


def test_the_epochs_of_a_trial_are_the_sum_over_its_stages() -> None:
    recipe = {"epochs": 7}
    assert configuration(recipe=recipe).epochs_planned == 7
    assert configuration(recipe=recipe, scheme={"name": "rrt"}).epochs_planned == 37
    two = configuration(recipe=recipe, terms=ACCON, scheme={"name": "two_stage", "epochs": 5})
    assert two.epochs_planned == 12
    assert two.compute_trial_id("data") != configuration(recipe=recipe, terms=ACCON).compute_trial_id("data")


def test_the_objective_has_a_direction() -> None:
    assert configuration().objective.mode == "min"
    assert configuration(objective={"metric": "pearson"}).objective.mode == "max"


@pytest.mark.parametrize("seed", [0, 1, 7, 2**63 - 1])
def test_ids_of_other_seeds_are_those_of_the_configurations_with_these_seeds(seed: int) -> None:
    config = configuration(terms={"conr": {"omega": 2}}, seed=3)
    seeded = config.model_copy(update={"seed": seed})
    assert config.make_trial_ids("data")(seed) == seeded.compute_trial_id("data")
    assert config.make_trial_ids("data")(seed) != config.make_trial_ids("other")(seed)
