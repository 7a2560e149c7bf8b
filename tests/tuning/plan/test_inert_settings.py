"""Run with `pytest tests/tuning/plan/test_inert_settings.py`."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.data.cache import ResidentData
from dirtune.losses.accon import ACCon
from dirtune.nested import merge
from dirtune.study.resolve import resolve
from dirtune.study.space import Choice, Integer, Uniform
from dirtune.tuning.plan.inert_settings import SettingEffect, get_ends, measure_setting_effects
from tests.training.conftest import SETTINGS

PROJECTED = {"projection_dim": 4}
ACCON = {"model": PROJECTED, "terms": {"accon": {"gamma": 0.5}}}


def look(toy: ResidentData, arms: dict[str, Any], **changes: Any) -> dict[str, SettingEffect]:
    """The findings of a study by arm, or by arm and setting."""
    raw = {
        "name": "tiny",
        "question": "?",
        "reference": "vanilla",
        "seeds": [0],
        "base": SETTINGS,
        "arms": {"vanilla": {}, **arms},
    }
    found = measure_setting_effects(resolve(merge(raw, changes), where="test"), toy)
    return {f"{each.arm} {each.setting}".strip(): each for each in found}


def uniform(low: float, high: float) -> dict[str, Any]:
    return {"distribution": "uniform", "low": low, "high": high}


def choice(*values: Any) -> dict[str, Any]:
    return {"distribution": "choice", "values": list(values)}


@pytest.mark.parametrize(
    "arm",
    [
        {"alpha": 0.5, "terms": {"accon": {}}},
        {"loss": {"name": "mse"}},
        {"reweighting": {"scheme": "inverse"}},
        {"model": PROJECTED},
        {"terms": {"conr": {"omega": 2.0}}},
        {"recipe": {"batch_size": 32}},
        {"scheme": {"name": "two_stage", "epochs": 1}, "terms": {"accon": {}}},
    ],
)
def test_a_method_changes_the_gradient(toy: ResidentData, arm: dict[str, Any]) -> None:
    found = look(toy, {"other": arm})
    assert (found["other"].change.kind, found["other"].is_inert) == ("gradient", False)
    assert found["other"].change.size > 1e-3
    # The reference is compared with nothing
    assert "vanilla" not in found


@pytest.mark.parametrize(
    "recipe",
    [{"learning_rate": 0.1}, {"weight_decay": 0.1}, {"optimizer": "sgd"}, {"optimizer": "adamw", "weight_decay": 0.1}],
)
def test_a_recipe_changes_the_updates(toy: ResidentData, recipe: dict[str, Any]) -> None:
    found = look(toy, {"other": {"recipe": recipe}})
    assert found["other"].change.kind == "updates"
    assert str(found["other"]) == "arm other changes the updates (against vanilla)"


@pytest.mark.parametrize(
    ("arm", "later"),
    [
        ({"recipe": {"epochs": 4}}, ("epochs", "learning rate")),
        ({"recipe": {"schedule": {"name": "cosine"}}}, ("learning rate",)),
        ({"recipe": {"gradient_clip": 1e6}}, ("gradient clipping",)),
        ({"recipe": {"steps_per_epoch": 9}}, ("steps per epoch",)),
        ({"recipe": {"early_stopping": {"patience": 2}}}, ("early stopping",)),
        ({"recipe": {"last_batch": "drop"}}, ("last batch",)),
        ({"scheme": {"name": "rrt", "epochs": 2}}, ("epochs", "learning rate")),
        ({"data": {"shot_rule": "no_few"}}, ("shot regions",)),
        ({"reweighting": {"fds": {}}, "recipe": {"epochs": 3}}, ("feature smoothing",)),
    ],
)
def test_settings_that_act_later_are_not_inert(toy: ResidentData, arm: dict[str, Any], later: tuple[str, ...]) -> None:
    found = look(toy, {"other": arm})["other"]
    assert (found.change.kind, found.change.later, found.is_inert) == ("later", later, False)
    assert str(found) == (f"arm other changes nothing at first, but later: {', '.join(later)} (against vanilla)")


@pytest.mark.parametrize(
    "arm",
    [
        {"recipe": {"name": "renamed", **SETTINGS["recipe"]}},
        # Of an optimizer that has none
        {"recipe": {"momentum": 0.5}},
        {"model": {**PROJECTED, "predictor_input": "embedding"}},
        {"terms": {"accon": {"gamma": 0.0}}},
        # After the last epoch
        {"recipe": {"schedule": {"name": "steps", "milestones": [3]}}},
        # Of epochs 0, 1 and 2
        {"reweighting": {"fds": {"start_smooth": 3}}},
    ],
)
def test_an_arm_that_trains_like_the_reference_is_inert(toy: ResidentData, arm: dict[str, Any]) -> None:
    found = look(toy, {"other": arm})["other"]
    assert found.is_inert
    assert str(found) == "arm other changes neither loss nor gradient (against vanilla)"


def test_an_arm_is_compared_with_arms_of_the_same_first_loss(toy: ResidentData) -> None:
    arms = {
        "accon": ACCON,
        "mse": {"loss": {"name": "mse"}},
        "unread": {**ACCON, "recipe": {"momentum": 0.1}},
        "slower": {**ACCON, "recipe": {"learning_rate": 1e-4}},
    }
    found = look(toy, arms)
    assert [name for name in found if found[name].is_inert] == ["unread"]
    assert found["unread"].compared == "against accon"
    # Against the reference
    assert found["slower"].change.kind == "gradient"


def test_the_ends_of_a_distribution_are_compared_in_the_arm(toy: ResidentData) -> None:
    space = {
        "terms.accon.tau": uniform(0.05, 1.0),
        "model.projection_dim": choice(4, 6, 8),
        "recipe.learning_rate": uniform(0.001, 0.01),
        "recipe.epochs": {"distribution": "int", "low": 1, "high": 3},
    }
    found = look(toy, {"accon": ACCON}, space=space)
    kinds = {name: each.change.kind for name, each in found.items() if name.startswith("accon ")}
    assert kinds == {
        "accon terms.accon.tau": "gradient",
        "accon model.projection_dim": "gradient",
        "accon recipe.learning_rate": "updates",
        "accon recipe.epochs": "later",
    }
    assert found["accon model.projection_dim"].compared == "4 against 8"


def test_the_dimension_of_an_unused_projection_is_inert(toy: ResidentData) -> None:
    model = {**PROJECTED, "predictor_input": "embedding"}
    arms = {"beside": {"model": model, "loss": {"name": "mse"}}}
    found = look(toy, arms, space={"model.projection_dim": choice(4, 8)})
    assert not found["beside"].is_inert
    assert str(found["beside model.projection_dim"]) == (
        "arm beside: setting model.projection_dim changes neither loss nor gradient (4 against 8)"
    )


def test_a_setting_without_effect_is_inert(toy: ResidentData, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"terms.accon.epsilon": uniform(1e-8, 1e-2), "terms.accon.tau": uniform(0.05, 1.0)}
    assert not look(toy, {"accon": ACCON}, space=space)["accon terms.accon.epsilon"].is_inert

    whole = ACCon.__call__

    def deaf(self: ACCon, inputs: TermInputs) -> Tensor:
        return whole(self.model_copy(update={"epsilon": 1e-6}), inputs)

    monkeypatch.setattr(ACCon, "__call__", deaf)
    found = look(toy, {"accon": ACCON}, space=space)
    assert [str(each) for each in found.values() if each.is_inert] == [
        "arm accon: setting terms.accon.epsilon changes neither loss nor gradient (1e-08 against 0.01)"
    ]


def test_a_constant_in_the_loss_is_inert(toy: ResidentData, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ACCon.__call__

    def shifted(self: ACCon, inputs: TermInputs) -> Tensor:
        return whole(self.model_copy(update={"epsilon": 1e-6}), inputs) + self.epsilon

    monkeypatch.setattr(ACCon, "__call__", shifted)
    space = {"terms.accon.epsilon": uniform(1e-6, 1.0)}
    found = look(toy, {"accon": ACCON}, space=space)["accon terms.accon.epsilon"]
    assert found.change.kind == "constant"
    assert found.is_inert


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_scale_of_the_gradient_is_inert_if_the_optimizer_undoes_it(toy: ResidentData, optimizer: str) -> None:
    found = scaled(toy, {"optimizer": optimizer})
    assert str(found) == (
        "arm mse: setting alpha only scales the gradient, which the optimizer undoes (0.5 against 2.0)"
    )


@pytest.mark.parametrize("recipe", [{"optimizer": "sgd"}, {"weight_decay": 1e-6}])
def test_a_scale_of_the_gradient_acts_under_sgd_and_with_weight_decay(
    toy: ResidentData, recipe: dict[str, Any]
) -> None:
    found = scaled(toy, recipe)
    assert (found.change.kind, found.change.size) == ("gradient", pytest.approx(0.75, abs=1e-4))


def test_a_scale_hidden_by_clipping_acts_later(toy: ResidentData) -> None:
    assert scaled(toy, {"gradient_clip": 1e-9}).change.later == ("gradient clipping",)


def scaled(toy: ResidentData, recipe: dict[str, Any]) -> SettingEffect:
    """What the weight of the only part of a loss changes."""
    arms, space = {"mse": {"loss": {"name": "mse"}}}, {"alpha": {**uniform(0.5, 2.0), "arms": ["mse"]}}
    return look(toy, arms, space=space, base={"recipe": recipe})["mse alpha"]


def test_an_inert_setting_is_compared_again_with_other_settings_at_their_upper_ends(toy: ResidentData) -> None:
    off = {"model": PROJECTED, "terms": {"accon": {"gamma": 0.0}}, "loss": {"name": "mse"}}
    space = {"terms.accon.gamma": uniform(0.0, 1.0), "terms.accon.tau": uniform(0.05, 1.0)}
    found = look(toy, {"off": off}, space=space)
    # Where gamma is 1
    assert found["off terms.accon.tau"].change.kind == "gradient"
    alone = look(toy, {"off": off}, space={"terms.accon.tau": uniform(0.05, 1.0)})
    assert alone["off terms.accon.tau"].is_inert


def test_a_choice_of_one_value_is_inert(toy: ResidentData) -> None:
    found = look(toy, {"accon": ACCON}, space={"model.projection_dim": choice(4)})
    assert found["accon model.projection_dim"].is_inert


def test_every_distribution_has_two_ends() -> None:
    assert get_ends(Choice(distribution="choice", values=("a", "b", "c"))) == ("a", "c")
    assert get_ends(Integer(distribution="int", low=1, high=7)) == (1, 7)
    assert get_ends(Uniform(distribution="uniform", low=0.5, high=2.0)) == (0.5, 2.0)
