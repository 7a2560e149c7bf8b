"""Splits of all rows into train, val and test: published, balanced by a recipe, random, or without shared groups.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021 (YyzHarry/imbalanced-regression), for `made`;
Zhao et al., "ACCon", AAAI 2025, whose Natural benchmarks have random splits of the published sizes, for `natural`.
Departures: 1. numpy generators seeded by (seed, purpose) and tied to the row ids, where the official code depends on the
order of a folder listing (ages) or has no seed (STS-B), so that the published lists themselves cannot be drawn again;
2. one rule, `min(n // one_in, per_bin)`, for both; see `SplitRecipe.one_in`.

In AgeDB-DIR every validation and test image shows a person who is in training too, so its errors do not measure
generalization to new persons. `grouped` keeps a person, a participant or a scene in one split. Groups have many labels
each, so the label densities can only be approximated: the groups, in a seeded order, are assigned one after the other
where they help most, then moved while a move helps. On AgeDB (567 names) this reaches a total variation of 0.04 from the
balanced validation and test densities of the published recipe without leaving a row out, where a random assignment of
groups stays at 0.18.
"""

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.rows import LEFT_OUT, TEST, TRAIN, VAL, Ids, Rows, SplitNames, rank_by_seed, rank_within_bins
from dirtune.data.splits.settings import Split, SplitRecipe, Splitting
from dirtune.errors import Fault, InputError
from dirtune.manifest import SPLITS

# AgeDB converges after five to ten passes.
_MAX_PASSES = 20


def make_partition(rows: Rows, request: Splitting, recipe: SplitRecipe | None) -> tuple[SplitNames, str]:
    """Return the split of each row before any training row is removed, and a note for the manifest.

    Raises:
        InputError: the data set lacks what the request needs (published splits, groups, or a recipe).
    """
    if request.split == "published":
        return _check_published(rows), "split: as published"
    if request.split == "grouped":
        return _make_grouped(rows, request, recipe)
    if request.split == "natural":
        val, test = _get_sizes(rows, recipe)
        splits = split_at_random(rows.ids, val=val, test=test, seed=request.split_seed)
        return splits, f"split: random, {val:,} val and {test:,} test rows, seed {request.split_seed}"
    recipe = _check_recipe(recipe, rows)
    splits = split_by_recipe(rows.ids, rows.compute_bins(recipe.bin_width), recipe, seed=request.split_seed)
    bin_ = f"{recipe.bin_width:g} {rows.label.unit}" if recipe.bin_width else "label bin"
    return splits, (
        f"split: made, min(n // {recipe.one_in}, {recipe.per_bin}) rows for val and for test per {bin_}, "
        f"seed {request.split_seed}"
    )


def _check_published(rows: Rows) -> SplitNames:
    if rows.published is None:
        known = tuple(name for name in get_args(Split) if name != "published")
        rule = "the raw files name no splits; choose how to make them"
        raise InputError(Fault(where=rows.name, key="split", rule=rule, got="published", known=known))
    names = np.asarray(rows.published, dtype=np.str_)
    if unknown := sorted(set(names.tolist()) - {*SPLITS, LEFT_OUT}):
        raise InputError(
            Fault(where=rows.name, rule="unknown split in the raw files", got=name, known=SPLITS) for name in unknown
        )
    return names


def _get_sizes(rows: Rows, recipe: SplitRecipe | None) -> tuple[int, int]:
    """Return the number of validation and test rows: those of the published split, else those of the recipe."""
    if rows.published is not None:
        names = np.asarray(rows.published)
        return int(np.count_nonzero(names == VAL)), int(np.count_nonzero(names == TEST))
    recipe = _check_recipe(recipe, rows)
    quota = int(compute_quotas(np.bincount(rows.compute_bins(recipe.bin_width)), recipe).sum())
    return quota, quota


def _make_grouped(rows: Rows, request: Splitting, recipe: SplitRecipe | None) -> tuple[SplitNames, str]:
    if rows.groups is None:
        rule = "the raw files name no groups; grouped splits need them"
        raise InputError(Fault(where=rows.name, key="split", rule=rule, got="grouped"))
    bins = rows.compute_bins(None if recipe is None else recipe.bin_width)
    density = np.bincount(bins)
    if request.balance == "made":
        quota = compute_quotas(density, _check_recipe(recipe, rows))
        targets = np.stack([density - 2 * quota, quota, quota]).astype(np.float64)
    else:
        val, test = _get_sizes(rows, recipe)
        targets = np.outer([len(rows.ids) - val - test, val, test], density / len(rows.ids))
    number = len(np.unique(rows.groups))
    if number < len(SPLITS):
        rule = f"grouped splits need at least {len(SPLITS)} groups; split=made ignores groups"
        raise InputError(Fault(where=rows.name, key="split", rule=rule, got=number))
    share = None if recipe is None else recipe.group_share
    splits = split_by_group(rows.ids, bins, rows.groups, targets, seed=request.split_seed, group_share=share)
    counts = {name: len(np.unique(rows.groups[splits == name])) for name in (VAL, TEST)}
    distances = ", ".join(f"{name} {far:.3f}" for name, far in compute_imbalance(splits, bins, targets).items())
    return splits, (
        f"split: {number:,} groups, none in two splits ({counts[VAL]:,} in val, {counts[TEST]:,} in test), seed "
        f"{request.split_seed}; total variation distance of the label densities from the {request.balance} ones: {distances}"
    )


def _check_recipe(recipe: SplitRecipe | None, rows: Rows) -> SplitRecipe:
    if recipe is None:
        rule = "the data set has no recipe for balanced splits; give the rows per bin"
        raise InputError(Fault(where=rows.name, key="split", rule=rule))
    return recipe


def compute_quotas(density: NDArray[np.int64], recipe: SplitRecipe) -> NDArray[np.int64]:
    """Return the rows of each bin for val, and again for test: `min(n // one_in, per_bin)`; shape of `density`."""
    return np.minimum(density // recipe.one_in, recipe.per_bin)


def split_by_recipe(ids: Ids, bins: NDArray[np.int64], recipe: SplitRecipe, *, seed: int) -> SplitNames:
    """Return balanced splits: in every bin, shuffled, the first quota is val, the second test, the rest train.

    Args:
        ids: shape `(rows,)`.
        bins: bins of the recipe's width, shape `(rows,)`.
        recipe: of the data set.
        seed: of the shuffle.
    """
    # The purpose is part of every drawn split; another word would draw other rows.
    ranks = rank_within_bins(bins, rank_by_seed(ids, seed, "made"))
    quota = compute_quotas(np.bincount(bins), recipe)[bins]
    return np.select([ranks < quota, ranks < 2 * quota], [VAL, TEST], default=TRAIN)


def split_at_random(ids: Ids, *, val: int, test: int, seed: int) -> SplitNames:
    """Return a random split with `val` and `test` rows; the rest is train.

    Raises:
        InputError: no row would be left for training.
    """
    if val + test >= len(ids):
        rule = f"{val} validation and {test} test rows leave nothing to train on; rows"
        raise InputError(Fault(where="split", rule=rule, got=len(ids)))
    ranks = rank_by_seed(ids, seed, "natural")
    return np.select([ranks < val, ranks < val + test], [VAL, TEST], default=TRAIN)


def split_by_group(
    ids: Ids,
    bins: NDArray[np.int64],
    groups: NDArray[Any],
    targets: NDArray[np.float64],
    *,
    seed: int,
    group_share: float | None = None,
) -> SplitNames:
    """Assign every group to one split so that the counts per bin approximate the targets.

    Minimizes `sum_s sum_b (have[s, b] - targets[s, b])^2 / (targets[s, b] + 1)`, where rare bins count as much as
    frequent ones, greedily and then by single moves, until no move helps (a local minimum; at most 20 passes).

    Args:
        ids: shape `(rows,)`.
        bins: bin of each row, shape `(rows,)`.
        groups: group of each row, shape `(rows,)`.
        targets: desired rows in each split and bin, shape `(3, num_bins)`, in the order of `SPLITS`.
        seed: of the order in which groups are assigned.
        group_share: see `SplitRecipe`.
    """
    _, group_of_row = np.unique(groups, return_inverse=True)
    number = int(group_of_row.max()) + 1
    contents = np.zeros((number, targets.shape[1]))
    np.add.at(contents, (group_of_row, bins), 1)
    # Groups are ordered by the smallest rank of their rows.
    first = np.full(number, len(ids))
    np.minimum.at(first, group_of_row, rank_by_seed(ids, seed, "grouped"))
    have = np.zeros_like(targets)
    chosen = np.full(number, -1)
    # The first pass assigns the groups, the others move them.
    for _ in range(1 + _MAX_PASSES):
        before = chosen.copy()
        for group in np.argsort(first):
            if chosen[group] >= 0:
                have[chosen[group]] -= contents[group]
            # (have + c - t)^2 - (have - t)^2 = c (2 (have - t) + c): the change of the cost, split by split.
            change = contents[group] * (2 * (have - targets) + contents[group]) / (targets + 1)
            chosen[group] = np.argmin(change.sum(axis=1))
            have[chosen[group]] += contents[group]
        if (before == chosen).all():
            break
    _fill_splits(chosen, have, contents, targets, group_share)
    splits: SplitNames = np.asarray(SPLITS)[chosen[group_of_row]]
    return splits


def _fill_splits(
    chosen: NDArray[np.int64],
    have: NDArray[np.float64],
    contents: NDArray[np.float64],
    targets: NDArray[np.float64],
    share: float | None,
) -> None:
    """Move groups of training to validation and test splits that have too few, until they have their share of the groups.

    Where a group has more rows of a bin than a split should have, no single move lowers the cost, and the split would stay
    empty or have one group, whose errors say little about other groups. The moved groups raise the cost least. Without a given
    share, half of that of the rows is enough.

    Args:
        chosen: split of each group, changed in place.
        have: rows in each split and bin, changed in place.
        contents: rows of each group in each bin.
        targets: desired rows in each split and bin.
        share: of the groups; None for that of the rows.
    """
    for split in (1, 2):
        wanted = max(1, round((share or targets[split].sum() / targets.sum()) * len(chosen)))
        if share is None and np.count_nonzero(chosen == split) > wanted / 2:
            continue
        while np.count_nonzero(chosen == split) < wanted and np.count_nonzero(chosen == 0) > 1:
            train = np.flatnonzero(chosen == 0)
            moved = contents[train]
            change = moved * (2 * (have[split] - targets[split]) + moved) / (targets[split] + 1)
            change -= moved * (2 * (have[0] - targets[0]) - moved) / (targets[0] + 1)
            group = train[np.argmin(change.sum(axis=1))]
            have[0] -= contents[group]
            have[split] += contents[group]
            chosen[group] = split


def compute_imbalance(splits: SplitNames, bins: NDArray[np.int64], targets: NDArray[np.float64]) -> dict[str, float]:
    """Return the total variation distance of each split's label density from its target.

    0 means the same density; 1 means that no bin is shared, or that the split is empty.
    """
    distances = {}
    for split, target in zip(SPLITS, targets, strict=True):
        counts = np.bincount(bins[splits == split], minlength=targets.shape[1])
        distances[split] = compute_total_variation(counts, target) if counts.any() else 1.0
    return distances


def compute_total_variation(counts: NDArray[Any], target: NDArray[Any]) -> float:
    """Return `1/2 sum_b |p_b - q_b|` of two densities, each scaled to sum one."""
    return float(np.abs(counts / counts.sum() - target / target.sum()).sum() / 2)
