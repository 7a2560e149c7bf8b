"""Shot regions formed anew from the stored predictions: other limits of many and few, or wider label bins.

What counts as rare is a choice of whoever made the data set. Whether a finding depends on it is seen by making the same
table with another one, from the same trials.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.manifest import Manifest, ShotRule
from dirtune.results.analysis.recompute import own_manifest, recompute
from dirtune.results.analysis.selection import EPOCHS
from dirtune.results.records.schema import REGIONS
from dirtune.results.records.studies import open_study

# The only epoch whose predictions are stored
PREDICTED = EPOCHS[0]
_COUNTS = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, kw_only=True)
class Regrouping:
    """How the regions of a study's table are formed."""

    root: str | Path
    study: str
    manifest: Manifest
    """Of the study's data set."""
    rule: ShotRule | None
    """None: each trial's own."""
    bin_width: float | None
    """In the label's unit; none: the data set's."""
    description: str
    """For a footer."""

    @classmethod
    def of(cls, root: str | Path, study: str, *, shots: str | None, bin_width: float | None) -> Regrouping:
        """As it was asked for.

        Args:
            root: the results root, a path or URL.
            study: name of the study's folder.
            shots: `100/20`: many has more than 100 training samples in a label bin, few less than 20; or the name of a
                shot rule of the data set; none: each trial's own.
            bin_width: of the label bins, a multiple of the data set's; none: the data set's.

        Raises:
            InputError: the limits are unreadable or the wrong way round, the rule is unknown, or no manifest is there.
        """
        manifest = own_manifest(open_study(root, study))
        rule, said = None, "each trial's own limits"
        if shots in manifest.shot_rules:
            rule, said = manifest.shot_rules[shots], f"the data set's rule {shots}"
        elif shots is not None:
            rule = _read(shots, known=tuple(manifest.shot_rules))
            said = (
                f"many has more than {rule.many_above} training samples in a label bin, few less than {rule.few_below}"
            )
        width = f"{bin_width or manifest.label.bin_width:g} {manifest.label.unit}".strip()
        return cls(
            root=root,
            study=study,
            manifest=manifest,
            rule=rule,
            bin_width=bin_width,
            description=f"Regions formed anew from the stored predictions: {said}; bins of {width}.",
        )

    def values(self, metric: str, split: str, trials: Collection[str]) -> Mapping[tuple[str, str], Mapping[str, float]]:
        """By region and epoch the metric of every trial whose predictions are stored.

        Raises:
            InputError: as `dirtune.results.analysis.recompute.recompute`.
        """
        found = recompute(
            self.root,
            self.study,
            metric=metric,
            split=split,
            rule=self.rule,
            bin_width=self.bin_width,
            trials=trials,
            manifest=self.manifest,
        )
        return {
            (region, PREDICTED): {trial: regions[region].value for trial, regions in found.items()}
            for region in REGIONS
        }


def _read(shots: str, *, known: tuple[str, ...]) -> ShotRule:
    limits = _COUNTS.fullmatch(shots.strip())
    if limits is None:
        rule = "must be the limits of many and few, such as 100/20, or a rule of the data set"
        raise InputError(Fault(where="shots", rule=rule, got=shots, known=known))
    many, few = int(limits[1]), int(limits[2])
    if few > many + 1:
        rule = "no bin may be both many and few: the first limit is that of many"
        raise InputError(Fault(where="shots", rule=rule, got=shots))
    return ShotRule(many_above=many, few_below=few)
