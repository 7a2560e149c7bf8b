"""Run with `pytest tests/study/test_written_values.py`: a study is what its file says, or one sentence says why not."""

from __future__ import annotations

import pytest

from dirtune.errors import InputError
from dirtune.io.yamlfile import parse_yaml
from dirtune.study.resolve import ResolvedStudy, resolve

HEAD = """
name: tiny
question: Does it run?
base: {data: {name: digits}, model: {encoder: {name: cnn}}}
"""


def _resolve(text: str, head: str = HEAD) -> ResolvedStudy:
    return resolve(parse_yaml(head + text, where="t"), where="t")


def _faults(text: str, head: str = HEAD) -> list[str]:
    with pytest.raises(InputError) as caught:
        _resolve(text, head)
    return [str(fault) for fault in caught.value.faults]


def test_numbers_with_zeros_before_them_are_decimal() -> None:
    study = _resolve("reference: a\nseeds: [007, 010, 011, 08]\narms: {a: {recipe: {epochs: 010}, loss: {name: mse}}}")
    assert study.seeds == (7, 10, 11, 8)
    assert study.arms[0].config.recipe.epochs == 10


def test_times_are_no_numbers() -> None:
    assert _faults("reference: a\nseeds: [1:00]\narms: {a: {}}") == [
        "t: seeds.0: should be a valid integer, got '1:00'"
    ]


def test_arms_and_parts_have_the_names_that_are_written() -> None:
    study = _resolve(
        """
reference: no
seeds: [0]
arms: {no: {}, null: {recipe: {epochs: 2}}, y: {recipe: {epochs: 3}}, 1: {recipe: {epochs: 4}}, 1.0: {recipe: {epochs: 5}}}
parts: {on: {terms: {conr: {}}}}
derive: {add_one_in: [on]}
"""
    )
    assert [arm.name for arm in study.arms] == ["no", "null", "y", "1", "1.0", "on"]
    assert study.reference == "no"


def test_a_name_that_yaml_reads_as_a_number_says_how_to_write_it() -> None:
    (fault,) = _faults("reference: 1\nseeds: [0]\narms: {1: {}}")
    assert fault == "t: reference: should be a valid string (write it in quotes), got 1"


def test_dates_are_texts() -> None:
    head = HEAD.replace("Does it run?", "2024-01-05")
    study = _resolve("reference: 2024-01-05\nseeds: [0]\narms: {2024-01-05: {}}", head)
    assert (study.question, study.reference) == ("2024-01-05", "2024-01-05")


def test_arms_may_share_settings_by_merge_keys() -> None:
    study = _resolve(
        """
reference: base
seeds: [0]
arms:
  base: {}
  conr: &conr {terms: {conr: {omega: 2.0}}}
  again: {<<: *conr, loss: {name: mse}}
"""
    )
    assert study.arms[2].config.terms == study.arms[1].config.terms
    assert study.arms[2].config.loss.name == "mse"


def test_an_arm_with_nothing_behind_its_name_has_no_settings_of_its_own() -> None:
    study = _resolve("reference: base\nseeds: [0]\narms:\n  base:\n  conr: {terms: {conr: {}}}\n")
    assert [arm.name for arm in study.arms] == ["base", "conr"]
    assert not study.arms[0].config.terms.get_active()


@pytest.mark.parametrize(
    "text",
    [
        "arms: {base: {}, a: {model: {projection_dim: 8}, terms: {conr: }}}",
        "arms: {base: {}, a: {reweighting: {scheme: inverse, lds: }}}",
        "parts: {a: {model: {projection_dim: 8}, terms: {conr: }}}\nderive: {add_one_in: [a]}",
    ],
)
def test_a_term_with_nothing_behind_its_name_is_no_arm_without_it(text: str) -> None:
    (fault,) = _faults(f"reference: base\nseeds: [0]\n{text}\n")
    assert "null is an arm without it, as base is; write {} for its default settings" in fault


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("''", "a name must not be blank"),
        ("' '", "a name must not be blank"),
        ("'median (floor)'", "names that end with (floor) are those of predictions without a training run"),
        ("' a'", "must not begin or end with a blank"),
        (r'"a\nb"', "must not begin or end with a blank, or have line breaks"),
        (r'"a\u200bb"', "or have line breaks or invisible characters"),
        (r'"a\u202eb"', "or have line breaks or invisible characters"),
        ("x" * 201, "at most 200 characters"),
    ],
)
def test_names_that_a_table_cannot_show_are_refused(name: str, rule: str) -> None:
    (fault,) = _faults(f"reference: base\nseeds: [0]\narms: {{base: {{}}, ? {name} : {{loss: {{name: mse}}}}}}")
    assert fault.startswith("t: arms: ")
    assert rule in fault


def test_names_that_look_alike_are_refused() -> None:
    (fault,) = _faults(
        'reference: base\nseeds: [0]\narms: {base: {}, "é": {loss: {name: mse}}, "e\u0301": {alpha: 2.0}}'
    )
    assert "the name looks like 'é'" in fault


def test_axes_with_one_last_key_are_told_apart_by_their_paths() -> None:
    study = _resolve(
        """
reference: terms.conr.tau=0.1 terms.accon.tau=0.1
seeds: [0]
arms: {both: {terms: {conr: {}, accon: {}}}}
axes: {terms.conr.tau: [0.1, 0.2], terms.accon.tau: [0.1, 0.2]}
"""
    )
    assert [arm.name for arm in study.arms][:2] == [
        "terms.conr.tau=0.1 terms.accon.tau=0.1",
        "terms.conr.tau=0.1 terms.accon.tau=0.2",
    ]


@pytest.mark.parametrize("written", ["tau=0.1 tau=0.2", "terms.conr.tau=0.1 terms.accon.tau=0.2"])
def test_a_reference_may_be_written_with_last_keys_if_one_arm_is_meant(written: str) -> None:
    text = (
        f"reference: {written}\n"
        + """
seeds: [0]
arms: {both: {terms: {conr: {}, accon: {}}}}
axes: {terms.conr.tau: [0.1, 0.2], terms.accon.tau: [0.1, 0.2]}
"""
    )
    assert _resolve(text).reference == "terms.conr.tau=0.1 terms.accon.tau=0.2"


def test_a_named_arm_replaces_a_derived_one_of_the_same_name() -> None:
    study = _resolve(
        """
reference: base
seeds: [0]
arms: {base: {}, base alpha=2.0: {alpha: 3.0}}
derive: {one_factor: {alpha: [2.0, 4.0]}}
"""
    )
    assert {arm.name: arm.config.alpha for arm in study.arms}["base alpha=2.0"] == 3.0


@pytest.mark.parametrize("values", ["[1, 1.0, 0.5]", "[0.1, 1e-1]", "[2, 2]", "[true, true]", "[a, a]"])
def test_a_choice_with_a_value_twice_is_refused(values: str) -> None:
    (fault,) = _faults(
        "reference: a\nseeds: [0]\narms: {a: {terms: {conr: {}}}}\n"
        f"space: {{terms.conr.beta: {{distribution: choice, values: {values}}}}}"
    )
    assert "values must differ, also as numbers: 1 and 1.0 are the same" in fault


def test_a_list_in_a_choice_is_one_sentence() -> None:
    (fault,) = _faults(
        "reference: a\nseeds: [0]\narms: {a: {}}\n"
        "space: {model.encoder.hidden: {distribution: choice, values: [[8, 8]]}}"
    )
    assert fault.endswith("values.0: must be a number, a text, true, false or null, got [8, 8]")


@pytest.mark.parametrize(
    "where",
    ["seeds: [0, {seed}]", "seeds: [0]\nsearch: {{seed: {seed}}}", "seeds: [0]\nsearch: {{tuning_seed: {seed}}}"],
)
@pytest.mark.parametrize("seed", [2**63, 2**64, -1])
def test_seeds_that_no_record_can_hold_are_refused_before_anything_is_trained(where: str, seed: int) -> None:
    faults = _faults(f"reference: a\n{where.format(seed=seed)}\narms: {{a: {{}}}}")
    assert len(faults) == 1
    assert "seed" in faults[0]
    assert _resolve(f"reference: a\nseeds: [{2**63 - 1}]\narms: {{a: {{}}}}").seeds == (2**63 - 1,)


def test_added_seeds_must_fit_into_a_record_too() -> None:
    faults = _faults(
        f"reference: a\nseeds: [0, {2**63 - 2}]\nsequential: {{most_seeds: 9}}\narms: {{a: {{}}, b: {{alpha: 2.0}}}}"
    )
    assert any("leaves no seeds to add" in fault for fault in faults)


@pytest.mark.parametrize("distribution", ["uniform", "int"])
def test_ranges_without_an_end_are_refused(distribution: str) -> None:
    low, high = (-(2 * 10**18), 10**18) if distribution == "int" else (-1e300, 1e300)
    (fault,) = _faults(
        "reference: a\nseeds: [0]\narms: {a: {terms: {conr: {}}}}\n"
        f"space: {{terms.conr.beta: {{distribution: {distribution}, low: {low!r}, high: {high!r}}}}}"
    )
    assert "low and high must be within 1e+18" in fault


@pytest.mark.parametrize(
    ("study", "fault"),
    [
        ("seeds: []\narms: {a: {}}", "seeds: must not be empty, got []"),
        (f"seeds: [0]\narms: {{a: {{recipe: {{epochs: {10**20}}}}}}}", "recipe.epochs: must be within 64 bits"),
        ('seeds: [0]\narms: {a: {}, "\\ud83d": {}}', "half of a character"),
    ],
)
def test_values_that_cannot_be_recorded_are_one_sentence(study: str, fault: str) -> None:
    assert fault in " ".join(_faults(f"reference: a\n{study}"))


def test_texts_of_python_that_no_file_can_hold_are_named() -> None:
    with pytest.raises(InputError, match=r"question: has half of a character"):
        resolve({"name": "tiny", "question": "\ud83d", "seeds": [0], "reference": "a", "arms": {"a": {}}}, where="t")


def _bomb(levels: int) -> str:
    lines = ["x0: &x0 {a: 1}"] + [
        f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9)}]" for level in range(1, levels)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [_bomb(9), _bomb(30), "arms: " + "[" * 300 + "]" * 300, "arms: " + "{a: " * 200 + "1" + "}" * 200]
)
def test_hostile_files_are_one_short_sentence(text: str) -> None:
    (fault,) = _faults(text)
    assert "not readable as YAML (more than " in fault
    assert len(fault) < 200
