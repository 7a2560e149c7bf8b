"""Errors of parts of plug-ins while they are used: what a part raises, or returns against its contract, is a sentence that names it.

Parts are checked where they are called, because most faults show only with the data, the batch or the epoch of a training.
"""

from types import TracebackType
from typing import Any

from dirtune.errors import Fault, InputError, TrialFailure, is_of_machine
from dirtune.plugins import find_plugin_of, get_error_line, get_error_sentence


class name_part:
    """Name a part of a plug-in in the errors that it raises.

    Errors of dirtune's own parts, and those of the machine (memory, GPUs, files, network), are raised as they are.

    Args:
        kind: such as "term".
        name: of the part.
        part: the part itself, or the value that a study makes of it.

    Raises:
        InputError: the part has raised.
    """

    # A class, because a generator's context takes three times as long, in every step
    __slots__ = ("kind", "name", "part")

    def __init__(self, kind: str, name: str, part: Any) -> None:
        self.kind, self.name, self.part = kind, name, part

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, InputError | TrialFailure):
            return
        if (plugin := find_plugin_of(self.part)) is None or is_of_machine(error):
            return
        place = f"{_describe(self.kind, self.name, self.part)}{get_error_line(error, plugin)}"
        raise InputError(Fault(where=place, rule=f"raised {get_error_sentence(error)}")) from error


def make_part_error(kind: str, name: str, part: Any, rule: str, got: str) -> InputError:
    """Return the error of a part that has returned something else than its contract.

    Args:
        kind: as for `name_part`, and so are `name` and `part`.
        rule: the contract.
        got: what came, in words (`describe_value`).
    """
    return InputError(Fault(where=_describe(kind, name, part), rule=f"{rule}, got {got}"))


def _describe(kind: str, name: str, part: Any) -> str:
    plugin = find_plugin_of(part)
    return f"{kind} {name!r}" + (f" of {plugin.name}" if plugin else "")
