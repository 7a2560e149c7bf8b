"""Importance of the searched settings, estimated from the trials of a search by Optuna's evaluators.

`ped_anova` asks what the good trials have in common that the others have not, and copes with few trials and with the
uneven sampling of TPE. `fanova` fits a random forest and splits the variance of its predictions; it is about the whole
space, bad regions included, and needs more trials. An importance is not an effect: it gives neither the direction nor
whether the difference matters, and with a handful of trials both methods mostly show chance.

This is the only file of the results that knows Optuna, which it imports when it is called; Optuna imports neither torch nor
Ray.

Source: Watanabe, Bansal and Hutter, "PED-ANOVA", IJCAI 2023; Hutter, Hoos and Leyton-Brown, "An Efficient Approach for
Assessing Hyperparameter Importance", ICML 2014; both in `optuna.importance`. Departure: 1. the target of PED-ANOVA is the
best tenth of the trials, as there, but at least five trials, which its documentation asks for, and at most one half.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dirtune.errors import Fault, InputError

if TYPE_CHECKING:
    import optuna

METHODS = ("ped_anova", "fanova")
TARGET_SHARE, TARGET_TRIALS, LARGEST_SHARE = 0.1, 5, 0.5
FEWEST_TRIALS = 4
SEED = 0
"""Of fANOVA's forest."""


def compute_importance(
    settings: Sequence[Mapping[str, Any]],
    losses: Sequence[float],
    space: Mapping[str, Mapping[str, Any]],
    *,
    method: str = "ped_anova",
) -> dict[str, float]:
    """Return the share of every searched setting, largest first; shares sum to one, and are equal if nothing differs.

    Args:
        settings: of every complete trial, the value of every path in `space`.
        losses: its validation objective, smaller being better, in the same order.
        space: by path, `distribution` (uniform, loguniform, int, choice) with `low` and `high` (int: `log`), or `values`.
        method: ped_anova or fanova.

    Raises:
        InputError: an unknown method, or fewer than four trials.
    """
    if method not in METHODS:
        raise InputError(Fault(where="method", rule="unknown method", got=method, known=METHODS))
    if len(losses) < FEWEST_TRIALS:
        rule = f"needs {FEWEST_TRIALS} complete trials of a search"
        raise InputError(Fault(where="importance", rule=rule, got=len(losses)))
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    evaluator = (
        # The forest is random: without a seed, two calls on the same trials could rank the settings differently.
        FanovaImportanceEvaluator(seed=SEED)
        if method == "fanova"
        else PedAnovaImportanceEvaluator(target_quantile=compute_target_share(len(losses)))
    )
    with _silence_optuna():
        shares = get_param_importances(_make_optuna_study(settings, losses, space), evaluator=evaluator)
    # Equal shares by name, so that the order does not depend on that of the space.
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def compute_target_share(trials: int) -> float:
    """Return the share of the trials that PED-ANOVA takes for the good ones."""
    return min(LARGEST_SHARE, max(TARGET_SHARE, TARGET_TRIALS / trials))


@contextmanager
def _silence_optuna() -> Iterator[None]:
    """Suppress the message that Optuna logs for every new study."""
    import optuna

    # The level belongs to the whole process, where a sweep or a notebook may have set its own.
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _make_optuna_study(
    settings: Sequence[Mapping[str, Any]], losses: Sequence[float], space: Mapping[str, Mapping[str, Any]]
) -> optuna.Study:
    """Build an Optuna study in memory from the trials."""
    import optuna
    from optuna.distributions import CategoricalDistribution, IntDistribution

    distributions = {path: _make_distribution(setting) for path, setting in space.items()}
    study = optuna.create_study(direction="minimize")
    for values, loss in zip(settings, losses, strict=True):
        own = {}
        for path, distribution in distributions.items():
            # A column with nulls has turned whole numbers, of choices too, into floats.
            if isinstance(distribution, CategoricalDistribution):
                own[path] = distribution.choices[distribution.choices.index(values[path])]
            elif isinstance(distribution, IntDistribution):
                own[path] = int(values[path])
            else:
                own[path] = float(values[path])
        study.add_trial(optuna.create_trial(params=own, distributions=distributions, value=float(loss)))
    return study


def _make_distribution(setting: Mapping[str, Any]) -> optuna.distributions.BaseDistribution:
    """Build Optuna's distribution of a searched setting."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind = setting["distribution"]
    if kind == "choice":
        return CategoricalDistribution(tuple(setting["values"]))
    if kind == "int":
        return IntDistribution(setting["low"], setting["high"], log=bool(setting.get("log")))
    return FloatDistribution(setting["low"], setting["high"], log=kind == "loguniform")
