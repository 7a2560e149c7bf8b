"""One table out of many that were written at different times: the evolution of the schema, in one function.

Columns are matched by name. Arrow's permissive promotion does what is wanted for the two usual cases (a column that is
missing, integers beside floats); it refuses texts beside numbers, which a setting such as `auto | 10` produces, and
there text is the type that loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

# Tables, from which on their tiny chunks slow down whatever comes next more than a copy costs
MANY = 100


def unify(tables: Iterable[pa.Table]) -> pa.Table:
    """All rows of all tables, with the union of their columns in order of first appearance.

    A column is null where a table does not have it. Types meet: null with anything as that, int64 and double as double,
    any other two as string (numbers and booleans as Arrow prints them).
    """
    tables = [table.replace_schema_metadata(None) for table in tables]
    try:
        unified = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        clashing = _clashing_columns(tables)
        texts = [_as_text(table, clashing) for table in tables]
        unified = pa.concat_tables(texts, promote_options="permissive")
    return unified.combine_chunks() if len(tables) > MANY else unified


def _clashing_columns(tables: list[pa.Table]) -> set[str]:
    types: dict[str, set[pa.DataType]] = {}
    for schema in {table.schema for table in tables}:
        for column in schema:
            types.setdefault(column.name, set()).add(column.type)
    return {name for name, found in types.items() if not _meet(found - {pa.null()})}


def _meet(types: set[pa.DataType]) -> bool:
    numbers = (pa.types.is_integer(found) or pa.types.is_floating(found) for found in types)
    return len(types) <= 1 or all(numbers)


def _as_text(table: pa.Table, columns: set[str]) -> pa.Table:
    for position, name in enumerate(table.column_names):
        if name in columns:
            table = table.set_column(position, name, table[name].cast(pa.string()))
    return table
