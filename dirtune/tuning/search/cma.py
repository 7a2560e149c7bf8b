"""CMA-ES as an Optuna sampler without a memory: its distribution is built anew from the complete trials at every question.

Optuna's own keeps its optimiser pickled in the storage, and results are data that nobody should have to trust. Replaying the
generations takes milliseconds for the budgets of a study, and a killed sweep goes on as if nothing had been.

Source: N. Hansen, "The CMA Evolution Strategy: A Tutorial", 2016 (the package `cmaes`, Nomura and Shibata 2024). Numbers are
searched on [0, 1], logarithms where the setting is; a choice is drawn at random. Departures from Optuna's sampler: a
generation is the next complete trials in the order of their start, whichever distribution they were asked from, so that
workers need not wait for each other; pruned trials teach it nothing; it never restarts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import optuna
from cmaes import CMA
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from dirtune.tuning.search.unit_interval import place_of, value_at

# Of the distribution around the middle of the space, as Optuna's
START_SPREAD = 1 / 6


class CmaEs(optuna.samplers.BaseSampler):
    """Proposes one configuration.

    Args:
        space: all settings that are tuned, by name.
        seed: of this proposal.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        self._numbers = {
            name: distribution
            for name, distribution in space.items()
            if isinstance(distribution, FloatDistribution | IntDistribution)
        }
        self._random, self._seed = optuna.samplers.RandomSampler(seed=seed), seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._numbers)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        strategy = CMA(
            mean=np.full(len(self._numbers), 0.5),
            sigma=START_SPREAD,
            seed=self._seed,
            bounds=np.tile([0.0, 1.0], (len(self._numbers), 1)),
        )
        told, size = list(self._told(study)), strategy.population_size
        for start in range(0, len(told) - size + 1, size):
            strategy.tell(told[start : start + size])
        point = strategy.ask()
        return {
            name: value_at(distribution, float(share))
            for (name, distribution), share in zip(self._numbers.items(), point, strict=True)
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _told(self, study: optuna.Study) -> Iterator[tuple[NDArray[np.float64], float]]:
        """The complete trials in the order of their start, and how bad they are."""
        sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
        for each in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            assert each.value is not None, "a complete trial has a value"
            point = [place_of(known, each.params[name]) for name, known in self._numbers.items()]
            yield np.array(point), sign * each.value
