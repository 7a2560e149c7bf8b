"""Run with `pytest tests/study/test_files.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.study.files import StudyFile, find_study
from dirtune.study.resolve import load_study, resolve

OWN = """
name: mine
question: Does it help?
reference: vanilla
seeds: [0]
base: {model: {encoder: {name: cnn}}, recipe: {epochs: 2}}
arms: {vanilla: {}}
variants:
  digits: {}
  faces: {base: {recipe: {epochs: 5}}, seeds: [1, 2]}
"""


def test_a_mistyped_study_is_also_looked_for_among_the_files_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "houses_methods.yaml").write_text("name: houses_methods\n")
    monkeypatch.chdir(tmp_path)
    for typed in ("houses_method", "house_methods.yaml"):
        with pytest.raises(InputError, match=r"did you mean 'houses_methods\.yaml'"):
            find_study(typed)


def test_an_unknown_study_lists_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"unknown study .*got 'quikstart'; known: .*did you mean 'quickstart'"):
        find_study("quikstart")


def test_a_study_is_found_by_the_path_of_its_file(tmp_path: Path) -> None:
    assert find_study(str(tmp_path / "x.yaml")).path == tmp_path / "x.yaml"


def test_a_variant_of_a_user_file_is_selected_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    study = load_study(f"{path}:faces")
    assert (study.name, study.seeds) == ("faces_mine", (1, 2))
    (arm,) = study.arms
    assert (arm.config.data.name, arm.config.recipe.epochs) == ("faces", 5)
    (arm,) = load_study(f"{path}:digits").arms
    assert (arm.config.data.name, arm.config.recipe.epochs) == ("digits", 2)


def test_a_variant_written_out_is_a_complete_study(tmp_path: Path) -> None:
    path, alone = tmp_path / "mine.yaml", tmp_path / "alone.yaml"
    path.write_text(OWN)
    alone.write_text(find_study(f"{path}:faces").read_yaml())
    assert find_study(str(alone)).read_yaml() == alone.read_text()
    assert load_study(str(alone)).to_plain() == load_study(f"{path}:faces").to_plain()


def test_a_file_with_variants_needs_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    with pytest.raises(InputError, match=r"choose one as FILE:NAME; known: digits, faces"):
        load_study(str(path))
    with pytest.raises(InputError, match=r"choose one as FILE:NAME, got 'face'; known: digits, faces"):
        load_study(f"{path}:face")
    path.write_text(OWN.partition("variants")[0])
    with pytest.raises(InputError, match=r"has no variants, got 'digits'"):
        load_study(f"{path}:digits")


def test_faults_of_a_variant_name_the_variant(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace("epochs: 5", "epoch: 5"))
    file = StudyFile(path=path, variant="faces")
    with pytest.raises(InputError, match=r"mine\.yaml:faces: base\.recipe\.epoch: unknown key"):
        resolve(file.read_plain(), where=file.where)


def test_changes_reach_keys_with_dots() -> None:
    axis = {"distribution": "uniform", "low": 0.1, "high": 1.0}
    study = {"name": "s", "arms": {"a": {}, "b.c": {"recipe": {"epochs": 2}}}, "space": {"recipe.learning_rate": axis}}
    changes = {
        "arms.b.c.recipe.epochs": 3,
        "arms.d": {"alpha": 2},
        "axes.recipe.epochs": [1, 2],
        "space.recipe.learning_rate.low": 0.2,
        "space.terms.conr.omega": axis,
        "derive.one_factor.model.dropout": [0.1],
    }
    assert find_study(study, changes).read_plain() == {
        "name": "s",
        "arms": {"a": {}, "b.c": {"recipe": {"epochs": 3}}, "d": {"alpha": 2}},
        "axes": {"recipe.epochs": [1, 2]},
        "space": {"recipe.learning_rate": axis | {"low": 0.2}, "terms.conr.omega": axis},
        "derive": {"one_factor": {"model.dropout": [0.1]}},
    }


def test_a_change_below_an_unknown_arm_is_refused_and_a_whole_one_is_added() -> None:
    study = {"name": "s", "arms": {"vanilla": {}, "conr": {}}}
    with pytest.raises(InputError) as caught:
        find_study(study, {"arms.cnor.terms.conr.beta": 1})
    assert str(caught.value) == (
        "changes: arms.cnor.terms.conr.beta: is not there to be changed; a new one is given whole, as arms.NAME={...}, "
        "got 'cnor'; known: conr, vanilla (did you mean 'conr'?)"
    )
    assert find_study(study, {"arms.new": {"loss": None}}).read_plain()["arms"].keys() == {"vanilla", "conr", "new"}


def test_a_change_that_changes_nothing_is_refused() -> None:
    study = {"name": "s", "base": {"alpha": 1}, "arms": {"a": {"alpha": 2}, "b": {}}}
    with pytest.raises(InputError, match=r"changes: arms\.a: {} changes nothing"):
        find_study(study, {"arms.a": {}})
    assert find_study(study, {"arms.c": {}}).read_plain()["arms"] == {"a": {"alpha": 2}, "b": {}, "c": {}}
