from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.records.schema import TrialRecord
from dirtune.results.report.content import Content, read_content
from tests.results.record_factory import record, write_study

TIMES = {"seconds_train": 8.0, "seconds_eval": 1.0, "seconds_data": 0.5, "seconds_overhead": None}


def with_times(one: TrialRecord) -> TrialRecord:
    ended = datetime(2026, 5, 4, 3, 2, tzinfo=UTC)
    return replace(
        one, trial={**one.trial, **TIMES, "finished_at": ended, "code_version": "0.1.0+abc", "epochs_run": 6}
    )


@pytest.fixture
def found(tmp_path: Path) -> Content:
    """A fixed and a searched arm, one that failed, and a trial that is no longer planned."""
    records = [with_times(record("vanilla", seed, 5.0 + seed)) for seed in (0, 1)]
    records += [record("conr omega=2", 0, 4.0, cell='{"terms.conr.omega": 2}')]
    records += [record("conr omega=2", 1, status="failed", error="line one\nline two")]
    records += [record("gone", 0)]
    storage = write_study(
        tmp_path,
        records,
        question="Does it help?",
        reference="vanilla",
        seeds=[0, 1],
        arms=["vanilla", "conr omega=2", "open"],
        description="In small print.",
        trials={"vanilla": 2, "conr omega=2": 2, "open": 2},
        objective={"metric": "mae", "region": "few"},
        data={"name": "digits", "unit": "degrees"},
        configs={
            "vanilla": {"recipe": {"epochs": 6, "rate": 0.002}, "terms": {}, "heads": [1, 2]},
            "conr omega=2": {
                "recipe": {"epochs": 6, "rate": 0.002},
                "heads": [1, 2],
                "terms": {"conr": {"omega": 2.0}},
            },
            "open": {"recipe": {"epochs": 9, "rate": 0.002}, "heads": [1, 2], "clip": None},
        },
        spaces={"open": {"terms.conr.beta": {"distribution": "uniform", "low": 0}}},
    )
    storage.write("provenance.json", json.dumps({"cpus": 2, "libraries": {"torch": "2.15"}}).encode())
    return read_content(tmp_path, "study")


def test_the_head_has_the_question_and_the_progress(found: Content) -> None:
    assert (found.question, found.description) == ("Does it help?", "In small print.")
    assert dict(found.summary) == {
        "trials": "4 complete, 1 failed; 6 planned",
        "arms": "3",
        "seeds": "0, 1",
        "reference": "vanilla",
        "objective": "mae in region few, on validation data",
        "data": "digits data-a",
        "last trial ended": "2026-05-04 03:02 UTC",
    }


def test_every_trial_is_listed_in_the_order_of_the_study(found: Content) -> None:
    assert [row[:4] for row in found.trials.rows] == [
        ("vanilla", "0", "vanilla-0", "complete"),
        ("vanilla", "1", "vanilla-1", "complete"),
        ("conr omega=2", "0", "conr omega=2-0", "complete"),
        ("conr omega=2", "1", "conr omega=2-1", "failed"),
        ("gone (no longer planned)", "0", "gone-0", "complete"),
    ]
    assert found.trials.rows[1][4:] == ("6", "6", "9.5")
    assert found.trials.rows[2][6] == ""


def test_failures_have_the_whole_error_and_missing_trials_their_reason(found: Content) -> None:
    (failure,) = found.failures.rows
    assert failure[:3] == ("conr omega=2", "1", "conr omega=2-1")
    assert failure[-1] == "line one\nline two"
    # A searched arm has one planned seed.
    assert set(found.holes.rows) == {
        ("conr omega=2", "1", "failed: line one"),
        ("open", "0", "not recorded"),
    }


def test_settings_of_all_arms_and_of_single_arms_are_listed_separately(found: Content) -> None:
    base, own, space = found.settings

    assert base.rows == (("recipe.rate", "0.002"), ("heads", "[1, 2]"))
    assert own.rows == (
        ("vanilla", "recipe.epochs", "6"),
        ("conr omega=2", "recipe.epochs", "6"),
        ("conr omega=2", "terms.conr.omega", "2"),
        ("open", "recipe.epochs", "9"),
        ("open", "clip", "none"),
    )
    assert space.rows == (("open", "terms.conr.beta", '{"distribution": "uniform", "low": 0}'),)
    assert found.varied == ("terms.conr.beta", "terms.conr.omega")


def test_provenance_is_that_of_the_sweep_and_of_its_trials(found: Content) -> None:
    assert found.provenance.rows == (
        ("cpus", "2"),
        ("libraries.torch", "2.15"),
        ("trials: code_version", "0.1.0+abc"),
        ("trials: data_fingerprint", "data-a"),
    )


def test_an_empty_study_has_only_missing_trials(tmp_path: Path) -> None:
    write_study(tmp_path, [], arms=["a", "b"], reference="a", seeds=[0])

    found = read_content(tmp_path, "study")

    assert dict(found.summary)["trials"] == "none recorded; 2 planned"
    assert found.trials.rows == found.failures.rows == ()
    assert found.holes.rows == (("a", "0", "not recorded"), ("b", "0", "not recorded"))


def test_trials_without_a_study_are_enough(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])

    found = read_content(tmp_path, "study")

    assert len(found.trials.rows) == 1
    assert [listing.rows for listing in found.settings] == [(), (), ()]


def test_an_unknown_study_is_an_error(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])

    with pytest.raises(InputError, match="unknown study, got 'x'; known: study"):
        read_content(tmp_path, "x")
