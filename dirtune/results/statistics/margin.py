"""Margin of equivalence: the largest difference that counts as none, fixed before the numbers are seen."""

import math
import re
from dataclasses import dataclass

from dirtune.errors import Fault, InputError

NO_SHARES = frozenset({"r2", "pearson", "spearman", "delta1", "delta2", "delta3", "tolerance"})
"""Metrics without a scale that starts at zero error, of which a share of the reference's mean says nothing."""
# With an exponent, as Python writes a small number of a study file.
_MARGIN = re.compile(r"((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)")


@dataclass(frozen=True, kw_only=True)
class Margin:
    """A share of the reference's mean, or a size in the metric's unit."""

    text: str
    """As it was written."""
    number: float
    is_share: bool

    @classmethod
    def parse(cls, text: str, *, metric: str | None = None) -> "Margin":
        """Parse `2%` or `0.5`.

        Args:
            text: as written.
            metric: the metric that it is about, if that is known.

        Raises:
            InputError: it is neither a percentage nor a number, it is not above zero, or it is a share of a correlation.
        """
        found = _MARGIN.fullmatch(text.strip())
        if found is None or not 0 < float(found[1]) < math.inf:
            rule = "must be a share of the reference's mean such as 2%, or a number in the metric's unit such as 0.5, above 0"
            raise InputError(Fault(where="margin", rule=rule, got=text))
        is_share = found[2] == "%"
        if is_share and metric in NO_SHARES:
            rule = f"a share of {metric} says nothing where it is near zero; give a number such as 0.02"
            raise InputError(Fault(where="margin", rule=rule, got=text))
        return cls(text=text, number=float(found[1]) / (100 if is_share else 1), is_share=is_share)

    def compute_size(self, reference_mean: float) -> float:
        """Return the margin in the metric's unit."""
        return self.number * abs(reference_mean) if self.is_share else self.number

    def __str__(self) -> str:
        if self.is_share:
            return f"{100 * self.number:g} % of the reference's mean"
        return f"{self.number:g} in the metric's unit"
