"""Run with `pytest tests/results/records/test_studies.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.records.studies import ArmPlan, StudyInfo, open_studies, read_study
from tests.results.record_factory import record, write_study


def test_a_study_is_a_folder_with_a_study_file_or_with_trials(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)], name="recorded")
    write_study(tmp_path, [], name="begun", reference="a")
    (tmp_path / "something else").mkdir()

    assert list(open_studies(tmp_path)) == ["begun", "recorded"]
    assert list(open_studies(tmp_path, ["recorded"])) == ["recorded"]


def test_a_missing_root_and_a_root_without_a_study_are_refused(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no study"):
            open_studies(root)


def test_unknown_studies_are_all_named(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)], name="quickstart")

    with pytest.raises(InputError, match=r"quickstrat.*did you mean 'quickstart'") as caught:
        open_studies(tmp_path, ["quickstrat", "quickstart", "other"])

    assert [fault.got for fault in caught.value.faults] == ["quickstrat", "other"]


def test_a_study_without_a_study_file_has_empty_facts(tmp_path: Path) -> None:
    assert read_study(write_study(tmp_path, [record("a", 0)])) == StudyInfo(name="study")


def test_an_empty_study_file_equals_a_missing_one(tmp_path: Path) -> None:
    assert read_study(write_study(tmp_path, [], planned=None)) == StudyInfo(name="study")


def test_fixed_arms_plan_all_seeds_and_searched_arms_the_first(tmp_path: Path) -> None:
    info = read_study(
        write_study(
            tmp_path,
            [],
            arms=["plain", "tuned"],
            seeds=[3, 5],
            spaces={"tuned": {}},
            trials={"plain": 2, "tuned": 20},
            objective={"metric": "mse", "region": "few"},
            data={"name": "digits", "label": {"unit": "degrees"}},
        )
    )

    assert info.plans == {"plain": ArmPlan(seeds=(3, 5), trials=2), "tuned": ArmPlan(seeds=(3,), trials=20)}
    assert (info.metric, info.region, info.data, info.unit) == ("mse", "few", "digits", "degrees")


def test_planned_trials_have_ids(tmp_path: Path) -> None:
    planned = [
        {"arm": "a", "seed": 1, "replicate": 1, "trial_id": "x"},
        {"arm": "a", "seed": 0, "replicate": 0, "trial_id": "y"},
    ]
    info = read_study(write_study(tmp_path, [], arms=["a"], seeds=[0, 1, 2], planned=planned))

    assert info.plans["a"] == ArmPlan(seeds=(0, 1), trial_ids=frozenset({"x", "y"}))


@pytest.mark.parametrize(("content", "message"), [(b"{", "not readable"), (b"[]", "JSON object")])
def test_a_broken_study_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    storage = write_study(tmp_path, [record("a", 0)])
    storage.write("study.json", content)

    with pytest.raises(InputError, match=f"study.json: .*{message}"):
        read_study(storage)
