"""Columns of Parquet files that others have written: their values are read, never made by code of anybody's choice.

An Arrow file may name an extension type for a column, and pyarrow makes the column's values by the class that a library has
registered for it. Ray Data (2.60) registers one whose values are pickled objects, `ray.data.arrow_pickled_object`, and asks
before it reads such a file itself; pyarrow does not: in a process that has imported Ray Data, `to_pylist` or `to_pandas`
would run what the file says. dirtune writes no extension types, so a file that has one is refused before a value is
looked at. Trade-off: harmless ones, such as a pandas period in a table of one's own, are refused as well.
"""

from __future__ import annotations

import pyarrow as pa

from dirtune.errors import Fault, InputError

# How Arrow writes such a type, alone or inside of another one
_MARK = "extension<"


def check_plain(schema: pa.Schema, *, where: str) -> None:
    """Whether all columns of a file are plain.

    Raises:
        InputError: see `fault_of_columns`.
    """
    if (fault := fault_of_columns(schema, where=where)) is not None:
        raise InputError(fault)


def fault_of_columns(schema: pa.Schema, *, where: str) -> Fault | None:
    """What is wrong with a file whose schema has extension types, at the top or inside of another type; none: nothing."""
    if _MARK not in schema.to_string(show_field_metadata=False, show_schema_metadata=False):
        # Most files: a tenth of the time of looking at every column
        return None
    strangers = {field.name: found for field in schema if (found := _extension_in(field.type))}
    if not strangers:
        return None
    rule = "only plain columns are read, because values of others are made by code; these have an extension type"
    return Fault(where=where, rule=rule, got=strangers)


def _extension_in(kind: pa.DataType) -> str | None:
    """The name of the first extension type in a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return str(kind.extension_name)
    if pa.types.is_dictionary(kind):
        return _extension_in(kind.value_type)
    inner = (_extension_in(kind.field(at).type) for at in range(kind.num_fields))
    return next(filter(None, inner), None)
