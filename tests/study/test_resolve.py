"""Run with `pytest tests/study/test_resolve.py`."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.nested import merge
from dirtune.study.resolve import load_study, resolve

STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "Does it?",
    "reference": "vanilla",
    "seeds": [0, 1],
    "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}},
    "arms": {"vanilla": {}, "conr": {"model": {"projection_dim": 32}, "terms": {"conr": {"omega": 2.0}}}},
}


def study(**changes: Any) -> dict[str, Any]:
    return merge(copy.deepcopy(STUDY), changes)


def faults_of(raw: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(raw, where="tiny.yaml")
    return [str(fault) for fault in caught.value.faults]


def test_every_arm_is_a_full_configuration_with_the_objective_of_the_study() -> None:
    resolved = resolve(study(objective={"metric": "rmse", "region": "few"}), where="t")
    vanilla, conr = resolved.arms
    assert (vanilla.name, conr.name) == ("vanilla", "conr")
    assert vanilla.config.terms.get_active() == {}
    assert conr.config.terms.get_active()["conr"].omega == 2.0
    assert conr.config.objective.name == "val/few/rmse"
    assert conr.with_seed(5).seed == 5


def test_axes_cross_every_arm_with_every_combination() -> None:
    axes = {"model.projection_dim": [None, 8], "recipe.epochs": [1, 2]}
    resolved = resolve(
        study(arms={"conr": None}, axes=axes, reference="x")
        | {"arms": {"vanilla": {}}, "reference": "projection_dim=null epochs=1"},
        where="t",
    )
    assert [arm.name for arm in resolved.arms] == [
        "projection_dim=null epochs=1",
        "projection_dim=null epochs=2",
        "projection_dim=8 epochs=1",
        "projection_dim=8 epochs=2",
    ]
    assert resolved.arms[3].config.model.projection_dim == 8
    assert resolved.arms[3].config.recipe.epochs == 2
    assert resolved.arms[3].axis_values == {"model.projection_dim": 8, "recipe.epochs": 2}


def test_the_name_of_an_arm_precedes_its_axis_values() -> None:
    resolved = resolve(study(axes={"recipe.epochs": [1, 2]}, reference="vanilla epochs=1"), where="t")
    assert [arm.name for arm in resolved.arms] == [
        "vanilla epochs=1",
        "vanilla epochs=2",
        "conr epochs=1",
        "conr epochs=2",
    ]


def test_a_setting_is_tuned_in_the_arms_that_have_it() -> None:
    space = {
        "terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 5},
        "model.projection_dim": {"distribution": "choice", "values": [16, 32]},
        "alpha": {"distribution": "loguniform", "low": 0.1, "high": 10, "arms": ["conr"]},
    }
    resolved = resolve(study(space=space, search={"trials": 7}), where="t")
    vanilla, conr = resolved.arms
    assert vanilla.space == {}
    assert set(conr.space) == set(space)
    # One per seed
    assert resolved.count_trials(vanilla) == 2
    assert resolved.count_trials(conr) == 7


def test_a_finite_space_has_no_more_trials_than_configurations() -> None:
    space = {"model.projection_dim": {"distribution": "choice", "values": [16, 32]}}
    resolved = resolve(study(space=space, search={"trials": 7}), where="t")
    assert resolved.count_trials(resolved.arms[1]) == 2


def test_tuned_settings_replace_those_of_the_arm() -> None:
    arm = resolve(study(), where="t").arms[1]
    config = arm.with_settings({"terms.conr.omega": 4.0, "model.projection_dim": 8}, seed=9)
    assert (config.terms.get_active()["conr"].omega, config.model.projection_dim, config.seed) == (4.0, 8, 9)


def test_all_faults_are_reported_at_once_each_with_its_key() -> None:
    raw = study(
        arms={"conr": {"terms": {"comr": {}}}, "big": {"model": {"encoder": {"name": "vgg"}}}},
        seeds=[1, 1],
        reference="vanila",
        recipe={},
    )
    faults = faults_of(raw)
    assert any("recipe: unknown key" in text for text in faults)
    del raw["recipe"]
    faults = faults_of(raw)
    assert any("arms.conr.terms.comr: unknown key" in text and "conr" in text for text in faults)
    assert any("arms.big.model.encoder.name: unknown name, got 'vgg'; known: bilstm" in text for text in faults)
    assert any("seeds: has a duplicate seed" in text for text in faults)
    assert any("reference: unknown arm, got 'vanila'" in text and "'vanilla'" in text for text in faults)


@pytest.mark.parametrize("arms", [5e-324, True, "a", [], ["a"]])
def test_arms_that_are_no_mapping_are_a_fault_beside_others(arms: object) -> None:
    raw = {"name": "s", "question": "?", "reference": "a", "seeds": [0], "arms": arms, "": 2**63}
    with pytest.raises(InputError) as caught:
        resolve(raw, where="s")
    faults = {fault.key: fault.rule for fault in caught.value.faults}
    assert faults == {"''": "must be within 64 bits, less than 2**63", "arms": "must be a mapping"}


def test_every_wrong_seed_is_named() -> None:
    raw = {"name": "s", "question": "?", "reference": "a", "seeds": [-1, 1.0, True, 2], "arms": {"a": {}}}
    with pytest.raises(InputError) as caught:
        resolve(raw, where="s")
    assert [fault.key for fault in caught.value.faults if fault.key.startswith("seeds")] == [
        "seeds.0",
        "seeds.1",
        "seeds.2",
    ]


def test_wrong_sections_do_not_hide_the_faults_of_the_arms() -> None:
    raw = {
        "name": "bad",
        "question": ["a"],
        "seeds": 0,
        "seed": 3,
        "reference": "vanila",
        "objective": {"metric": "mea"},
        "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}, "label_scale": "60"}},
        "arms": {"vanilla": {}, "conr": {"terms": {"conr": {"omga": 2}}}},
        "space": {"terms.conr.tau": {"distribution": "uniform", "low": 3, "high": 1}},
    }
    with pytest.raises(InputError) as caught:
        resolve(raw, where="bad.yaml")
    faults = {fault.key: fault.rule for fault in caught.value.faults}
    assert set(faults) == {
        "question",
        "seeds",
        "seed",
        "reference",
        "objective.metric",
        "base.model.label_scale",
        "arms.conr.terms.conr.omga",
        "space.terms.conr.tau",
    }
    assert faults["base.model.label_scale"] == "should be a valid number or 'auto'"
    assert len(caught.value.faults) == len(faults)


def test_a_fault_of_the_base_is_reported_once() -> None:
    raw = study(base={"recipe": {"epochs": "ten"}})
    assert faults_of(raw) == ["tiny.yaml: base.recipe.epochs: should be a valid integer, got 'ten'"]


def test_two_arms_with_equal_configurations_are_rejected() -> None:
    assert "arms.again: is the same configuration as arm 'vanilla'" in faults_of(study(arms={"again": {}}))[0]


def test_two_arms_that_differ_only_in_tuned_settings_are_rejected() -> None:
    terms = STUDY["arms"]["conr"]["terms"]
    raw = study(
        arms={"big": {"model": {"projection_dim": 64}, "terms": terms}},
        space={"model.projection_dim": {"distribution": "choice", "values": [32, 64]}},
    )
    message = "arms.big: differs only in tuned settings from arm 'conr'"
    assert faults_of(raw) == [f"tiny.yaml: {message}"]
    own = {**raw["space"]["model.projection_dim"], "arms": ["conr"]}
    assert len(resolve({**raw, "space": {"model.projection_dim": own}}, where="t").arms) == 3


@pytest.mark.parametrize(
    ("path", "distribution", "message"),
    [
        ("terms.accon.tau", {"distribution": "uniform", "low": 1, "high": 2}, "no arm has this setting"),
        ("terms.conr.omega", {"distribution": "uniform", "low": 3, "high": 4}, "excludes the value"),
        ("terms.conr.omega", {"distribution": "uniform", "low": 4, "high": 3}, "low < high must hold"),
        ("terms.conr.omega", {"distribution": "loguniform", "low": 0, "high": 3}, "low > 0 must hold"),
        ("terms.conr.tau", {"distribution": "uniform", "low": -1, "high": 3}, "should be greater than 0"),
        ("terms.conr.tau", {"distribution": "normal"}, "unknown distribution, got 'normal'; known: choice"),
        ("terms.conr.tau", {"distribution": "uniform", "low": 0.01, "high": 1, "arms": ["x"]}, "unknown arm"),
    ],
)
def test_an_invalid_distribution_is_reported_with_its_path(
    path: str, distribution: dict[str, Any], message: str
) -> None:
    assert any(f"space.{path}" in text and message in text for text in faults_of(study(space={path: distribution})))


@pytest.mark.parametrize("path", ["recipe.epochs", "recipe.steps_per_epoch"])
def test_epochs_are_not_tuned_under_a_scheduler_that_counts_them(path: str) -> None:
    changes = {"base": {"recipe": {"steps_per_epoch": 8}}, "search": {"scheduler": {"name": "asha"}}}
    space = {path: {"distribution": "int", "low": 5, "high": 20}}
    assert "cannot be tuned under a scheduler" in faults_of(study(space=space, **changes))[0]


def test_a_worker_has_one_gpu_at_most_and_a_group_whole_ones() -> None:
    for gpus in (1.5, 2):
        assert (
            "resources.gpus: a worker trains on one GPU at most; for more"
            in faults_of(study(resources={"gpus": gpus}))[0]
        )
    shared = study(resources={"gpus": 0.5, "workers": 2})
    assert "resources: a trial of several workers needs whole GPUs" in faults_of(shared)[0]
    assert resolve(study(resources={"gpus": 1, "workers": 2}), where="t").resources.workers == 2
    assert resolve(study(resources={"gpus": 0.25}), where="t").resources.gpus == 0.25


def test_a_setting_is_either_compared_or_tuned() -> None:
    raw = study(
        axes={"terms.conr.omega": [2.0]},
        space={"terms.conr.omega": {"distribution": "uniform", "low": 1, "high": 4}},
        reference="conr omega=2.0",
    )
    assert any(
        "is already an axis" in text for text in faults_of({**raw, "arms": {"conr": raw["arms"]["conr"], "x": {}}})
    )


def test_a_study_must_be_a_mapping() -> None:
    assert faults_of([1]) == ["tiny.yaml: a study must be a mapping, got 'list'"]


def test_the_shipped_search_tunes_the_hyperparameters_of_the_papers() -> None:
    arms = {arm.name: set(arm.space) for arm in load_study("digits_search").arms}
    assert arms["vanilla"] == set()
    assert {"alpha", "terms.conr.beta", "terms.conr.omega", "terms.conr.tau"} <= arms["conr"]
    assert {"terms.accon.gamma", "terms.accon.tau", "terms.accon.epsilon", "model.projection_dim"} <= arms["accon"]


def test_a_distribution_can_depend_on_the_value_of_an_axis() -> None:
    axes = {"model.projection_dim": [8, 16]}
    distribution = {"distribution": "uniform", "low": 0.5, "high": 4.0}
    raw = study(
        reference="vanilla projection_dim=8",
        axes=axes,
        space={"terms.conr.omega": {**distribution, "when": {"model.projection_dim": [16]}}},
    )
    resolved = resolve(raw, where="t")
    assert [arm.name for arm in resolved.searched_arms] == ["conr projection_dim=16"]


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"recipe.epochs": [1]}, "space.terms.conr.omega.when.recipe.epochs: is not an axis"),
        ({"model.projection_dim": [9]}, "is not a value of this axis, got 9; known: 16, 8"),
    ],
)
def test_a_condition_needs_an_axis_and_one_of_its_values(when: dict[str, Any], message: str) -> None:
    distribution = {"distribution": "uniform", "low": 0.5, "high": 4.0, "when": when}
    raw = study(
        reference="vanilla projection_dim=8",
        axes={"model.projection_dim": [8, 16]},
        space={"terms.conr.omega": distribution},
    )
    assert any(message in fault for fault in faults_of(raw))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"confirm": True}, "search.tuning_seed: is missing: a confirmed search"),
        (
            {"confirm": True, "tuning_seed": 1},
            "search.tuning_seed: must not be one of `seeds`, which evaluate the selected configuration, got 1",
        ),
        ({"tuning_seed": 9}, "search.tuning_seed: has no effect without `confirm: true`"),
    ],
)
def test_a_confirmed_search_needs_a_seed_of_its_own(search: dict[str, Any], message: str) -> None:
    assert any(message in fault for fault in faults_of(study(search=search)))


def test_a_confirmed_search_has_its_budget_and_the_seeds() -> None:
    space = {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 5}}
    search = {"trials": 7, "confirm": True, "tuning_seed": 9}
    found = resolve(study(space=space, search=search), where="t")
    vanilla, conr = found.arms
    assert (found.count_trials(vanilla), found.count_trials(conr)) == (2, 7 + 2)
    assert (found.get_budget(vanilla), found.get_budget(conr)) == (0, 7)
    assert (found.tuning_seed, found.get_seeds(conr)) == (9, (0, 1))
    plain = resolve(study(space=space, search={"trials": 7}), where="t")
    assert (plain.tuning_seed, plain.get_seeds(plain.arms[1])) == (0, (0,))


def test_a_grid_needs_a_finite_space_and_names_the_continuous_settings() -> None:
    space = {
        "terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 5},
        "model.projection_dim": {"distribution": "int", "low": 8, "high": 64},
    }
    raw = study(space=space, search={"sampler": "grid"})
    assert faults_of(raw) == [
        "tiny.yaml: search.sampler: grid needs finite spaces, but these settings are continuous: terms.conr.omega"
    ]


def test_secondary_objectives_are_distinct_and_exclude_a_scheduler() -> None:
    space = {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 5}}
    few = {"metric": "mae", "region": "few"}
    assert resolve(study(space=space, secondary=[few]), where="t").secondary[0].region == "few"
    assert any(
        "secondary: has a duplicate objective" in fault for fault in faults_of(study(space=space, secondary=[few, few]))
    )
    for name in ("asha", "median"):
        faults = faults_of(study(space=space, secondary=[few], search={"scheduler": {"name": name}}))
        assert "search.scheduler: stops trials by the objective alone" in faults[0]


def test_search_settings_without_a_search_are_rejected() -> None:
    raw = study(search={"confirm": True, "tuning_seed": 9}, secondary=[{"metric": "mae", "region": "few"}])
    rule = "has no effect: no arm has tuned settings"
    assert faults_of(raw) == [f"tiny.yaml: {key}: {rule}" for key in ("search.confirm", "secondary")]
