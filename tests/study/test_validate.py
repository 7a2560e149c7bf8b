"""Run with `pytest tests/study/test_validate.py`."""

from __future__ import annotations

from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.nested import merge
from dirtune.study.resolve import resolve

STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "?",
    "reference": "vanilla",
    "seeds": [0, 1],
    "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}},
    "arms": {"vanilla": {}, "conr": {"terms": {"conr": {"omega": 2.0}}}},
}
OMEGA = {"distribution": "uniform", "low": 0.5, "high": 5.0}


def faults_of(**changes: Any) -> list[str]:
    """What is wrong with the study after these keys have been replaced."""
    with pytest.raises(InputError) as caught:
        resolve({**STUDY, **changes}, where="t")
    return [str(fault) for fault in caught.value.faults]


def test_a_sequential_study_that_can_add_no_seed_is_rejected_with_every_reason() -> None:
    found = faults_of(seeds=[0], sequential={"most_seeds": 3}, arms={"vanilla": {}})
    assert found == [
        "t: sequential: needs an arm to compare with the reference",
        "t: seeds: the first look needs at least two seeds, got [0]",
    ]
    assert faults_of(seeds=[0, 1, 2], sequential={"most_seeds": 3}) == [
        "t: sequential.most_seeds: must be more than the 3 of `seeds`, or no seed can be added, got 3"
    ]
    assert faults_of(**searched(), sequential={"most_seeds": 3}) == [
        "t: sequential: needs arms without a search, but conr would be searched"
    ]


def test_a_claim_is_of_a_known_metric_and_region_and_has_a_readable_margin() -> None:
    region, metric = faults_of(claim={"region": "rare", "metric": "mea"})
    assert region.startswith("t: claim.metric: ")
    assert metric.startswith("t: claim.region: ")
    assert "all, many, medium, few" in metric
    assert faults_of(claim={"margin": "two"})[0].startswith("t: claim.margin: must be a share")
    assert faults_of(claim={"margin": "0%"})[0].startswith("t: claim.margin: must be a share")
    (share,) = faults_of(claim={"metric": "pearson", "margin": "2%"})
    assert share.startswith("t: claim.margin: a share of pearson says nothing where it is near zero")
    for margin, text in (("5%", "5%"), (0.5, "0.5"), (1, "1")):
        assert resolve({**STUDY, "claim": {"margin": margin}}, where="t").to_plain()["claim"]["margin"] == text


def test_every_removed_option_is_named_in_one_sentence_with_the_faults_of_the_rest() -> None:
    found = faults_of(
        resources={"fuse": "auto", "memory_retries": 3, "cpus": 0},
        search={"sampler": "cmaes", "scheduler": {"name": "pbt", "interval": 2}, "population": 4},
        sequential={"most_seeds": 5, "compare": {"region": "few"}, "margin": 0.05},
    )
    *removed, other = found
    assert [text.split(",")[0].removesuffix("; use `tpe` or `gp`") for text in removed] == [
        "t: resources.fuse: was removed",
        "t: resources.memory_retries: was removed",
        "t: search.population: was removed",
        "t: search.scheduler: was removed",
        "t: search.sampler: was removed",
        "t: sequential.compare: was removed: seeds are added until the study's `claim` is settled; set it there",
        "t: sequential.margin: was removed: set `margin` of the study's `claim`",
    ]
    assert other.startswith("t: resources.cpus: ")
    assert "recipe.accumulation" in removed[1]


def test_what_replaces_a_removed_option_is_accepted() -> None:
    search = {"sampler": "tpe", "scheduler": {"name": "asha"}, "trials": 3}
    assert resolve({**STUDY, **searched(), "search": search}, where="t").search.sampler == "tpe"


def searched(**condition: Any) -> dict[str, Any]:
    return {"space": {"terms.conr.omega": {**OMEGA, **condition}}}


def test_all_faults_are_reported_at_once_with_key_and_known_names() -> None:
    found = faults_of(
        reference="vanila",
        seeds=[1, 1],
        arms={**STUDY["arms"], "sown": {"seed": 3, "alpha": 2.0}},
        space={
            "terms.conr.omega": {**OMEGA, "low": 3.0},
            "terms.accon.tau": {"distribution": "uniform", "low": 0.1, "high": 1.0},
            "alpha": {"distribution": "uniform", "low": 0.0, "high": 1.5, "when": {"loss.name": ["l1"]}},
        },
    )
    assert [text.split(" (did")[0].split("; known: alpha,")[0] for text in found] == [
        "t: reference: unknown arm, got 'vanila'; known: conr, sown, vanilla",
        "t: seeds: has a duplicate seed, got [1, 1]",
        "t: arms.sown.seed: is set by the study's own `seeds`",
        "t: space.alpha.when.loss.name: is not an axis",
        "t: space.terms.conr.omega: excludes the value of arm 'conr', got 2.0",
        "t: space.terms.accon.tau: no arm has this setting",
    ]


def test_a_study_without_arms_is_rejected_without_a_fault_of_its_reference() -> None:
    assert faults_of(arms={}) == ["t: arms: there is no arm, neither named nor derived"]


def test_derived_arms_are_arms() -> None:
    derived = {
        "arms": {},
        "parts": {"mse": {"loss": {"name": "mse"}}},
        "derive": {"add_one_in": ["mse"]},
        "reference": "base",
    }
    assert [arm.name for arm in resolve({**STUDY, **derived}, where="t").arms] == ["base", "mse"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"axes": {"alpha": []}}, "axes.alpha"), ({"derive": {"one_factor": {"alpha": []}}}, "derive.one_factor.alpha")],
)
def test_an_axis_without_values_is_rejected(changes: dict[str, Any], key: str) -> None:
    assert faults_of(**changes) == [f"t: {key}: has no values"]


@pytest.mark.parametrize("path", ["recipe..epochs", "recipe.epochs.", ".alpha", "recipe. epochs", ""])
def test_an_axis_whose_path_is_none_is_one_fault(path: str) -> None:
    rule = f"must be the dotted path of a setting, such as recipe.epochs, got {path!r}"
    assert faults_of(axes={path: [1]}) == [f"t: axes.{path}: {rule}" if path else f"t: axes: {rule}"]
    key = f"derive.one_factor.{path}" if path else "derive.one_factor"
    assert faults_of(derive={"one_factor": {path: [1]}}) == [f"t: {key}: {rule}"]


@pytest.mark.parametrize("values", [[2, 2.0], [1, 1.0]])
def test_an_axis_that_changes_nothing_is_rejected(values: list[float]) -> None:
    rule = "changes nothing: all its values give the same configurations"
    assert faults_of(axes={"alpha": values}, reference=f"vanilla alpha={values[0]}") == [
        f"t: axes.alpha: {rule}, got {values}"
    ]


def test_an_axis_may_change_some_of_the_arms_only() -> None:
    axes = {"alpha": [1.0, 2.0], "recipe.epochs": [10, 20]}
    resolved = resolve({**STUDY, "axes": axes, "reference": "vanilla alpha=1.0 epochs=10"}, where="t")
    assert len(resolved.arms) == 8


def test_derived_arms_do_not_hide_an_axis_that_changes_nothing() -> None:
    derived = {
        "arms": {},
        "parts": {"mse": {"loss": {"name": "mse"}}},
        "derive": {"add_one_in": ["mse"]},
        "axes": {"alpha": [1, 1.0]},
        "reference": "base alpha=1",
    }
    (text,) = faults_of(**derived)
    assert text.startswith("t: axes.alpha: changes nothing")


@pytest.mark.parametrize(
    ("changes", "key", "owner"),
    [
        ({"base": merge(STUDY["base"], {"seed": 1})}, "base.seed", "seeds"),
        ({"base": merge(STUDY["base"], {"objective": {}})}, "base.objective", "objective"),
        ({"parts": {"sown": {"seed": 1}}}, "parts.sown.seed", "seeds"),
        ({"axes": {"seed": [1, 2]}, "reference": "vanilla seed=1"}, "axes.seed", "seeds"),
        (
            {"axes": {"objective.metric": ["mae", "rmse"]}, "reference": 'vanilla metric="mae"'},
            "axes.objective.metric",
            "objective",
        ),
        ({"derive": {"one_factor": {"seed": [1]}}}, "derive.one_factor.seed", "seeds"),
        ({"space": {"seed": {"distribution": "int", "low": 0, "high": 9}}}, "space.seed", "seeds"),
    ],
)
def test_settings_of_the_whole_study_are_rejected_elsewhere(changes: dict[str, Any], key: str, owner: str) -> None:
    assert faults_of(**changes)[0] == f"t: {key}: is set by the study's own `{owner}`"


@pytest.mark.parametrize(
    ("axes", "condition", "text"),
    [
        ({}, {"when": {"alpha": [1.0]}}, "t: space.terms.conr.omega.when.alpha: is not an axis"),
        (
            {"alpha": [1.0, 2.0]},
            {"when": {"alpha": [3.0]}},
            "t: space.terms.conr.omega.when.alpha: is not a value of this axis, got 3.0; known: 1.0, 2.0 "
            "(did you mean '2.0'?)",
        ),
        (
            {"alpha": [1.0, 2.0]},
            {"when": {"alpha": []}},
            "t: space.terms.conr.omega.when.alpha: has no values: the setting would never be tuned",
        ),
        (
            {},
            {"arms": ["vanilla"]},
            "t: space.terms.conr.omega: is tuned in no arm: `arms` and `when` exclude every arm that "
            "has this setting; known: conr",
        ),
        (
            {"alpha": [1.0, 2.0]},
            {"arms": ["conr alpha=1.0"], "when": {"alpha": [2.0]}},
            "t: space.terms.conr.omega: is tuned in no arm: `arms` and `when` exclude every arm that "
            "has this setting; known: conr alpha=1.0, conr alpha=2.0",
        ),
        (
            {},
            {"arms": ["comr"]},
            "t: space.terms.conr.omega.arms: unknown arm, got 'comr'; known: conr, vanilla (did you mean 'conr'?)",
        ),
    ],
)
def test_a_condition_that_cannot_hold_is_one_fault(axes: dict[str, Any], condition: dict[str, Any], text: str) -> None:
    reference = "vanilla alpha=1.0" if axes else "vanilla"
    found = faults_of(axes=axes, reference=reference, **searched(**condition))
    assert found == [text]


def test_an_unknown_metric_or_region_is_reported_with_the_known_ones() -> None:
    first, second = faults_of(objective={"metric": "mea", "region": "rare"})
    assert first.startswith("t: objective.metric: must be one of ")
    assert " mae, " in first
    assert first.endswith("got 'mea'")
    assert second == "t: objective.region: must be one of all, many, medium, few, got 'rare'"


def test_duplicate_and_missing_seeds_are_rejected() -> None:
    assert faults_of(seeds=[3, 1, 3]) == ["t: seeds: has a duplicate seed, got [3, 1, 3]"]
    assert "t: seeds: " in faults_of(seeds=[])[0]


def test_a_distribution_that_excludes_the_value_of_an_arm_is_rejected() -> None:
    arms = {**STUDY["arms"], "strict": {"terms": {"conr": {"omega": 9.0, "tau": 0.3}}}}
    assert faults_of(arms=arms, **searched()) == [
        "t: space.terms.conr.omega: excludes the value of arm 'strict', got 9.0"
    ]


def test_a_study_that_could_never_be_listed_is_refused_at_once() -> None:
    values = list(range(1, 3001))
    wide = {"arms": {"a": {}}, "reference": "a", "axes": {"recipe.epochs": values, "recipe.batch_size": values}}
    assert faults_of(**wide) == ["t: axes: a study has at most 10,000 arms, got 9,000,000"]
    parts = {f"p{number}": {} for number in range(3000)}
    paired = {"parts": parts, "derive": {"pairs": list(parts)}, "arms": {"a": {}}, "reference": "a"}
    assert faults_of(**paired) == ["t: derive: a study has at most 10,000 arms, got 4,501,501"]
    many = {"arms": {f"a{number}": {} for number in range(6)}, "reference": "a0", "seeds": list(range(200_000))}
    assert faults_of(**many) == ["t: seeds: a study has at most 1,000,000 trials, got 6 arms with 200,000 seeds"]
    added = {"arms": {f"a{number}": {} for number in range(11)}, "reference": "a0", "seeds": [0, 1]}
    assert faults_of(**added, sequential={"most_seeds": 100_000}) == [
        "t: seeds: a study has at most 1,000,000 trials, got 11 arms with 100,000 seeds"
    ]


@pytest.mark.parametrize("key", [".ame", "recipe.epochs", "a.b.c", ".", "\x00"])
def test_an_unknown_key_with_dots_is_one_fault(key: str) -> None:
    (fault,) = faults_of(**{key: 3})
    assert "unknown key" in fault


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "\u0430"),
        ("HAM", "\u041d\u0410\u041c"),
        ("OMEGA", "\u039f\u039c\u0395GA"),
        ("a-b", "a\u2013b"),
        ("a b", "a  b"),
        ("a'", "a\u2019"),
        ("a", "a\ufe0f"),
    ],
)
def test_names_that_a_reader_cannot_tell_apart_are_refused(one: str, other: str) -> None:
    found = faults_of(reference=one, arms={one: {}, other: {"terms": {"conr": {}}}})
    assert found == [f"t: arms: the name looks like {one!r}, got {other!r}"]


@pytest.mark.parametrize(
    ("parts", "derive", "name"),
    [
        (("x+y", "x", "y"), {"add_one_in": ["x+y"], "leave_one_out": ["x", "y"]}, "x+y"),
        (("base",), {"add_one_in": ["base"]}, "base"),
    ],
)
def test_parts_whose_compositions_would_share_a_name_are_refused(
    parts: tuple[str, ...], derive: dict[str, Any], name: str
) -> None:
    overlays = {part: {"alpha": 2.0 + place} for place, part in enumerate(parts)}
    (found,) = faults_of(parts=overlays, derive=derive)
    assert found.startswith(f"t: parts: the derived arm {name!r} would be made of ")
