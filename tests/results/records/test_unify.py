"""Run with `pytest tests/results/records/test_unify.py`."""

from __future__ import annotations

import pyarrow as pa

from dirtune.results.records.unify import unify


def test_a_missing_column_is_null_and_columns_keep_their_order() -> None:
    rows = unify([pa.table({"a": [1]}), pa.table({"b": ["x"], "a": [2]})])

    assert rows.column_names == ["a", "b"]
    assert rows.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_integers_and_floats_are_promoted_to_double() -> None:
    rows = unify([pa.table({"a": [1]}), pa.table({"a": [0.5]}), pa.table({"a": [2]})])

    assert rows.schema.field("a").type == pa.float64()
    assert rows["a"].to_pylist() == [1.0, 0.5, 2.0]


def test_null_is_promoted_to_any_type() -> None:
    rows = unify([pa.table({"a": pa.nulls(1)}), pa.table({"a": [True]}), pa.table({"b": pa.nulls(1)})])

    assert rows.schema.field("a").type == pa.bool_()
    assert rows["a"].to_pylist() == [None, True, None]


def test_other_clashing_types_are_promoted_to_text_in_their_column_only() -> None:
    tables = [
        pa.table({"a": ["auto"], "n": [1]}),
        pa.table({"a": [10], "n": [0.5]}),
        pa.table({"a": [True], "n": [2]}),
        pa.table({"a": pa.nulls(1), "n": [3]}),
    ]

    rows = unify(tables)

    assert rows["a"].to_pylist() == ["auto", "10", "true", None]
    assert rows["n"].to_pylist() == [1.0, 0.5, 2.0, 3.0]


def test_many_tables_become_one_chunk() -> None:
    rows = unify([pa.table({"a": [i]}) for i in range(200)])

    assert rows["a"].num_chunks == 1
    assert rows["a"].to_pylist() == list(range(200))
