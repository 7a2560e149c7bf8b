"""Sizes of effects without a unit, for comparisons across metrics and data sets.

In a paper's table the difference in the metric's unit with its interval says more; these are for what has no common unit.

Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, section 2.3.5, for `d_z`; Hedges,
"Distribution theory for Glass's estimator of effect size", Journal of Educational Statistics, 1981, for the correction;
Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021
(google-research/rliable, `metrics.py`), for the probability of improvement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

# Scipy.stats takes three times as long to import
from scipy.special import gammaln

from dirtune.results.statistics.paired import mean, sd


def cohens_dz(differences: Sequence[float]) -> float:
    """Mean over standard deviation of paired differences, without unit; NaN for fewer than two or equal ones.

    Its sign is that of arm minus reference. It is not the `d` of independent groups: the more the seeds' common luck
    cancels, the larger it is.
    """
    spread = sd(differences)
    return mean(differences) / spread if spread > 0 else math.nan


def hedges_gz(differences: Sequence[float]) -> float:
    """`d_z` without its bias, `J(n - 1) d_z`, `J(f) = Gamma(f / 2) / (sqrt(f / 2) Gamma((f - 1) / 2))`; NaN below three.

    The bias of few seeds is large: `J` is 0.80 for five and 0.91 for ten.
    """
    freedom = len(differences) - 1
    if freedom < 2:
        return math.nan
    logarithm = gammaln(freedom / 2) - gammaln((freedom - 1) / 2) - math.log(freedom / 2) / 2
    return math.exp(logarithm) * cohens_dz(differences)


def probability_of_improvement(arm: ArrayLike, reference: ArrayLike, *, higher_is_better: bool = False) -> float:
    """Chance that a run of the arm beats a run of the reference: the share of all pairs, an equal pair counting half.

    Args:
        arm: shape `(runs,)`, in any unit; its runs need not be as many as the reference's, and are not paired by seed.
        reference: shape `(runs,)`.
        higher_is_better: whether the larger value wins.

    Returns:
        0..1; NaN without runs on one side or with a NaN.
    """
    ours, theirs = np.asarray(arm, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if not ours.size or not theirs.size or np.isnan(ours).any() or np.isnan(theirs).any():
        return math.nan
    leads = ours[:, None] - theirs[None, :]
    wins = leads > 0 if higher_is_better else leads < 0
    return float((wins + (leads == 0) / 2).mean())
