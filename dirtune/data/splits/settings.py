"""`Splitting`: the split request of a user for any data set, and `SplitRecipe`: the balanced splits of a data set.

A request is read in the order of its fields: first every row is assigned to train, val or test (`split`), then training
rows are removed, by label (`hold_out`), by density (`profile`) and by number (`fraction`). The steps combine: a blind
spot in the published AgeDB-DIR keeps the published validation and test rows. With `control` the same number of rows is
removed at random, which separates the effect of *which* labels are missing from the effect of *how many* rows are.
"""

from typing import Literal

from pydantic import Field, model_validator

from dirtune.frozen import Frozen

Split = Literal["published", "made", "natural", "grouped"]
HoldOut = Literal["none", "extrapolation", "interpolation", "blind_spots"]
Profile = Literal["none", "exponential", "normal", "bimodal", "inverse"]


class SplitRecipe(Frozen):
    """Rule for a data set's balanced validation and test splits: `min(n // one_in, per_bin)` rows of a bin for each.

    Published: AgeDB-DIR 30, 3 and IMDB-WIKI-DIR 150, 3 per year of age; STS-B-DIR 50, 2 per 0.25 of score (Yang et al.,
    "Delving into Deep Imbalanced Regression", ICML 2021; YyzHarry/imbalanced-regression, `preprocess_agedb.py`,
    `preprocess_imdb_wiki.py`, `create_sts.py`).
    """

    per_bin: int = Field(gt=0)
    """Maximum number of rows of a bin for val, and again for test."""
    one_in: int = Field(default=3, ge=2)
    """At most one in this many rows of the bin; the official STS-B code fails where a bin is too small for `per_bin`
    instead."""
    bin_width: float | None = Field(default=None, gt=0)
    """Width of the bins that are drawn from, in the label's unit; None for the label bins."""
    group_share: float | None = Field(default=None, gt=0, lt=0.5)
    """grouped: share of the groups for val, and again for test, if the rows of the recipe take far fewer; None for the
    recipe's share of the rows."""


class Splitting(Frozen):
    """Split request of a user; the defaults leave the published split unchanged."""

    split: Split = "published"
    """published: as in the raw files; made: a new draw of the data set's balanced recipe; natural: at random, with the
    published sizes; grouped: no group (person, scene) in two splits."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of all draws of this request."""
    balance: Literal["made", "natural"] = "made"
    """grouped: the label densities to approximate, those of the recipe or of all rows."""
    hold_out: HoldOut = "none"
    """Labels that training lacks: extrapolation both ends, interpolation a middle band, blind_spots narrow bands."""
    held_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of all rows in the held-out bands together; None for `thinning.HELD_SHARES`."""
    spots: int = Field(default=3, gt=0)
    """Number of blind spots."""
    bands: tuple[tuple[float, float], ...] | None = None
    """Held-out bands `[low, high)` in the label's unit, in place of the share."""
    validation: Literal["whole", "seen"] = "whole"
    """whole: validation has the held-out labels too, like test; seen: only labels that training has, so that no model is
    selected by labels that are held out."""
    profile: Profile = "none"
    """The density that training rows are thinned to."""
    peaks: tuple[float, ...] | None = None
    """Peaks of the density (not for inverse), in the label's unit; None for those of `thinning.compute_profile`."""
    spread: float | None = Field(default=None, gt=0)
    """Decay length (exponential) or standard deviation (normal, bimodal) in the label's unit; None for a quarter of the
    bulk of the rows, an eighth for bimodal."""
    tolerance: float = Field(default=0.05, ge=0, lt=1)
    """Total variation distance from the profile that is accepted in exchange for more rows; 0 for the exact profile.
    Rounding to whole rows adds to it."""
    profile_rows: int | None = Field(default=None, gt=0)
    """Number of training rows to keep at any distance; None for as many as the tolerance allows."""
    control: bool = False
    """Remove as many training rows as `hold_out` and `profile` do, but at random."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the training rows that is kept at the end; with one seed, a smaller share is contained in a larger one."""
    stratified: bool = True
    """fraction: keep about this share of every label bin."""
    drop_leaks: bool = False
    """Remove training (then validation) rows whose content occurs in a later split or earlier in the same one."""

    # A setting without effect is a misunderstanding that would otherwise surface in the results.
    @model_validator(mode="after")
    def _check_settings_take_effect(self) -> "Splitting":
        idle = [
            f"{name} needs {reason}"
            for name, (other, values, reason) in _NEEDS.items()
            if getattr(self, name) != type(self).model_fields[name].default and getattr(self, other) not in values
        ]
        if idle:
            raise ValueError(f"a setting has no effect: {'; '.join(idle)}")
        if self.control and self.hold_out == self.profile == "none":
            raise ValueError("control needs a hold_out or a profile")
        if any(low >= high for low, high in self.bands or ()):
            raise ValueError("a band must be [low, high] with low < high")
        return self


_HOLD_OUTS = ("extrapolation", "interpolation", "blind_spots")
_PEAKED = ("exponential", "normal", "bimodal")
# Setting: the setting that it depends on, the values under which it takes effect, and those values in words.
_NEEDS = {
    "balance": ("split", ("grouped",), "split=grouped"),
    "held_share": ("hold_out", _HOLD_OUTS, "a hold_out"),
    "bands": ("hold_out", _HOLD_OUTS, "a hold_out"),
    "validation": ("hold_out", _HOLD_OUTS, "a hold_out"),
    "spots": ("hold_out", ("blind_spots",), "hold_out=blind_spots"),
    "peaks": ("profile", _PEAKED, "a profile with peaks"),
    "spread": ("profile", _PEAKED, "a profile with peaks"),
    "tolerance": ("profile", (*_PEAKED, "inverse"), "a profile"),
    "profile_rows": ("profile", (*_PEAKED, "inverse"), "a profile"),
}
