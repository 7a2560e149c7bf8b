"""Run with `pytest tests/test_nested.py`."""

from __future__ import annotations

from dirtune.nested import get_leaf, iter_leaves, merge, nest


def test_a_mapping_with_another_name_is_replaced_and_others_are_merged() -> None:
    base = {"encoder": {"name": "cnn", "channels": 8}, "recipe": {"epochs": 3, "batch_size": 4}}
    over = {"encoder": {"name": "mlp"}, "recipe": {"epochs": 5}}
    assert merge(base, over) == {"encoder": {"name": "mlp"}, "recipe": {"epochs": 5, "batch_size": 4}}
    assert merge({"encoder": {"name": "cnn", "channels": 8}}, {"encoder": {"channels": 9}}) == {
        "encoder": {"name": "cnn", "channels": 9}
    }


def test_a_dotted_path_leads_to_a_leaf() -> None:
    assert nest("a.b.c", 1) == {"a": {"b": {"c": 1}}}
    assert get_leaf({"a": {"b": 2}}, "a.b") == 2
    assert get_leaf({"a": {"b": 2}}, "a.c") is get_leaf({"a": 1}, "a.b") is None


def test_every_leaf_has_a_dotted_path() -> None:
    tree = {"a": {"b": 2, "c": {"d": [1, 2]}}, "e": None, "f": {}}
    assert list(iter_leaves(tree)) == [("a.b", 2), ("a.c.d", [1, 2]), ("e", None)]
    assert all(get_leaf(tree, path) == value for path, value in iter_leaves(tree))
