from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.curves import read_curve
from dirtune.results.figures._arms import select_arms, select_lines
from dirtune.results.tables.table import ArmRow, make_arm_table
from tests.results.figures.stores import write_compared_arms, write_fractions


@pytest.fixture
def rows(tmp_path: Path) -> tuple[ArmRow, ...]:
    return make_arm_table(write_compared_arms(tmp_path, arms=["none", "vanilla", "conr", "lds", "half"]), "study").rows


def test_all_arms_are_shown_if_there_is_room(rows: tuple[ArmRow, ...]) -> None:
    shown = select_arms(rows, (), reference="vanilla", most=5)

    assert (shown.arms, shown.note) == (("none", "vanilla", "conr", "lds", "half"), "")


def test_the_reference_and_the_best_on_validation_data_are_kept(rows: tuple[ArmRow, ...]) -> None:
    shown = select_arms(rows, (), reference="lds", most=3)

    assert shown.arms == ("conr", "lds", "half")
    assert shown.note == (" 3 of 5 arms are shown: the reference and those with the best mean validation objective.")


def test_an_arm_without_a_trial_is_dropped_first(rows: tuple[ArmRow, ...]) -> None:
    assert "none" not in select_arms(rows, (), reference=None, most=4).arms


def test_patterns_select_in_their_order_up_to_the_maximum(rows: tuple[ArmRow, ...]) -> None:
    assert select_arms(rows, ("l*", "conr"), reference=None, most=5).arms == ("lds", "conr")
    shown = select_arms(rows, ("*",), reference=None, most=1)
    assert shown.arms == ("conr",)
    assert shown.note.endswith("1 of 5 arms are shown: those with the best mean validation objective.")


def test_all_unknown_patterns_are_reported(rows: tuple[ArmRow, ...]) -> None:
    with pytest.raises(InputError) as caught:
        select_arms(rows, ("comr", "l*", "x*"), reference=None, most=5)
    assert [fault.got for fault in caught.value.faults] == ["comr", "x*"]


def test_lines_are_selected_up_to_the_maximum_and_other_trials_counted(tmp_path: Path) -> None:
    curve = read_curve(write_fractions(tmp_path), "study", "data.fraction")

    assert [line.label for line in select_lines(curve, ("c*",), most=1).lines] == ["conr"]
    cut = select_lines(curve, (), most=1)
    assert [line.label for line in cut.lines] == ["vanilla"]
    assert cut.left_out == {"failed": 1, "of arms beyond the first 1": 8}
    assert select_lines(curve, (), most=2) == curve
    with pytest.raises(InputError, match="unknown arm, got 'x'; known: conr, vanilla"):
        select_lines(curve, ("x",), most=2)
