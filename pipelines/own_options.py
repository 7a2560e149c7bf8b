"""`OwnOptions`: what can be said of a researcher's own data, of any kind: name, columns, label bins, splits."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from dirtune.data.splits import Splitting
from pipelines import PIPELINES


class OwnOptions(Splitting):
    """Settings of the ingest that own data share; how rows are split is inherited.

    `split` is `published`, that is, as the split column says, if there is one; otherwise `made`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Under which the set is ingested, and which studies call it by."""
    label: str
    """Column of the label."""
    unit: str = "units"
    """The label's unit, for people."""
    id: str | None = None
    """Column of the sample ids; none: the number of the row in the file (`images`: the path)."""
    group: str | None = None
    """Column of what must not cross splits if `split=grouped`, such as the person."""
    split_column: str | None = None
    """Column that names the split of each row: train, val, test or left_out."""
    low: float | None = None
    """Lower end of the label bins; none: from the data. Labels below are faults."""
    high: float | None = None
    """Upper end of the label bins; none: from the data. Labels above are faults."""
    bin_width: float | None = Field(default=None, gt=0)
    """Width of the label bins; none: `own_bins.label_spec` chooses about 100."""
    held_back: float = Field(default=0.1, gt=0, le=0.3)
    """At most this share of the rows goes to val, and again to test, if the splits are made here; see `balanced_recipe`."""
    many_above: int = Field(default=100, ge=0)
    """Shot region many: label bins with more training rows than this. The published limits suit sets of ten thousand."""
    few_below: int = Field(default=20, ge=0)
    """Shot region few: label bins with fewer training rows than this."""
    skip_bad: int = Field(default=0, ge=0)
    """So many rows that cannot be used are left out, and named in the notes; more are an error."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Between the cells of a text file; none: a tab in tsv, a comma in csv."""
    quoted: bool | None = None
    """Whether a cell of a text file may stand in double quotes; none: in csv, not in tsv."""

    @field_validator("name")
    @classmethod
    def _is_no_other_set(cls, name: str) -> str:
        if name in PIPELINES:
            raise ValueError("this name belongs to another data set")
        return name

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> OwnOptions:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low < high must hold, but got low={self.low:g}, high={self.high:g}")
        if self.few_below > self.many_above + 1:
            raise ValueError("a bin must not be many and few: few_below <= many_above + 1")
        return self

    @property
    def splitting(self) -> Splitting:
        """What is asked of the splits."""
        if self.split_column is not None or "split" in self.model_fields_set:
            return self
        return self.model_copy(update={"split": "made"})

    @property
    def roles(self) -> dict[str, str | None]:
        """The columns that every set has, by option."""
        return {"label": self.label, "id": self.id, "group": self.group, "split_column": self.split_column}
