"""`split_rows`: a user's request, step by step, into one split name per row and the sentences that say what was done."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.bases import dealt
from dirtune.data.splits.grouped import total_variation
from dirtune.data.splits.holdout import held_out_bins, hold_out
from dirtune.data.splits.leaks import Finding, leaks, without_leaks
from dirtune.data.splits.profiles import profile_quotas, profiled, random_subset, stratified_subset, wanted_density
from dirtune.data.splits.rows import LEFT_OUT, TEST, TRAIN, VAL, Rows, SplitNames
from dirtune.data.splits.settings import Recipe, Splitting
from dirtune.errors import Fault, InputError
from dirtune.manifest import SPLITS
from dirtune.reweighting.density import label_density


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The splits of a set of rows, and what is to be said of them."""

    splits: SplitNames
    """Shape `(rows,)`, in the order of the rows given."""
    held_out: tuple[int, ...]
    """Label bins of `hold_out`, also under `control`, where training does have them; see `held_out_rule`."""
    notes: tuple[str, ...]
    """Sentences for the manifest: what was done, and the leaks that stand in the result."""

    def members(self, split: str) -> NDArray[np.int64]:
        """Positions of a split's rows."""
        return np.flatnonzero(self.splits == split)


def split_rows(
    rows: Rows, request: Splitting, recipe: Recipe | None = None, *, contents: Sequence[Hashable] | None = None
) -> Assignment:
    """Deal the rows to train, val and test, then take away what the request takes away, in the order of its fields.

    Args:
        rows: in any order; the same ids get the same splits in every order.
        recipe: of the data set; needed for `made`, for `grouped` with the recipe's balance, and for the sizes of `natural`
            where there is no published split.
        contents: what makes two rows the same sample, for the leak report; one entry per row.

    Raises:
        InputError: the data set lacks what the request needs, or a split would be empty.
    """
    splits, dealing = dealt(rows, request, recipe)
    dropped: list[str] = []
    if request.drop_leaks:
        before, splits = splits, without_leaks(splits, _leaks(splits, rows, contents))
        dropped = [f"copies left out: {np.count_nonzero(before != splits):,} rows"]
    density = label_density(rows.bins, rows.label.num_bins)
    held = held_out_bins(density, rows.label, request)
    splits, thinning = _thinned(splits, rows, request, held)
    splits, subset = _fraction(splits, rows, request)
    _check_not_empty(splits, rows.name)
    found = [finding.sentence for finding in _leaks(splits, rows, contents)]
    notes = (dealing, *dropped, *thinning, *subset, *found)
    return Assignment(splits=splits, held_out=held, notes=notes)


def _leaks(splits: SplitNames, rows: Rows, contents: Sequence[Hashable] | None) -> list[Finding]:
    groups = None if rows.groups is None else rows.groups.tolist()
    return leaks(splits, ids=rows.ids, contents=contents, groups=groups)


def _thinned(splits: SplitNames, rows: Rows, request: Splitting, held: tuple[int, ...]) -> tuple[SplitNames, list[str]]:
    """Training rows taken away by label and by density, or as many at random."""
    from_validation = request.validation == "seen"
    thinned = hold_out(splits, rows.bins, held, from_validation=from_validation)
    notes = [_held_note(rows, held, splits, thinned)] if held else []
    if request.profile != "none":
        thinned, note = _profiled(thinned, rows, request)
        notes.append(note)
    if request.control:
        return _control(splits, thinned, rows, request)
    return thinned, notes


def _control(splits: SplitNames, thinned: SplitNames, rows: Rows, request: Splitting) -> tuple[SplitNames, list[str]]:
    train = np.flatnonzero(splits == TRAIN)
    size = int(np.count_nonzero(thinned == TRAIN))
    kept = random_subset(rows.ids[train], size, seed=request.split_seed)
    # Validation is that of the thinned splits, so that both are selected on the same rows.
    whole = np.where(splits == TRAIN, TRAIN, thinned)
    note = f"control: {size:,} of {len(train):,} training rows at random, seed {request.split_seed}"
    return _without(whole, train[~kept]), [note]


def _held_note(rows: Rows, held: tuple[int, ...], before: SplitNames, after: SplitNames) -> str:
    label = rows.label
    runs = np.split(np.array(held), np.flatnonzero(np.diff(held) > 1) + 1)
    bands = ", ".join(
        f"[{label.low + run[0] * label.bin_width:g}, {label.low + (run[-1] + 1) * label.bin_width:g})" for run in runs
    )
    lost = {split: np.count_nonzero((before == split) & (after == LEFT_OUT)) for split in (TRAIN, VAL)}
    test = np.count_nonzero((after == TEST) & np.isin(rows.bins, held))
    return (
        f"held out of training: {label.name} in {bands}; {lost[TRAIN]:,} train and {lost[VAL]:,} val rows left out, "
        f"{test:,} test rows have such labels"
    )


def _profiled(splits: SplitNames, rows: Rows, request: Splitting) -> tuple[SplitNames, str]:
    train = np.flatnonzero(splits == TRAIN)
    bins = rows.bins[train]
    density = label_density(bins, rows.label.num_bins)
    wanted = wanted_density(density, rows.label, request)
    quota = profile_quotas(density, wanted, tolerance=request.tolerance, rows=request.profile_rows)
    kept = profiled(rows.ids[train], bins, quota, seed=request.split_seed)
    note = (
        f"training density: {request.profile}, {int(quota.sum()):,} of {len(train):,} training rows, total variation "
        f"distance {total_variation(quota, wanted):.3f}, seed {request.split_seed}"
    )
    return _without(splits, train[~kept]), note


def _fraction(splits: SplitNames, rows: Rows, request: Splitting) -> tuple[SplitNames, list[str]]:
    if request.fraction == 1.0:
        return splits, []
    train = np.flatnonzero(splits == TRAIN)
    size = max(1, round(request.fraction * len(train)))
    ids, seed = rows.ids[train], request.split_seed
    if request.stratified:
        kept = stratified_subset(ids, rows.bins[train], size, seed=seed)
    else:
        kept = random_subset(ids, size, seed=seed)
    how = "stratified by label bin" if request.stratified else "at random"
    note = f"training subset: {size:,} of {len(train):,} rows, {how}, seed {seed}"
    return _without(splits, train[~kept]), [note]


def _without(splits: SplitNames, positions: NDArray[np.int64]) -> SplitNames:
    lost = np.zeros(len(splits), dtype=np.bool_)
    lost[positions] = True
    return np.where(lost, LEFT_OUT, splits)


def _check_not_empty(splits: SplitNames, name: str) -> None:
    empty = [split for split in SPLITS if not (splits == split).any()]
    if empty:
        raise InputError(Fault(where=name, key=split, rule="the split would have no rows") for split in empty)
