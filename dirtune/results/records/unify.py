"""Schema evolution: one table from many that were written at different times.

Columns are matched by name. Arrow's permissive promotion covers the two usual cases (a missing column, and integers with
floats); it refuses text with numbers, which a setting such as `auto | 10` produces, and there text is the type that loses
nothing.
"""

from collections.abc import Iterable

import pyarrow as pa

# Number of tables above which their tiny chunks slow down later steps by more than the time of a copy
MANY = 100


def unify(tables: Iterable[pa.Table]) -> pa.Table:
    """Return all rows of all tables, with the union of their columns in order of first appearance.

    A column is null in the rows of a table that lacks it. Types are promoted: null with any type to that type, int64 with
    double to double, any other two to string (numbers and booleans as Arrow prints them).
    """
    tables = [table.replace_schema_metadata(None) for table in tables]
    # Merging the schemas of thousands of tables takes longer than reading them
    if tables and all(table.schema.equals(tables[0].schema) for table in tables[1:]):
        unified = pa.concat_tables(tables)
        return unified.combine_chunks() if len(tables) > MANY else unified
    try:
        unified = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        columns = _find_clashing_columns(tables)
        texts = [_cast_to_text(table, columns) for table in tables]
        unified = pa.concat_tables(texts, promote_options="permissive")
    return unified.combine_chunks() if len(tables) > MANY else unified


def _find_clashing_columns(tables: list[pa.Table]) -> set[str]:
    """Return the names of columns whose types have no common type."""

    def are_compatible(types: set[pa.DataType]) -> bool:
        numbers = (pa.types.is_integer(each) or pa.types.is_floating(each) for each in types)
        return len(types) <= 1 or all(numbers)

    types: dict[str, set[pa.DataType]] = {}
    for schema in {table.schema for table in tables}:
        for column in schema:
            types.setdefault(column.name, set()).add(column.type)
    return {name for name, found in types.items() if not are_compatible(found - {pa.null()})}


def _cast_to_text(table: pa.Table, columns: set[str]) -> pa.Table:
    for position, name in enumerate(table.column_names):
        if name in columns:
            table = table.set_column(position, name, table[name].cast(pa.string()))
    return table
