"""`Splitting`: what a user may ask of the splits of any data set, and `Recipe`: what a data set says of its own.

A request is read in the order of the fields: first every row is dealt to train, val or test (`split`), then training
rows are taken away, by label (`hold_out`), by density (`profile`) and by number (`fraction`). The steps combine: a blind
spot in the published AgeDB-DIR keeps the published validation and test rows, and with `control` the same number of rows
goes at random, so that the effect of *which* labels are missing is told from the effect of *how many* rows are.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dirtune.frozen import Frozen

Split = Literal["published", "made", "natural", "grouped"]
HoldOut = Literal["none", "extrapolation", "interpolation", "blind_spots"]
Profile = Literal["none", "exponential", "normal", "bimodal", "inverse"]


class Recipe(Frozen):
    """How a data set's balanced validation and test splits are drawn: `min(n // one_in, per_bin)` rows of a bin for each.

    Published: AgeDB-DIR 30, 3 and IMDB-WIKI-DIR 150, 3 per year of age; STS-B-DIR 50, 2 per 0.25 of score (Yang et al.,
    "Delving into Deep Imbalanced Regression", ICML 2021; YyzHarry/imbalanced-regression, `preprocess_agedb.py`,
    `preprocess_imdb_wiki.py`, `create_sts.py`).
    """

    per_bin: int = Field(gt=0)
    """At most this many rows of a bin, for val and again for test."""
    one_in: int = Field(default=3, ge=2)
    """And no more than one in this many rows of the bin; the official STS-B code fails where a bin is too small for
    `per_bin` instead."""
    bin_width: float | None = Field(default=None, gt=0)
    """Width of the bins drawn from, in the label's unit; none: the label bins."""


class Splitting(Frozen):
    """The splits that a user asks for; the defaults leave the published split as it is."""

    split: Split = "published"
    """published: as the raw files say; made: the data set's balanced recipe, drawn anew; natural: at random, with the
    published sizes; grouped: no group (person, scene) in two splits."""
    split_seed: int = Field(default=0, ge=0)
    """Draws everything here that is drawn."""
    balance: Literal["made", "natural"] = "made"
    """grouped: the label densities to come close to, those of the recipe or of all rows."""
    hold_out: HoldOut = "none"
    """Labels that training lacks: extrapolation both ends, interpolation a middle band, blind_spots narrow bands."""
    held_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of all rows in the held-out bands together; none: `holdout.SHARES`."""
    spots: int = Field(default=3, gt=0)
    """Number of blind spots."""
    bands: tuple[tuple[float, float], ...] | None = None
    """Held-out bands `[low, high)` in the label's unit, in place of the share."""
    validation: Literal["whole", "seen"] = "whole"
    """whole: validation has the held-out labels too, as test; seen: only labels that training has, so that no model is
    chosen by what it must not know."""
    profile: Profile = "none"
    """The density that training rows are thinned to."""
    peaks: tuple[float, ...] | None = None
    """Peaks of the density (not for inverse), in the label's unit; none: see `profiles.wanted_density`."""
    spread: float | None = Field(default=None, gt=0)
    """Decay length (exponential) or standard deviation (normal, bimodal) in the label's unit; none: a quarter of the bulk
    of the rows, an eighth for bimodal."""
    tolerance: float = Field(default=0.05, ge=0, lt=1)
    """Total variation distance from the profile that is accepted for keeping more rows; 0: the exact profile. Rounding to whole
    rows comes on top."""
    profile_rows: int | None = Field(default=None, gt=0)
    """Training rows to keep, whatever the distance; none: as many as the tolerance allows."""
    control: bool = False
    """Take away as many training rows as `hold_out` and `profile` do, but at random."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the training rows kept at the end; of one seed, the smaller share is part of the larger."""
    stratified: bool = True
    """fraction: every label bin gives about its share."""
    drop_leaks: bool = False
    """Take training (then validation) rows away whose content stands in a later split or earlier in the same."""

    @model_validator(mode="after")
    def _only_what_takes_effect(self) -> Splitting:
        idle = [name for name, needed in _NEEDS.items() if self._is_idle(name, needed)]
        if idle:
            reasons = "; ".join(f"{name} needs {_NEEDS[name][2]}" for name in idle)
            raise ValueError(f"a setting has no effect: {reasons}")
        if self.control and self.hold_out == self.profile == "none":
            raise ValueError("control needs a hold_out or a profile")
        if any(low >= high for low, high in self.bands or ()):
            raise ValueError("a band must be [low, high] with low < high")
        return self

    def _is_idle(self, name: str, needed: tuple[str, tuple[str, ...], str]) -> bool:
        other, values, _ = needed
        changed = getattr(self, name) != type(self).model_fields[name].default
        return changed and getattr(self, other) not in values


_HOLD_OUTS = ("extrapolation", "interpolation", "blind_spots")
_NEEDS = {
    "balance": ("split", ("grouped",), "split=grouped"),
    "held_share": ("hold_out", _HOLD_OUTS, "a hold_out"),
    "bands": ("hold_out", _HOLD_OUTS, "a hold_out"),
    "validation": ("hold_out", _HOLD_OUTS, "a hold_out"),
    "spots": ("hold_out", ("blind_spots",), "hold_out=blind_spots"),
    "peaks": ("profile", ("exponential", "normal", "bimodal"), "a profile with peaks"),
    "spread": ("profile", ("exponential", "normal", "bimodal"), "a profile with peaks"),
    "tolerance": ("profile", ("exponential", "normal", "bimodal", "inverse"), "a profile"),
    "profile_rows": ("profile", ("exponential", "normal", "bimodal", "inverse"), "a profile"),
}
