"""Tests of paired differences that assume less than Student's t, and the test that two arms are equivalent.

All take the differences by seed (`paired_values`) and give a p. With `n` seeds the Wilcoxon and the sign-flip test know
only `2**n` outcomes, so their smallest two-sided p is `2**(1 - n)`: 0.0625 with five seeds. Below six seeds neither can
say anything at 5 %, and after Holm's correction over three arms not below seven (0.0156 * 3 = 0.047). They are a check
beside the t test, not its replacement.

Source: Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin, 1945; Fisher, "The Design of
Experiments", 1935, for flipping signs; Phipson and Smyth, "Permutation P-values should never be zero", Statistical
Applications in Genetics and Molecular Biology, 2010; Schuirmann, "A comparison of the two one-sided tests procedure and
the power approach", Journal of Pharmacokinetics and Biopharmaceutics, 1987.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Scipy.stats takes three times as long to import
from scipy.special import stdtr

from dirtune.results.statistics.paired import PairedDifference

Array = NDArray[np.float64]

# Sign vectors; above, they are drawn
ENUMERATED = 4_096


def wilcoxon(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact also with ties; NaN if no difference is other than zero.

    The ranks `r_i` of `|d_i|` (zeros are left out, ties share their mean rank), `W = sum of r_i over d_i > 0`, and
    `p = min(1, 2 min(P(W* <= W), P(W* >= W)))` with every sign equally likely. The distribution of `W*` is built up rank by
    rank, never approximated: `O(n^3)`.

    Departure from `scipy.stats.wilcoxon`: with ties, too, the distribution is that of the ranks at hand.
    """
    found = np.asarray(differences, dtype=np.float64)
    found = found[found != 0]
    if not found.size or np.isnan(found).any():
        return math.nan
    ranks = _doubled_ranks(np.abs(found))
    chances = _rank_sum_chances(ranks)
    observed = int(ranks[found > 0].sum())
    tail = min(chances[: observed + 1].sum(), chances[observed:].sum())
    return min(1.0, 2 * float(tail))


def sign_flip(differences: ArrayLike, *, resamples: int = 9_999, seed: int = 0) -> float:
    """Two-sided p of the sign-flip permutation test of the mean; NaN if no difference is other than zero.

    If neither arm is better, each difference may as well have had the other sign: p is the share of sign vectors `s` with
    `|sum s_i d_i| >= |sum d_i|`. All `2**n` are counted up to `n = 12`; above, `resamples` are drawn, and the observed one
    counts as one of them, so that p is never zero.

    Args:
        differences: shape `(n,)`, by seed.
        resamples: drawn sign vectors, where not all are counted.
        seed: of the drawing.
    """
    found = np.asarray(differences, dtype=np.float64)
    if np.isnan(found).any() or not found.any():
        return math.nan
    observed = abs(float(found.sum()))
    # Sums of the same numbers in another order
    observed -= 1e-12 * float(np.abs(found).sum())
    if 2**found.size <= ENUMERATED:
        return float(np.mean(np.abs(_all_signs(found.size) @ found) >= observed))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, found.size))
    reached = int((np.abs(signs @ found) >= observed).sum())
    return (reached + 1) / (resamples + 1)


def equivalence(difference: PairedDifference, *, margin: float) -> float:
    """P of two one-sided paired t tests (TOST): small if the true difference lies within `-margin..margin`.

    `max(P(T >= (mean + margin) / se), P(T <= (mean - margin) / se))` with `se = sd / sqrt(n)` and `n - 1` degrees of
    freedom; p < 0.05 exactly where the 90 % t interval lies within the margin.

    Args:
        difference: of an arm to its reference.
        margin: what counts as no difference, in the metric's unit.

    Returns:
        NaN for fewer than two pairs, or differences that are all equal.
    """
    if difference.n < 2 or not difference.sd > 0:
        return math.nan
    error, freedom = difference.sd / math.sqrt(difference.n), difference.n - 1
    too_low = stdtr(freedom, -(difference.mean + margin) / error)
    too_high = stdtr(freedom, (difference.mean - margin) / error)
    return float(max(too_low, too_high))


def _doubled_ranks(values: Array) -> NDArray[np.int64]:
    """Twice the mean ranks from 1, which are whole numbers whatever the ties."""
    ordered = np.sort(values)
    first = np.searchsorted(ordered, values, side="left") + 1
    last = np.searchsorted(ordered, values, side="right")
    return (first + last).astype(np.int64)


def _rank_sum_chances(ranks: NDArray[np.int64]) -> Array:
    """Chance of each sum of a random subset of the ranks, from 0 to their total."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] = (chances[rank:] + chances[:-rank]) / 2
        chances[:rank] /= 2
    return chances


def _all_signs(n: int) -> Array:
    """Every vector of `n` signs, shape `(2**n, n)`."""
    bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    return np.where(bits == 1, 1.0, -1.0)
