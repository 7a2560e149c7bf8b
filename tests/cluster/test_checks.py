"""Run with `pytest tests/cluster/test_checks.py`."""

from __future__ import annotations

from dirtune.cluster.checks import Observation, by_value, has_problem, named


def test_only_a_problem_is_one() -> None:
    fine, odd = (Observation(subject="a", value="1"), Observation(subject="b", value="2", state="warning"))
    assert not has_problem([fine, odd])
    assert has_problem([fine, Observation(subject="c", value="3", state="problem"), odd])


def test_what_all_nodes_have_is_said_once_and_else_by_node() -> None:
    assert by_value({"a": "2.60", "b": "2.60"}) == "2.60"
    assert by_value({"a": "2.60", "b": "2.59", "c": "2.60"}) == "2.60 on a, c; 2.59 on b"
    assert by_value({}) == ""


def test_many_nodes_are_counted_after_the_fourth() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"
