"""Optuna's samplers by name, made anew for every configuration that is asked.

What a sampler proposes must not depend on how often the driver was killed. So none keeps a random state between two
configurations: each is seeded by the number of configurations known before. Grid and QMC instead keep one seed, which fixes
the order of the grid and the sequence; which point of it comes next Optuna reads from its storage.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from dirtune.randomness import derive_seed
from dirtune.study.search_settings import Search
from dirtune.study.space import Choice, Distribution, Integer, Scalar

# Proposals of a model in a row that may be known
MODEL_REPETITIONS = 10


def sampler_for(
    search: Search, arm: str, knobs: Mapping[str, Distribution], known: int, attempt: int
) -> optuna.samplers.BaseSampler:
    """The sampler that proposes an arm's next configuration.

    Args:
        known: configurations of the arm that were asked before.
        attempt: proposals since then that were known already.
    """
    one = derive_seed(search.seed, arm) % 2**32
    each = derive_seed(search.seed, arm, known, attempt) % 2**32
    with warnings.catch_warnings():
        # What is Optuna 5's default, older versions call experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # In a small finite space a model proposes its favorite again and again; the rest is left to chance.
        model_repeats_itself = search.sampler in {"tpe", "gp"} and attempt >= MODEL_REPETITIONS
        if search.sampler == "random" or model_repeats_itself:
            return optuna.samplers.RandomSampler(seed=each)
        if search.sampler == "gp":
            return optuna.samplers.GPSampler(seed=each, n_startup_trials=search.startup_trials)
        if search.sampler == "qmc":
            return optuna.samplers.QMCSampler(seed=one, scramble=True, warn_independent_sampling=False)
        if search.sampler == "grid":
            return _Grid({path: values_of(knob) for path, knob in knobs.items()}, seed=one)
        return optuna.samplers.TPESampler(
            seed=each, n_startup_trials=search.startup_trials, multivariate=True, constant_liar=True
        )


class _Grid(optuna.samplers.GridSampler):
    """The grid without its wish to end the study, which nothing can when configurations are asked one by one."""

    def after_trial(self, *told: Any) -> None:
        """Nothing: the budget ends the search."""


def values_of(knob: Distribution) -> Sequence[Scalar]:
    """All values of a knob that has finitely many."""
    if isinstance(knob, Choice):
        return knob.values
    assert isinstance(knob, Integer), "a study with an endless space and a grid is refused"
    return range(knob.low, knob.high + 1)
