"""`dirtune.Study`: a study that is given in Python, validated as a file is."""

from collections.abc import Mapping
from typing import Any

from dirtune.errors import InputError
from dirtune.frozen import Frozen, read
from dirtune.study import schema
from dirtune.study.resolve import resolve
from dirtune.study.validate import split_removed_options

_WHERE = "study"
"""Name of the study in faults."""


class _StudyType(type(Frozen)):  # type: ignore[misc]
    # Not `__init__`, which pydantic would call for a study that it reads as well
    def __call__(cls, **settings: Any) -> "Study":
        plain = _to_plain(settings)
        kept, removed = split_removed_options(plain, _WHERE)
        try:
            study = read(Study, kept, where=_WHERE)
        except InputError as error:
            faults = (*removed, *error.faults)
            # With those of the arms, unless these may have parts of plug-ins, which are not loaded yet
            if not plain.get("plugins"):
                try:
                    resolve(plain, where=_WHERE)
                except InputError as complete:
                    faults = complete.faults
            raise InputError(faults) from None
        if removed:
            raise InputError(removed)
        return study


class Study(schema.Study, metaclass=_StudyType):
    """A study whose settings are those of a study file.

    Raises:
        InputError: with every fault.
    """


def _to_plain(value: Any) -> Any:
    """Return settings with sections that are values, such as a `Resources`, as plain data."""
    if isinstance(value, Frozen):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _to_plain(inner) for key, inner in value.items()}
    return [_to_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
