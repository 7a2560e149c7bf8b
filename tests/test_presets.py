"""Run with `pytest tests/test_presets.py`: every published setting is readable, and names are replaced by settings."""

from __future__ import annotations

from typing import Any

import pytest

from dirtune.config import TrialConfig, TwoStage
from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.data.dense_views import DENSE_AUGMENTATIONS
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.nested import get_leaf, merge
from dirtune.presets import ANY, Preset, PresetUse, expand_presets, read_methods, read_recipes
from dirtune.study.resolve import resolve

NEEDS_A_TERM = {"two_stage": {"terms": {"accon": {}}, "model": {"projection_dim": 8}}}


def _settings(presets: dict[str, Preset]) -> list[Any]:
    return [pytest.param(name, data, id=f"{name}-{data}") for name, preset in presets.items() for data in preset.data]


def _config(data: str, overlay: dict[str, Any]) -> TrialConfig:
    name = "own" if data == ANY else data
    base = {"data": {"name": name}, "model": {"encoder": {"name": "mlp"}}}
    return read(TrialConfig, merge(base, expand_presets(overlay, name, where="test")), where="test")


@pytest.mark.parametrize(("method", "data"), _settings(read_methods()))
def test_every_published_setting_of_a_method_is_a_configuration(method: str, data: str) -> None:
    plain = merge(NEEDS_A_TERM.get(method, {}), {"methods": [method]})
    config = _config(data, plain).to_plain()
    for path, value in _leaves(read_methods()[method].data[data].set):
        assert get_leaf(config, path) == value, path


@pytest.mark.parametrize(("recipe", "data"), _settings(read_recipes()))
def test_every_recipe_is_a_configuration_with_a_known_augmentation(recipe: str, data: str) -> None:
    config = _config(data, {"recipe": recipe})
    assert config.recipe.name == recipe
    assert config.recipe.views.augmentation in {**AUGMENTATIONS, **DENSE_AUGMENTATIONS}


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def test_own_settings_take_precedence_over_those_of_a_preset() -> None:
    overlay = {"recipe": {"name": "dir", "epochs": 3}, "methods": ["conr"], "terms": {"conr": {"tau": 0.5}}}
    config = _config("agedb", overlay)
    assert (config.recipe.epochs, config.recipe.batch_size) == (3, 256)
    assert (config.terms.conr.tau, config.terms.conr.beta) == (0.5, 4.0)


def test_methods_are_merged_in_their_order() -> None:
    config = _config("agedb", {"methods": ["lds", "accon", "conr"]})
    assert set(config.terms.get_active()) == {"accon", "conr"}
    assert config.reweighting.lds is not None
    assert config.model.projection_dim == 512


def test_a_data_set_without_an_entry_gets_the_general_settings() -> None:
    assert _config("own", {"methods": ["lds"]}).reweighting.scheme == "sqrt_inverse"
    assert _config("sts_b", {"methods": ["lds"]}).reweighting.scheme == "inverse"


def test_a_recipe_with_another_name_is_a_label() -> None:
    assert _config("agedb", {"recipe": {"name": "mine", "epochs": 7}}).recipe.epochs == 7


def test_all_unknown_presets_are_reported_at_once_with_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        expand_presets({"recipe": "dri", "methods": ["accno", 3]}, "agedb", where="f.yaml", key="base")
    recipe, accon, number = (str(fault) for fault in caught.value.faults)
    assert recipe.startswith("f.yaml: base.recipe: unknown recipe preset, got 'dri'; known: accon")
    assert accon.endswith("(did you mean 'accon'?)")
    assert "base.methods: unknown methods preset, got 3" in number


def test_a_recipe_without_settings_for_the_data_set_is_rejected_with_the_fitting_ones() -> None:
    with pytest.raises(InputError, match=r"nothing is published on 'sts_b'.*known: accon, dir"):
        expand_presets({"recipe": "rnc"}, "sts_b", where="f.yaml")


def _study(**changes: Any) -> dict[str, Any]:
    return {
        "name": "crossed",
        "question": "Recipe or method?",
        "seeds": [0],
        "reference": "vanilla dir",
        "base": {"data": {"name": "digits"}, "model": {"projection_dim": 16, "encoder": {"name": "cnn"}}},
        "arms": {"vanilla": {}, "conr": {"methods": ["conr"]}},
        **changes,
    }


def test_a_study_crosses_methods_with_recipes() -> None:
    study = resolve(_study(axes={"recipe": ["dir", "conr"]}, reference='vanilla recipe="dir"'), where="s")
    found = {arm.name: arm.config for arm in study.arms}
    assert len(found) == 4
    assert {config.recipe.name for config in found.values()} == {"dir", "conr"}
    with_conr = found['conr recipe="conr"']
    assert with_conr.recipe.views.count == 3
    assert with_conr.terms.conr.omega == 3.0
    assert found['vanilla recipe="dir"'].terms.get_active() == {}


def test_the_published_variant_has_what_the_script_does_and_the_intended_one_is_the_default() -> None:
    betas = {
        variant: _config("imdb_wiki", {"methods": ["conr"], **variant_of}).terms.conr.beta
        for variant, variant_of in (
            ("default", {}),
            ("intended", {"presets": "intended"}),
            ("published", {"presets": "published"}),
        )
    }
    assert betas == {"default": 4.0, "intended": 4.0, "published": 8.0}
    own = {"methods": ["conr"], "presets": "published", "terms": {"conr": {"beta": 1.0}}}
    assert _config("imdb_wiki", own).terms.conr.beta == 1.0


def test_a_difference_of_one_script_holds_with_its_recipe_alone() -> None:
    for recipe, beta in (("dir", 20.0), ("accon", 0.2)):
        plain = {"recipe": recipe, "methods": ["focal_r"], "presets": "published"}
        assert _config("sts_b", plain).loss.beta == beta


@pytest.mark.parametrize(
    ("recipe", "data", "kernel"),
    [
        ("dir", "agedb", (5, 2.0)),
        ("ranksim", "agedb", (5, 2.0)),
        ("conr", "agedb", (9, 1.0)),
        ("conr", "imdb_wiki", (5, 1.0)),
        ("accon", "agedb", (9, 1.0)),
        ("accon", "imdb_wiki", (9, 1.0)),
        ("accon", "sts_b", (5, 2.0)),
    ],
)
def test_a_kernel_that_no_command_names_is_the_default_of_the_script(
    recipe: str, data: str, kernel: tuple[int, float]
) -> None:
    for variant, expected in (("published", kernel), ("intended", (5, 2.0))):
        config = _config(data, {"recipe": recipe, "methods": ["lds"], "presets": variant})
        assert (config.reweighting.lds.size, config.reweighting.lds.sigma) == expected
        if recipe != "accon":
            config = _config(data, {"recipe": recipe, "methods": ["fds"], "presets": variant})
            assert (config.reweighting.fds.size, config.reweighting.fds.sigma) == expected


def _differences(presets: dict[str, Preset]) -> list[Any]:
    return [
        pytest.param(name, data, number, id=f"{name}-{data}-{number}")
        for name, preset in presets.items()
        for data, settings in preset.data.items()
        for number in range(len(settings.published))
    ]


@pytest.mark.parametrize(("name", "data", "number"), [*_differences(read_methods()), *_differences(read_recipes())])
def test_every_difference_is_a_configuration_and_changes_one(name: str, data: str, number: int) -> None:
    is_method = (name, data, number) in {each.values for each in _differences(read_methods())}
    settings = (read_methods() if is_method else read_recipes())[name].data[data]
    difference = settings.published[number]
    # The data sets that are scaled down have no official script.
    assert data != "digits"
    recipe = {"recipe": difference.recipe or "dir"} if is_method else {"recipe": name}
    plain = {**NEEDS_A_TERM.get(name, {}), **recipe, **({"methods": name} if is_method else {}), "presets": "published"}
    encoder = {"encoder": {"name": difference.encoder}} if difference.encoder else {}
    published = _config(data, merge(plain, {"model": encoder})).to_plain()
    assert difference.recipe is None or difference.recipe in read_recipes()
    changed = [path for path, value in _leaves(difference.set) if get_leaf(published, path) == value]
    assert changed == [path for path, _ in _leaves(difference.set)]
    others = settings.model_copy(update={"published": settings.published[:number] + settings.published[number + 1 :]})
    use = PresetUse(data, "published", difference.recipe)
    assert others.get_overlay(use) != settings.get_overlay(use)


@pytest.mark.parametrize(
    ("methods", "views", "layers", "predictor_input", "output"),
    [
        ([], 1, 1, "representation", "linear"),
        (["ranksim"], 1, 1, "representation", "linear"),
        (["rnc"], 1, 1, "representation", "linear"),
        (["accon"], 2, 1, "projection", "relu"),
        (["accon", "conr"], 2, 1, "projection", "relu"),
        (["supcon"], 2, 2, "embedding", "relu"),
        (["adasupcon"], 2, 2, "embedding", "relu"),
    ],
    ids=str,
)
def test_the_rows_of_accons_table_are_those_of_its_scripts(
    methods: list[str], views: int, layers: int, predictor_input: str, output: str
) -> None:
    plain = {"recipe": "accon", "methods": methods}
    config = _config("agedb", {**plain, "presets": "published"})
    assert config.recipe.views.count == views
    assert (config.model.projection_layers, config.model.predictor_input) == (layers, predictor_input)
    assert config.model.predictor_output == output
    assert (config.recipe.epochs, config.recipe.last_batch) == (90, "drop")
    intended = _config("agedb", plain)
    assert (intended.recipe.views.count, intended.model.projection_layers) == (2, 1)


def test_accons_script_on_text_has_one_view_and_checks_with_patience() -> None:
    config = _config("sts_b", {"recipe": "accon", "methods": ["accon"], "presets": "published"})
    recipe, accon = config.recipe, config.terms.accon
    assert (recipe.views.count, config.model.encoder.name) == (1, "bilstm")
    assert (accon.variant, accon.label_decimals, accon.gamma, accon.tau) == ("official_sts", 1, 10.0, 1.0)
    assert not config.model.encoder.train_vectors
    assert (recipe.epochs, recipe.steps_per_epoch, recipe.last_batch) == (100, 400, "drop_single")
    assert (recipe.early_stopping.patience, recipe.early_stopping.rule) == (30, "newest_worst")
    assert config.objective.name == "val/all/mse"


def test_a_difference_of_one_encoder_is_left_out_with_another() -> None:
    groups = {
        encoder: _config("agedb", {"recipe": "dir", "presets": "published", "model": model}).recipe.batch_norm_groups
        for encoder, model in (("recipe's", {}), ("other", {"encoder": {"name": "mlp"}}))
    }
    assert groups == {"recipe's": 4, "other": 1}


def test_a_method_may_have_settings_of_a_recipe_in_both_variants() -> None:
    for presets in ("intended", "published"):
        plain = {"recipe": "rnc", "methods": ["rnc", "two_stage"], "presets": presets}
        assert _config("agedb", plain).scheme.epochs == 100
        assert _config("agedb", {**plain, "recipe": "accon"}).scheme.epochs == 10
        assert _config("digits", plain).scheme.epochs == 10


def test_the_three_scripts_of_rank_n_contrast_are_the_stages_of_its_recipe() -> None:
    plain = _config("agedb", {"recipe": "rnc", "presets": "published"})
    both = _config("agedb", {"recipe": "rnc", "methods": ["rnc", "two_stage"], "presets": "published"})
    assert isinstance(both.scheme, TwoStage)
    found = [
        (each.learning_rate, each.epochs, each.batch_size, each.last_batch, each.views.count)
        for each in (plain.recipe, both.recipe, both.scheme.make_recipe(both.recipe))
    ]
    assert found == [(0.2, 400, 256, "keep", 1), (0.5, 400, 256, "drop", 2), (0.05, 100, 64, "keep", 1)]


def test_arms_inherit_the_variant_of_the_base_and_an_axis_compares_both() -> None:
    base = {"data": {"name": "imdb_wiki"}, "model": {"encoder": {"name": "mlp"}}, "methods": ["conr"]}
    study = _study(
        base={**base, "presets": "published"}, reference="conr", arms={"conr": {}, "lds": {"methods": ["lds"]}}
    )
    assert [arm.config.terms.conr.beta for arm in resolve(study, where="s").arms] == [8.0, 8.0]
    axes = {"presets": ["intended", "published"]}
    study = _study(base=base, reference='presets="intended"', arms={"conr": {}}, axes=axes)
    found = resolve(study, where="s")
    assert {arm.name: arm.config.terms.conr.beta for arm in found.arms} == {
        'presets="intended"': 4.0,
        'presets="published"': 8.0,
    }
    assert found.to_plain()["presets"] == {
        f'presets="{variant}"': {"variant": variant, "recipes": [], "methods": ["conr"]}
        for variant in ("intended", "published")
    }


@pytest.mark.parametrize(
    ("base", "overlay"),
    [
        # Scaled down, without an official script
        ({"data": {"name": "digits"}, "recipe": "dir"}, {}),
        # No script is published
        ({"data": {"name": "mpiigaze"}, "model": {"encoder": {"name": "lenet"}}}, {"methods": ["conr"]}),
        # No presets
        ({"data": {"name": "agedb"}, "model": {"encoder": {"name": "mlp"}}}, {}),
    ],
    ids=["digits", "mpiigaze", "none"],
)
def test_a_published_variant_without_a_script_is_refused(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    raw = _study(base={**base, "presets": "published"}, reference="a", arms={"a": overlay})
    with pytest.raises(InputError, match=r"s: base\.presets: has no effect: no arm names a preset, or"):
        resolve(raw, where="s")
    raw["base"]["presets"] = "intended"
    assert len(resolve(raw, where="s").arms) == 1


def test_an_unknown_variant_is_one_fault_of_the_base() -> None:
    raw = _study(reference="vanilla", arms={"vanilla": {}, "b": {"alpha": -1}})
    raw["base"] = {**raw["base"], "presets": "official"}
    with pytest.raises(InputError) as caught:
        resolve(raw, where="s.yaml")
    first, second = caught.value.faults
    assert str(first) == "s.yaml: base.presets: unknown variant, got 'official'; known: intended, published"
    assert second.key == "arms.b.alpha"


def test_a_study_without_an_objective_has_that_of_its_recipe() -> None:
    base = {"data": {"name": "sts_b"}, "recipe": "dir"}
    assert resolve(_study(base=base, reference="vanilla"), where="s").objective.name == "val/all/mse"
    own = {"metric": "gmean", "region": "few"}
    assert resolve(_study(base=base, reference="vanilla", objective=own), where="s").objective.name == "val/few/gmean"
    assert resolve(_study(reference="vanilla"), where="s").objective.name == "val/all/mae"


def test_faults_of_presets_are_reported_with_the_other_faults_of_a_study() -> None:
    raw = _study(reference="vanilla", arms={"vanilla": {}, "a": {"methods": ["nope"]}, "b": {"alpha": -1}})
    with pytest.raises(InputError) as caught:
        resolve(raw, where="s.yaml")
    keys = {fault.key for fault in caught.value.faults}
    assert keys == {"arms.a.methods", "arms.b.alpha"}


def test_an_unknown_preset_in_the_base_is_reported_once() -> None:
    raw = _study(reference="vanilla")
    raw["base"] = {**raw["base"], "recipe": "nope"}
    with pytest.raises(InputError) as caught:
        resolve(raw, where="s.yaml")
    assert [fault.key for fault in caught.value.faults] == ["base.recipe"]
