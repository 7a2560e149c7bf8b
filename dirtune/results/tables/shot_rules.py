"""Shot regions recomputed from the stored predictions: other limits of many and few, or wider label bins.

The definition of rare is a choice of the data set's authors. Whether a finding depends on it is visible from the same table
with another definition, of the same trials.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.manifest import Manifest, ShotRule
from dirtune.metrics import REGIONS
from dirtune.results.analysis.recompute import read_stored_manifest, recompute
from dirtune.results.records import names, studies

_LIMITS = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, kw_only=True)
class RegionDefinition:
    """Definition of the regions of a study's table that differs from the recorded one."""

    root: str | Path
    study: str
    manifest: Manifest
    """Of the study's data set."""
    rule: ShotRule | None
    """None means each trial's own."""
    bin_width: float | None
    """In the label's unit; None means the data set's."""
    description: str
    """For a footer."""

    @classmethod
    def parse(cls, root: str | Path, study: str, *, shots: str | None, bin_width: float | None) -> RegionDefinition:
        """Parse the limits and the width that were asked for.

        Args:
            root: the results root, a path or URL.
            study: name of the study's folder.
            shots: `100/20`: many has more than 100 training samples in a label bin, few less than 20; or the name of a
                shot rule of the data set; None means each trial's own.
            bin_width: of the label bins, a multiple of the data set's; None means the data set's.

        Raises:
            InputError: the limits are unreadable or in the wrong order, the rule is unknown, or there is no manifest.
        """
        manifest = read_stored_manifest(studies.open_study(root, study))
        rule, text = None, "each trial's own limits"
        # Names first: the rules of a data set may be named like limits.
        if shots in manifest.shot_rules:
            rule, text = manifest.shot_rules[shots], f"the data set's rule {shots}"
        elif shots is not None:
            limits = _LIMITS.fullmatch(shots.strip())
            if limits is None:
                wanted = "must be the limits of many and few, such as 100/20, or a rule of the data set"
                raise InputError(Fault(where="shots", rule=wanted, got=shots, known=tuple(manifest.shot_rules)))
            many, few = int(limits[1]), int(limits[2])
            # At `few == many + 1` no bin is medium; above that, bins would belong to two regions.
            if few > many + 1:
                wanted = "no bin may be both many and few: the first limit is that of many"
                raise InputError(Fault(where="shots", rule=wanted, got=shots))
            rule = ShotRule(many_above=many, few_below=few)
            text = (
                f"many has more than {rule.many_above} training samples in a label bin, few less than {rule.few_below}"
            )
        width = f"{bin_width or manifest.label.bin_width:g} {manifest.label.unit}".strip()
        return cls(
            root=root,
            study=study,
            manifest=manifest,
            rule=rule,
            bin_width=bin_width,
            description=f"Regions recomputed from the stored predictions: {text}; bins of {width}.",
        )

    def compute_values(
        self, metric: str, split: str, trials: Collection[str]
    ) -> Mapping[tuple[str, str], Mapping[str, float]]:
        """Compute the metric of every trial whose predictions are stored, by region and epoch.

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
            (region, names.PREDICTED_EPOCH): {trial: regions[region].value for trial, regions in found.items()}
            for region in REGIONS
        }
