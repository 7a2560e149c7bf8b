"""The first step of a request: every row of a data set dealt to train, val or test, with the sentence that says how."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.deal import made, natural, quotas
from dirtune.data.splits.grouped import grouped, imbalance
from dirtune.data.splits.rows import LEFT_OUT, TEST, VAL, Rows, SplitNames
from dirtune.data.splits.settings import Recipe, Splitting
from dirtune.errors import Fault, InputError
from dirtune.manifest import SPLITS


def dealt(rows: Rows, request: Splitting, recipe: Recipe | None) -> tuple[SplitNames, str]:
    """The split of each row before anything is taken away, and a note.

    Raises:
        InputError: the data set lacks what the request needs (published splits, groups, or a recipe).
    """
    return _DEALERS[request.split](rows, request, recipe)


def _published(rows: Rows, request: Splitting, recipe: Recipe | None) -> tuple[SplitNames, str]:
    if rows.published is None:
        known = tuple(name for name in _DEALERS if name != "published")
        rule = "the raw files name no splits; choose how to make them"
        raise InputError(Fault(where=rows.name, key="split", rule=rule, got="published", known=known))
    names = np.asarray(rows.published, dtype=np.str_)
    if strangers := sorted(set(names.tolist()) - {*SPLITS, LEFT_OUT}):
        raise InputError(
            Fault(where=rows.name, rule="unknown split in the raw files", got=name, known=SPLITS) for name in strangers
        )
    return names, "split: as published"


def _made(rows: Rows, request: Splitting, recipe: Recipe | None) -> tuple[SplitNames, str]:
    chosen = _needed(recipe, rows)
    splits = made(rows.ids, rows.bins_of_width(chosen.bin_width), chosen, seed=request.split_seed)
    bin_ = f"{chosen.bin_width:g} {rows.label.unit}" if chosen.bin_width else "label bin"
    return splits, (
        f"split: made, min(n // {chosen.one_in}, {chosen.per_bin}) rows for val and for test per {bin_}, "
        f"seed {request.split_seed}"
    )


def _natural(rows: Rows, request: Splitting, recipe: Recipe | None) -> tuple[SplitNames, str]:
    val, test = _held_sizes(rows, recipe)
    splits = natural(rows.ids, val=val, test=test, seed=request.split_seed)
    return splits, f"split: random, {val:,} val and {test:,} test rows, seed {request.split_seed}"


def _held_sizes(rows: Rows, recipe: Recipe | None) -> tuple[int, int]:
    """Validation and test rows: those of the published split, else those of the recipe."""
    if rows.published is not None:
        names = np.asarray(rows.published)
        return int(np.count_nonzero(names == VAL)), int(np.count_nonzero(names == TEST))
    chosen = _needed(recipe, rows)
    quota = int(quotas(np.bincount(rows.bins_of_width(chosen.bin_width)), chosen).sum())
    return quota, quota


def _grouped(rows: Rows, request: Splitting, recipe: Recipe | None) -> tuple[SplitNames, str]:
    if rows.groups is None:
        rule = "the raw files name no groups; grouped splits need them"
        raise InputError(Fault(where=rows.name, key="split", rule=rule, got="grouped"))
    width = None if recipe is None else recipe.bin_width
    bins, targets = rows.bins_of_width(width), _targets(rows, request, recipe)
    splits = grouped(rows.ids, bins, rows.groups, targets, seed=request.split_seed)
    distances = ", ".join(f"{name} {far:.3f}" for name, far in imbalance(splits, bins, targets).items())
    return splits, (
        f"split: {len(np.unique(rows.groups)):,} groups, none in two splits, seed {request.split_seed}; total variation "
        f"distance of the label densities from the {request.balance} ones: {distances}"
    )


def _targets(rows: Rows, request: Splitting, recipe: Recipe | None) -> NDArray[np.float64]:
    """Wanted rows by split and bin, shape `(3, num_bins)`."""
    density = np.bincount(rows.bins_of_width(None if recipe is None else recipe.bin_width))
    if request.balance == "made":
        quota = quotas(density, _needed(recipe, rows))
        return np.stack([density - 2 * quota, quota, quota]).astype(np.float64)
    val, test = _held_sizes(rows, recipe)
    total = len(rows.ids)
    return np.outer([total - val - test, val, test], density / total)


_DEALERS = {"published": _published, "made": _made, "natural": _natural, "grouped": _grouped}


def _needed(recipe: Recipe | None, rows: Rows) -> Recipe:
    if recipe is None:
        rule = "the data set has no recipe for balanced splits; give the rows per bin"
        raise InputError(Fault(where=rows.name, key="split", rule=rule))
    return recipe
