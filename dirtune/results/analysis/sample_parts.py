"""Parts of single test samples in the difference of two arms, from stored predictions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from dirtune.results.analysis.recompute import SamplePredictions
from dirtune.results.statistics import influence, joint, verdict

MOST_SEEDS = 20
"""Seeds whose predictions are used: the samples' part in an uncertainty does not shrink with more of them."""

Trials = Mapping[int, str]
"""The trial of an arm by seed."""


def select_seeds(seeds: Collection[int]) -> list[int]:
    """Return the seeds whose predictions are used."""
    return sorted(seeds)[:MOST_SEEDS]


@dataclass
class SampleParts:
    """Parts of the test samples in a metric, computed once per trial and region."""

    metric: str
    stored: SamplePredictions
    _influences: dict[tuple[str, str], joint.Array] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """True if the metric can be computed from predictions, sample by sample."""
        return self.metric in influence.INFLUENCES

    def compute_difference(self, arm: Trials, reference: Trials, region: str) -> joint.Array | None:
        """Return each sample's part in each seed's difference, shape `(seeds, units)`.

        Samples of one group are one unit.

        Args:
            arm: trials of the paired seeds.
            reference: trials of the same seeds.
            region: a shot region, or all.

        Returns:
            None if the metric is not known, or too few of the seeds have predictions.
        """
        known = self.stored.predictions.keys()
        seeds = [seed for seed in select_seeds(arm) if arm[seed] in known and reference[seed] in known]
        if not self.is_known or len(seeds) < max(2, min(len(arm), verdict.MIN_PAIRS)):
            return None
        parts = np.stack([self._get(arm[seed], region) - self._get(reference[seed], region) for seed in seeds])
        if self.stored.groups is None or not parts.size:
            return parts
        # Numbered without gaps: a region has some of the groups.
        groups = np.unique(self.stored.groups[self.stored.regions[region]], return_inverse=True)[1]
        return joint.sum_groups(parts, groups)

    def _get(self, trial: str, region: str) -> joint.Array:
        key = trial, region
        if key not in self._influences:
            rows, stored = self.stored.regions[region], self.stored
            predictions = stored.predictions[trial][rows]
            # An empty region has no metric.
            self._influences[key] = (
                influence.compute_influence(self.metric, stored.labels[rows], predictions, stored.bins[rows])
                if len(predictions)
                else np.empty(0)
            )
        return self._influences[key]
