from __future__ import annotations

from typing import Any

import pytest

from dirtune.results.analysis.parts import Lattice, make_lattice
from dirtune.study.resolve import load_study
from tests.results.figures.stores import BUILT, make_configuration

CONFIGS = {arm: make_configuration(parts) for arm, (parts, _) in BUILT.items()}
LDS, HEAD, CONR = "scheme=sqrt_inverse, lds", "projection_dim=128", "conr"


def state(*parts: str) -> frozenset[str]:
    return frozenset(parts)


def test_arms_are_known_by_their_settings_whatever_their_names_say() -> None:
    found = make_lattice(CONFIGS, "plain", "everything")

    assert [*found.parts] == [HEAD, CONR, LDS]
    assert found.arms == {
        state(): "plain",
        state(LDS): "weighted",
        state(HEAD): "head",
        state(HEAD, CONR): "contrastive",
        state(HEAD, LDS): "weighted head",
        found.top: "everything",
    }
    renamed = {f"arm {at}": config for at, config in enumerate(CONFIGS.values())}
    assert make_lattice(renamed, "arm 0", "arm 5").parts == found.parts


def test_changes_that_no_arm_takes_apart_are_one_part() -> None:
    without_head = {arm: CONFIGS[arm] for arm in ("plain", "weighted", "contrastive", "everything")}

    assert [*make_lattice(without_head, "plain", "everything").parts] == [f"{HEAD}, {CONR}", LDS]


def test_an_arm_that_changes_something_else_is_not_between_the_two() -> None:
    other: dict[str, Any] = CONFIGS["head"] | {"model": {"projection_dim": 64}}

    found = make_lattice({**CONFIGS, "narrow": other}, "plain", "everything")

    assert "narrow" not in found.arms.values()
    assert [*make_lattice({**CONFIGS, "narrow": other}, "plain", "narrow").parts] == ["projection_dim=64"]


def test_another_loss_is_one_change_and_a_setting_of_the_same_loss_another() -> None:
    configs = {
        "l1": {"loss": {"name": "l1"}},
        "huber": {"loss": {"name": "huber", "beta": 0.1}},
        "wide": {"loss": {"name": "huber", "beta": 0.5}},
    }

    assert [*make_lattice(configs, "l1", "huber").parts] == ["loss=huber"]
    assert [*make_lattice(configs, "huber", "wide").parts] == ["beta=0.5"]


def test_what_is_taken_away_is_a_part_too() -> None:
    found = make_lattice(CONFIGS, "everything", "head")

    assert [*found.parts] == ["no conr", "scheme=none, no lds"]
    assert found.arms[state("no conr")] == "weighted head"
    assert found.format_state(found.top) == "everything + no conr + scheme=none, no lds"


def test_parts_of_one_name_are_named_by_their_whole_paths() -> None:
    configs = {
        "a": {"x": {"size": 1}, "y": {"size": 1}},
        "b": {"x": {"size": 2}, "y": {"size": 1}},
        "c": {"x": {"size": 2}, "y": {"size": 2}},
    }

    assert [*make_lattice(configs, "a", "c").parts] == ["x.size=2", "y.size=2"]


def test_an_equal_arm_is_the_first_of_them_and_the_reference_has_no_part() -> None:
    found = make_lattice({"copy": CONFIGS["plain"], **CONFIGS}, "plain", "head")

    assert found.arms[state()] == "plain"
    assert found == Lattice(
        reference="plain",
        target="head",
        arms={state(): "plain", state(HEAD): "head"},
        parts={HEAD: frozenset({("model.projection_dim", "128")})},
    )


@pytest.mark.parametrize("study", ["digits_parts", "quickstart"])
def test_the_studies_that_come_along_are_taken_apart(study: str) -> None:
    plain = load_study(study).to_plain()
    target = {"digits_parts": "lds+projection+conr+accon", "quickstart": "accon_conr"}[study]

    found = make_lattice(plain["configs"], plain["reference"], target)

    expected = {"digits_parts": [HEAD, "accon", CONR, LDS], "quickstart": [HEAD, "accon", CONR]}
    assert [*found.parts] == expected[study]
