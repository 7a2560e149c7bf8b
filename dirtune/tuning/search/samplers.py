"""Optuna samplers by name; one is made for every configuration that is asked.

A proposal must not depend on how often the driver was killed. So no sampler keeps a random state between two configurations:
each is seeded by the number of configurations known before. Grid and QMC instead have one constant seed, which fixes the
order of the grid and the sequence; Optuna reads the next point of it from its storage.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from dirtune.randomness import derive_seed
from dirtune.study.search_settings import Search
from dirtune.study.space import Choice, Distribution, Integer, Scalar

# Known configurations that a model may propose in a row; in a small finite space, a model proposes its favorite again and
# again
MAX_MODEL_REPETITIONS = 10


def make_sampler(
    search: Search, name: str, space: Mapping[str, Distribution], known: int, attempt: int, repeat: int = 0
) -> optuna.samplers.BaseSampler:
    """Return the sampler that proposes an arm's next configuration.

    Args:
        search: settings of the search.
        name: of the search, which enters the seed: that of the arm, with its number for a further search.
        space: distributions by dotted path.
        known: number of configurations of the search that were asked before.
        attempt: number of repetitions proposed since then.
        repeat: number of the search.
    """
    constant_seed = derive_seed(search.seed, name) % 2**32
    seed = derive_seed(search.seed, name, known, attempt) % 2**32
    models = {"tpe", "gp"}
    is_random = search.sampler == "random" or (search.sampler in models and known < search.startup_trials)
    # One search of an arm keeps the proposals that studies had before they could repeat searches
    if search.repeats > 1 and is_random:
        return _SharedRandomSampler(derive_seed(search.seed, "start", repeat, known, attempt))
    with warnings.catch_warnings():
        # Multivariate TPE is experimental in Optuna 4 and the default of Optuna 5
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        model_repeats_itself = search.sampler in models and attempt >= MAX_MODEL_REPETITIONS
        if search.sampler == "random" or model_repeats_itself:
            return optuna.samplers.RandomSampler(seed=seed)
        if search.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=search.startup_trials)
        if search.sampler == "qmc":
            return optuna.samplers.QMCSampler(seed=constant_seed, scramble=True, warn_independent_sampling=False)
        if search.sampler == "grid":
            return _GridSampler({path: list_values(each) for path, each in space.items()}, seed=constant_seed)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=search.startup_trials, multivariate=True, constant_liar=True
        )


def list_values(distribution: Distribution) -> Sequence[Scalar]:
    """Return all values of a finite distribution."""
    if isinstance(distribution, Choice):
        return distribution.values
    assert isinstance(distribution, Integer), "validation refuses a grid over an infinite space"
    return range(distribution.low, distribution.high + 1)


class _SharedRandomSampler(optuna.samplers.RandomSampler):
    """Random sampler whose value of a setting depends on the setting's path alone, so that arms share those of common settings.

    Args:
        seed: of the configuration.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=0)
        self._configuration_seed = seed

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        sampler = optuna.samplers.RandomSampler(seed=derive_seed(self._configuration_seed, param_name) % 2**32)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class _GridSampler(optuna.samplers.GridSampler):
    """Grid sampler that does not stop the Optuna study, which is impossible when configurations are asked one by one."""

    def after_trial(self, *args: Any) -> None:
        """Do nothing: the budget ends the search."""
