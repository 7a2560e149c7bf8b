"""Request of a figure: one value with the options of all kinds, of which each kind reads its own."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.results.records.names import check_known
from dirtune.results.tables.table import ArmTable, make_arm_table


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """Request of a figure; the fields are the options of `dirtune.results.figures.plot`."""

    root: str | Path
    study: str
    x: str | None = None
    y: str | None = None
    metric: str | None = None
    region: str = "all"
    split: str = "test"
    selection: str = "best_val"
    reference: str | None = None
    arms: tuple[str, ...] = ()
    each: str | None = None
    method: str = "ped_anova"
    relative: bool = False

    def build_table(self) -> ArmTable:
        """Return the study's table: every arm by every region, with the differences to the reference.

        Raises:
            InputError: as `make_arm_table`.
        """
        return make_arm_table(
            self.root,
            self.study,
            metric=self.metric,
            split=self.split,
            selection=self.selection,
            reference=self.reference,
        )

    def choose_each(self, known: tuple[str, ...]) -> str:
        """Return the value of `each`, by default the first known one.

        Raises:
            InputError: it is unknown.
        """
        each = self.each or known[0]
        check_known("each", each, known)
        return each

    def get_arm(self) -> str | None:
        """Return the arm of a figure that shows one, or None for its default.

        Raises:
            InputError: several arms are requested.
        """
        if len(self.arms) > 1:
            raise InputError(Fault(where="arms", rule="this figure shows one arm", got=self.arms))
        return next(iter(self.arms), None)

    def make_error(self, rule: str) -> InputError:
        """Build the error for a figure that has nothing to draw."""
        return InputError(Fault(where=f"study {self.study}", rule=rule))


_NOT_OPTIONS = {"root", "study"}


class TrackedRequest(PlotRequest):
    """Request that notes which of its options a figure reads."""

    def __getattribute__(self, name: str) -> Any:
        if name in PlotRequest.__dataclass_fields__:
            self.__dict__.setdefault("_read", set()).add(name)
        return super().__getattribute__(name)

    def list_unused(self) -> list[str]:
        """Return the options that differ from their defaults and were not read."""
        values, read = self.__dict__, self.__dict__.get("_read", _NOT_OPTIONS)
        fields_of_options = [each for each in fields(self) if each.name not in _NOT_OPTIONS]
        return [each.name for each in fields_of_options if values[each.name] != each.default and each.name not in read]


def format_source(table: ArmTable) -> str:
    """Return the beginning of a caption: study, split, selection."""
    return f"{table.study}, {table.split} split, {table.description}."
