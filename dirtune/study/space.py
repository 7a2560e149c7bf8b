"""Search-space distributions of tuned settings, as values.

A distribution is given for the dotted path of a setting. It applies to every arm whose configuration has a value there:
`terms.conr.omega` is tuned in the arms with ConR only. `arms` and `when` restrict it further.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias, Union

from pydantic import Field, model_validator

from dirtune.frozen import Frozen

# Samplers compute with 64 bits.
_LARGEST = 1e18
Scalar: TypeAlias = bool | int | float | str | None


class _Distribution(Frozen):
    arms: tuple[str, ...] | None = None
    """Arms in which the setting is tuned. None: every arm that has the setting."""
    when: dict[str, tuple[Scalar, ...]] = {}
    """Axes by dotted path, and their values at which the setting is tuned; other axes impose no condition."""


class _Interval(_Distribution):
    low: float
    high: float

    @model_validator(mode="after")
    def _check_order(self) -> "_Interval":
        if not self.low < self.high:
            raise ValueError(f"low < high must hold, got low={self.low}, high={self.high}")
        if not math.isfinite(self.high - self.low) or max(abs(self.low), abs(self.high)) > _LARGEST:
            raise ValueError(f"low and high must be within {_LARGEST:.0e}, got low={self.low}, high={self.high}")
        return self


class Uniform(_Interval):
    """Uniform over an interval, both ends included."""

    distribution: Literal["uniform"]

    def contains(self, value: Scalar) -> bool:
        """Return True if a value is in the support."""
        return isinstance(value, int | float) and self.low <= value <= self.high


class LogUniform(_Interval):
    """Uniform in the logarithm over an interval, both ends included."""

    distribution: Literal["loguniform"]

    @model_validator(mode="after")
    def _check_positive(self) -> "LogUniform":
        if self.low <= 0:
            raise ValueError(f"low > 0 must hold for a logarithmic scale, got low={self.low}")
        return self

    def contains(self, value: Scalar) -> bool:
        """Return True if a value is in the support."""
        return isinstance(value, int | float) and self.low <= value <= self.high


class Integer(_Interval):
    """Uniform over the integers of an interval, both ends included; with `log`, uniform in the logarithm."""

    distribution: Literal["int"]
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _check_positive(self) -> "Integer":
        if self.log and self.low <= 0:
            raise ValueError(f"low > 0 must hold for a logarithmic scale, got low={self.low}")
        return self

    def contains(self, value: Scalar) -> bool:
        """Return True if a value is in the support."""
        return isinstance(value, int) and self.low <= value <= self.high


class Choice(_Distribution):
    """Uniform over a list of values."""

    distribution: Literal["choice"]
    values: tuple[Scalar, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_distinct(self) -> "Choice":
        # By value, because 1 and 1.0 are one configuration, and a search would wait for the second one.
        if len(set(self.values)) < len(self.values):
            raise ValueError("values must differ, also as numbers: 1 and 1.0 are the same")
        return self

    def contains(self, value: Scalar) -> bool:
        """Return True if a value is in the support."""
        return value in self.values


Distribution: TypeAlias = Annotated[
    Union[Choice, Integer, LogUniform, Uniform], Field(discriminator="distribution")  # noqa: UP007
]


def count_configurations(space: Mapping[str, Distribution]) -> float:
    """Return the number of distinct configurations in a space; infinite if one distribution is continuous."""
    count = 1.0
    for distribution in space.values():
        match distribution:
            case Choice():
                count *= len(distribution.values)
            case Integer():
                count *= distribution.high - distribution.low + 1
            case _:
                count = math.inf
    return count
