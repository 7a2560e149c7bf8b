"""Expansion of studies into arms: `pytest tests/study/test_expand.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.nested import get_leaf
from dirtune.results.analysis.arms import read_study_runs
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.records.studies import read_study
from dirtune.study.expand import compose
from dirtune.study.resolve import ResolvedStudy, resolve
from tests.tuning.simulated_sweep import STUDY, SimulatedSweep, of_arm, omega

PARTS = {"projection": {"model": {"projection_dim": 8}}, "conr": {"methods": ["conr"]}, "accon": {"methods": "accon"}}


def derived(reference: str = "base", **changes: Any) -> ResolvedStudy:
    raw = {
        "name": "tiny",
        "question": "Does it?",
        "reference": reference,
        "seeds": [0],
        "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}},
        "parts": PARTS,
    }
    return resolve(raw | changes, where="tiny.yaml")


def names(study: ResolvedStudy) -> list[str]:
    return [arm.name for arm in study.arms]


def test_a_ladder_adds_one_part_after_another() -> None:
    study = derived(derive={"ladder": ["projection", "accon", "conr"]})
    assert names(study) == ["base", "projection", "projection+accon", "projection+conr+accon"]
    last = study.arms[-1].config
    assert set(last.terms.get_active()) == {"conr", "accon"}
    assert last.model.projection_dim is not None


def test_parts_are_added_alone_and_left_out_alone() -> None:
    parts = ["projection", "conr", "accon"]
    assert names(derived(derive={"add_one_in": parts})) == ["base", *parts]
    study = derived(derive={"leave_one_out": parts})
    assert names(study) == ["base", "projection+conr+accon", "conr+accon", "projection+accon", "projection+conr"]


def test_pairs_have_what_an_interaction_is_computed_from() -> None:
    study = derived(derive={"pairs": ["projection", "conr", "accon"]})
    assert names(study) == ["base", "projection", "conr", "accon", "projection+conr", "projection+accon", "conr+accon"]


def test_two_derivations_share_an_arm() -> None:
    study = derived(derive={"add_one_in": ["conr", "accon"], "ladder": ["conr", "accon"]})
    assert names(study) == ["base", "conr", "conr+accon", "accon"]


def test_one_factor_varies_each_setting_alone_around_the_reference() -> None:
    factors = {"terms.conr.omega": [0.5, 2.0], "terms.conr.beta": [0, 4.0], "loss.name": ["mse"]}
    study = derived("conr", derive={"add_one_in": ["conr"], "one_factor": factors})
    reference = next(arm for arm in study.arms if arm.name == "conr").config.to_plain()
    varied = {arm.name: arm.config.to_plain() for arm in study.arms if arm.name.startswith("conr ")}
    assert list(varied) == ["conr omega=0.5", "conr omega=2.0", "conr beta=0", "conr beta=4.0", 'conr name="mse"']
    assert get_leaf(varied["conr omega=0.5"], "terms.conr.omega") == 0.5
    assert get_leaf(varied["conr beta=0"], "terms.conr.omega") == get_leaf(reference, "terms.conr.omega")
    assert get_leaf(varied["conr beta=0"], "terms.conr.beta") == 0


def test_a_derived_arm_that_equals_another_arm_is_merged_into_it() -> None:
    study = derived(
        "vanilla",
        arms={"vanilla": {}},
        derive={"add_one_in": ["conr"], "one_factor": {"recipe.epochs": [5, 7]}},
        base={"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}, "recipe": {"epochs": 5}},
    )
    assert names(study) == ["vanilla", "conr", "vanilla epochs=7"]
    assert study.merged_arms == {"base": "vanilla", "vanilla epochs=5": "vanilla"}


def test_a_named_arm_replaces_a_derived_arm_of_the_same_name() -> None:
    study = derived(arms={"base": {"recipe": {"epochs": 3}}}, derive={"add_one_in": ["conr"]})
    assert names(study) == ["base", "conr"]
    assert study.arms[0].config.recipe.epochs == 3


def test_factors_with_the_same_last_key_are_named_by_their_path() -> None:
    factors = {"terms.conr.tau": [0.5], "terms.accon.tau": [0.5], "terms.conr.beta": [0.5]}
    study = derived("conr+accon", derive={"ladder": ["conr", "accon"], "one_factor": factors})
    assert names(study)[3:] == [
        "conr+accon terms.conr.tau=0.5",
        "conr+accon terms.accon.tau=0.5",
        "conr+accon beta=0.5",
    ]


def test_derived_arms_are_crossed_with_the_axes() -> None:
    study = derived("base epochs=1", derive={"add_one_in": ["conr"]}, axes={"recipe.epochs": [1, 2]})
    assert names(study) == ["base epochs=1", "base epochs=2", "conr epochs=1", "conr epochs=2"]


@pytest.mark.parametrize(
    ("derive", "message"),
    [
        ({"ladder": ["conr", "con"]}, "derive.ladder: unknown part, got 'con'; known: accon"),
        ({"pairs": ["conr", "conr"]}, "derive.pairs: has a duplicate value"),
        ({"one_factor": {"recipe.epochs": [2, 2]}}, "derive.one_factor.recipe.epochs: has a duplicate value"),
        ({"one_factor": {"recipe.epoch": [2]}}, "recipe.epoch: unknown key"),
        ({"add_all": ["conr"]}, "derive.add_all: unknown key"),
    ],
)
def test_an_invalid_derivation_is_reported_with_its_key(derive: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        derived(derive=derive)


def test_a_composition_has_all_methods_and_the_later_settings() -> None:
    first = {"methods": "conr", "recipe": {"epochs": 2, "batch_size": 8}}
    second = {"methods": ["accon", "lds"], "recipe": {"epochs": 3}}
    assert compose([first, second]) == {"methods": ["conr", "accon", "lds"], "recipe": {"epochs": 3, "batch_size": 8}}


SPACE = {
    **STUDY["space"],
    "terms.conr.beta": {"distribution": "loguniform", "low": 0.01, "high": 10.0},
    "model.projection_dim": {"distribution": "int", "low": 2, "high": 64, "arms": ["wide"]},
}


def change_transfer(transfer: str, **changes: Any) -> dict[str, Any]:
    return {"space": SPACE, "search": {**STUDY["search"], "transfer": transfer}, **changes}


def resolve_transfer(transfer: str, **changes: Any) -> ResolvedStudy:
    return resolve({**STUDY, **change_transfer(transfer, **changes)}, where="test")


def test_both_adds_a_transfer_variant_of_every_tuned_arm() -> None:
    found = resolve_transfer("both")
    assert [arm.name for arm in found.arms] == ["vanilla", "conr", "wide", "wide@transfer"]
    assert [arm.name for arm in found.searched_arms] == ["conr", "wide"]
    transferred = found.arms[3]
    assert transferred.transferred_settings == ("terms.conr.omega", "terms.conr.beta")
    assert [found.count_trials(arm) for arm in found.arms] == [2, 4 + 2, 4 + 2, 2]
    assert found.to_plain()["transfers"] == {"wide@transfer": list(transferred.transferred_settings)}


def test_only_searches_the_reference_arm() -> None:
    found = resolve_transfer("only")
    assert [arm.name for arm in found.searched_arms] == ["conr"]
    assert [found.count_trials(arm) for arm in found.arms] == [2, 4 + 2, 2]


def test_an_arm_without_shared_settings_is_trained_with_its_own() -> None:
    space = {**SPACE, "alpha": {"distribution": "uniform", "low": 0.5, "high": 2.0, "arms": ["vanilla"]}}
    found = resolve_transfer("only", space=space)
    assert [arm.name for arm in found.fixed_arms] == ["vanilla"]
    assert [arm.name for arm in resolve_transfer("both", space=space).arms] == [
        "vanilla",
        "conr",
        "wide",
        "wide@transfer",
    ]


@pytest.mark.parametrize(("transfer", "arm"), [("both", "wide@transfer"), ("only", "wide")])
def test_a_transfer_variant_is_trained_with_the_selection_of_the_reference_on_all_seeds(
    tmp_path: Path, transfer: str, arm: str
) -> None:
    found = SimulatedSweep(tmp_path)
    jobs = found.sweep(**change_transfer(transfer))
    selected = [job for job in of_arm(jobs, "conr") if job.replicate == 0]
    taken = of_arm(jobs, arm)
    assert [(job.replicate, job.config.seed) for job in taken] == [(0, 3), (1, 4)]
    assert {omega(job.config) for job in taken} == {omega(selected[0].config)}
    # Its own
    assert {job.config.model.projection_dim for job in taken} == {8}
    assert found.sweep(**change_transfer(transfer)) == []
    info = read_study(found.folder)
    arms = {each.arm: each for each in read_study_runs(found.folder, info, SELECTIONS["best_val"]).arms}
    assert set(arms[arm].chosen) == {3, 4}


def test_a_longer_search_of_the_reference_updates_the_transfer_variants(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    few, many = change_transfer("only"), change_transfer("only")
    few["search"] = {**few["search"], "trials": 1}
    many["search"] = {**many["search"], "trials": 8}
    before = {omega(job.config) for job in of_arm(found.sweep(**few), "wide")}
    assert found.find_reuse(**many).orphaned == frozenset()
    after = {omega(job.config) for job in of_arm(found.sweep(**many), "wide")}
    assert len(after) == 1
    assert after != before
    assert len(found.read_trials("wide")) == 2
    assert found.find_reuse(**many).orphaned == frozenset()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "vanilla"}, "search.transfer: needs a reference arm with tuned settings"),
        (
            {"search": {"transfer": "both"}},
            "search.transfer: needs `confirm: true`, which trains the configuration selected in the reference arm",
        ),
        (
            {"arms": {**STUDY["arms"], "wide@transfer": {"alpha": 2.0}}},
            "arms.wide@transfer: is the name of an arm that `search.transfer` adds",
        ),
    ],
)
def test_an_impossible_transfer_is_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_transfer("both", **changes)
    assert any(message in str(fault) for fault in caught.value.faults)
