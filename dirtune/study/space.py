"""The search space: settings that are tuned inside every arm that has them, as values.

A knob is named by the dotted path of the setting. It applies to an arm whose configuration holds a value there, so that
`terms.conr.omega` is searched in the arms with ConR only; `arms` narrows that further.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, Union

from pydantic import Field, model_validator

from dirtune.frozen import Frozen

if TYPE_CHECKING:
    # A trial worker reads studies and never asks: it does without Optuna.
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

Scalar: TypeAlias = bool | int | float | str | None


class _Knob(Frozen):
    arms: tuple[str, ...] | None = None
    """The only arms in which it is searched; none: every arm that has the setting."""
    when: dict[str, tuple[Scalar, ...]] = {}
    """Axes by dotted path, and the values at which it is searched; an axis that is not named puts no condition."""


class _Interval(_Knob):
    low: float
    high: float

    @model_validator(mode="after")
    def _low_is_below_high(self) -> _Interval:
        if not self.low < self.high:
            raise ValueError(f"low < high must hold, got low={self.low}, high={self.high}")
        return self


class Uniform(_Interval):
    """Any number between two, both included."""

    distribution: Literal["uniform"]

    def as_optuna(self) -> FloatDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high)

    def contains(self, value: Scalar) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class LogUniform(_Interval):
    """Any number between two, both included, uniform in its logarithm."""

    distribution: Literal["loguniform"]

    @model_validator(mode="after")
    def _low_is_positive(self) -> LogUniform:
        if self.low <= 0:
            raise ValueError(f"low > 0 must hold for a logarithmic scale, got low={self.low}")
        return self

    def as_optuna(self) -> FloatDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=True)

    def contains(self, value: Scalar) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Integer(_Interval):
    """Any whole number between two, both included; `log`: uniform in its logarithm."""

    distribution: Literal["int"]
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _low_is_positive(self) -> Integer:
        if self.log and self.low <= 0:
            raise ValueError(f"low > 0 must hold for a logarithmic scale, got low={self.low}")
        return self

    def as_optuna(self) -> IntDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log)

    def contains(self, value: Scalar) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


class Choice(_Knob):
    """One of the listed values."""

    distribution: Literal["choice"]
    values: tuple[Scalar, ...] = Field(min_length=1)

    def as_optuna(self) -> CategoricalDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def contains(self, value: Scalar) -> bool:
        return value in self.values


Knob: TypeAlias = Annotated[
    Union[Choice, Integer, LogUniform, Uniform], Field(discriminator="distribution")  # noqa: UP007
]


def size(knobs: dict[str, Knob]) -> float:
    """Number of different configurations a space holds; infinite if one knob is continuous."""
    return math.prod(_values_of(knob) for knob in knobs.values())


def _values_of(knob: Knob) -> float:
    if isinstance(knob, Choice):
        return len(knob.values)
    return knob.high - knob.low + 1 if isinstance(knob, Integer) else math.inf
