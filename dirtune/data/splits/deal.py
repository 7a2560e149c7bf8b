"""Dealing all rows to train, val and test: by the published recipe for balanced splits, or at random.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021 (YyzHarry/imbalanced-regression), for `made`;
Zhao et al., "ACCon", AAAI 2025, whose Natural benchmarks have random splits of the published sizes, for `natural`.
Departures: 1. numpy generators seeded by (seed, purpose) and tied to the row ids, where the official code depends on the
order of a folder listing (ages) or has no seed (STS-B), so that the published lists themselves cannot be drawn again;
2. one rule, `min(n // one_in, per_bin)`, for both; see `Recipe.one_in`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.rows import TEST, TRAIN, VAL, Ids, SplitNames, places_in_bins, seeded_ranks
from dirtune.data.splits.settings import Recipe
from dirtune.errors import Fault, InputError


def quotas(density: NDArray[np.int64], recipe: Recipe) -> NDArray[np.int64]:
    """Rows of each bin that val gets, and test gets again: `min(n // one_in, per_bin)`; shape of `density`."""
    return np.minimum(density // recipe.one_in, recipe.per_bin)


def made(ids: Ids, bins: NDArray[np.int64], recipe: Recipe, *, seed: int) -> SplitNames:
    """The balanced recipe: in every bin, shuffled, the first quota is val, the second test, the rest train.

    Args:
        bins: bins of the recipe's width, shape `(rows,)`.
    """
    places = places_in_bins(bins, seeded_ranks(ids, seed, "made"))
    quota = quotas(np.bincount(bins), recipe)[bins]
    return np.select([places < quota, places < 2 * quota], [VAL, TEST], default=TRAIN)


def natural(ids: Ids, *, val: int, test: int, seed: int) -> SplitNames:
    """A random split with `val` and `test` rows; the rest is train.

    Raises:
        InputError: nothing would be left for training.
    """
    if val + test >= len(ids):
        rule = f"{val} validation and {test} test rows leave nothing to train on; rows"
        raise InputError(Fault(where="split", rule=rule, got=len(ids)))
    ranks = seeded_ranks(ids, seed, "natural")
    return np.select([ranks < val, ranks < val + test], [VAL, TEST], default=TRAIN)
