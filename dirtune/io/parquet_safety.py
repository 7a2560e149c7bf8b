"""Refusal of Parquet columns with extension types, whose values pyarrow may build by running code.

An Arrow file may name an extension type for a column, and pyarrow builds the column's values with the class that a library
has registered under that name. Ray Data (2.60) registers `ray.data.arrow_pickled_object`, whose values are pickled objects,
and asks before it reads such a file; pyarrow does not ask: in a process that has imported Ray Data, `to_pylist` or
`to_pandas` would execute code from the file. dirtune writes no extension types, so a file that has one is refused before any
value is read. Trade-off: harmless types, such as a pandas period in a user's own table, are refused as well.
"""

import pyarrow as pa

from dirtune.errors import Fault, InputError


def check_columns(schema: pa.Schema, *, where: str) -> None:
    """Raise if a column has an extension type.

    Raises:
        InputError: the fault that `find_column_fault` returns.
    """
    if (fault := find_column_fault(schema, where=where)) is not None:
        raise InputError(fault)


def find_column_fault(schema: pa.Schema, *, where: str) -> Fault | None:
    """Return a fault that lists the columns with extension types, also nested ones, or None if there are none."""
    # Ten times faster than walking over every column, and enough for nearly all files. The text may hold the marker
    # without an extension type, because a column's name can be anything, so a hit is followed by the walk.
    if "extension<" not in schema.to_string(show_field_metadata=False, show_schema_metadata=False):
        return None
    extensions = {field.name: found for field in schema if (found := _find_extension(field.type))}
    if not extensions:
        return None
    rule = "only plain columns are read, because values of others are made by code; these have an extension type"
    return Fault(where=where, rule=rule, got=extensions)


def _find_extension(kind: pa.DataType) -> str | None:
    """Return the name of the first extension type in an Arrow type, or None."""
    if isinstance(kind, pa.BaseExtensionType):
        return str(kind.extension_name)
    if pa.types.is_dictionary(kind):
        return _find_extension(kind.value_type)
    nested = (_find_extension(kind.field(index).type) for index in range(kind.num_fields))
    return next(filter(None, nested), None)
