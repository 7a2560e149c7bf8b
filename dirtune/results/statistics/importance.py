"""Which of the searched settings decide the result, estimated from the trials of a search by Optuna's evaluators.

`ped_anova` asks what the good trials have in common that the others have not, and copes with few trials and with the
uneven sampling of TPE. `fanova` fits a random forest and splits the variance of its predictions; it speaks of the whole
space, bad regions included, and needs more trials. An importance is not an effect: it says neither the direction nor
whether the difference matters, and with a handful of trials both methods mostly show chance.

The only file of the results that knows Optuna, which it imports when it is asked; Optuna brings in neither torch nor Ray.

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
# Of fANOVA's forest
SEED = 0


def importance(
    settings: Sequence[Mapping[str, Any]],
    losses: Sequence[float],
    space: Mapping[str, Mapping[str, Any]],
    *,
    method: str = "ped_anova",
) -> dict[str, float]:
    """The share of every searched setting, largest first; they sum to one, and are equal where nothing can be told.

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
    from optuna.importance import get_param_importances

    with _quiet():
        shares = get_param_importances(_study(settings, losses, space), evaluator=_evaluator(method, len(losses)))
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def target_share(trials: int) -> float:
    """The share of the trials that PED-ANOVA takes for the good ones."""
    return min(LARGEST_SHARE, max(TARGET_SHARE, TARGET_TRIALS / trials))


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces every study that is made."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(
    settings: Sequence[Mapping[str, Any]], losses: Sequence[float], space: Mapping[str, Mapping[str, Any]]
) -> optuna.Study:
    """The trials as an Optuna study in memory."""
    import optuna

    distributions = {path: _distribution(knob) for path, knob in space.items()}
    study = optuna.create_study(direction="minimize")
    for values, loss in zip(settings, losses, strict=True):
        own = {path: _as(distribution, values[path]) for path, distribution in distributions.items()}
        study.add_trial(optuna.create_trial(params=own, distributions=distributions, value=float(loss)))
    return study


def _distribution(knob: Mapping[str, Any]) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind = knob["distribution"]
    if kind == "choice":
        return CategoricalDistribution(tuple(knob["values"]))
    if kind == "int":
        return IntDistribution(knob["low"], knob["high"], log=bool(knob.get("log")))
    return FloatDistribution(knob["low"], knob["high"], log=kind == "loguniform")


def _as(distribution: optuna.distributions.BaseDistribution, value: Any) -> Any:
    """A recorded value as Optuna knows it: a column of the tables has turned whole numbers beside nulls into floats."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[distribution.choices.index(value)]
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _evaluator(method: str, trials: int) -> optuna.importance.BaseImportanceEvaluator:
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    if method == "fanova":
        return FanovaImportanceEvaluator(seed=SEED)
    return PedAnovaImportanceEvaluator(target_quantile=target_share(trials))
