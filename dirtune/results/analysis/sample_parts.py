"""Parts of single test samples in the difference of two arms, from stored predictions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from dirtune.randomness import SEEDS_PER_REPETITION, get_repetition
from dirtune.results.analysis.recompute import SamplePredictions
from dirtune.results.statistics import influence, joint, verdict

MOST_SEEDS = 20
"""Seeds whose predictions are used: the samples' part in an uncertainty does not shrink with more of them."""

Trials = Mapping[int, str]
"""The trial of an arm by seed."""


def select_seeds(seeds: Collection[int], *, is_repeated: bool = False) -> list[int]:
    """Return the seeds whose predictions are used.

    Args:
        seeds: of an arm.
        is_repeated: True if the seeds belong to several searches or splits, all of which are then among them.
    """
    if not is_repeated:
        return sorted(seeds)[:MOST_SEEDS]
    # The first seed of every repetition, then the second ones, and so on
    return sorted(sorted(seeds, key=lambda seed: (seed % SEEDS_PER_REPETITION, seed))[:MOST_SEEDS])


@dataclass
class SampleParts:
    """Parts of the test samples in a metric, computed once per trial and region."""

    metric: str
    stored: SamplePredictions
    is_repeated: bool = False
    """True if searches, not seeds, are the unit of tests."""
    _influences: dict[tuple[str, str], joint.Array] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """True if the metric can be computed from predictions, sample by sample."""
        return self.metric in influence.INFLUENCES

    def compute_difference(self, arm: Trials, reference: Trials, region: str) -> joint.Array | None:
        """Return each sample's part in each seed's difference, or in each search's, shape `(seeds, units)`.

        Samples of one group are one unit.

        Args:
            arm: trials of the paired seeds.
            reference: trials of the same seeds.
            region: a shot region, or all.

        Returns:
            None if the metric is not known, or too few of the seeds have predictions.
        """
        known = self.stored.predictions.keys()
        selected = select_seeds(arm, is_repeated=self.is_repeated)
        seeds = [seed for seed in selected if arm[seed] in known and reference[seed] in known]
        # With repeated searches their parts, not those of the seeds, are the rows
        rows = list(dict.fromkeys(get_repetition(seed) for seed in seeds)) if self.is_repeated else seeds
        if not self.is_known or len(rows) < max(2, min(len(arm), verdict.MIN_PAIRS)):
            return None
        parts = np.stack([self._get(arm[seed], region) - self._get(reference[seed], region) for seed in seeds])
        if self.is_repeated:
            own = np.array([get_repetition(seed) for seed in seeds])
            parts = np.stack([parts[own == row].mean(axis=0) for row in rows])
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
