"""`split_rows`: the steps of a split request, from rows to one split name per row and a note for each step."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits import leaks, partition, settings, thinning
from dirtune.data.splits.rows import LEFT_OUT, TEST, TRAIN, VAL, Rows, SplitNames
from dirtune.errors import Fault, InputError
from dirtune.label_transform import compute_bin_edges
from dirtune.manifest import SPLITS
from dirtune.reweighting.density import label_density

# Training rows below which those that are left are noted
_FEW_TRAINING = 30


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Splits of a set of rows, with their notes."""

    splits: SplitNames
    """Shape `(rows,)`, in the order of the input rows."""
    held_out: tuple[int, ...]
    """Label bins of `hold_out`, also under `control`, where training does have them; see `make_held_out_rule`."""
    notes: tuple[str, ...]
    """Sentences for the manifest: the steps of the request, and the leaks that are in the result."""

    def find_rows(self, split: str) -> np.typing.NDArray[np.int64]:
        """Return the positions of a split's rows."""
        return np.flatnonzero(self.splits == split)


def split_rows(
    rows: Rows,
    request: settings.Splitting,
    recipe: settings.SplitRecipe | None = None,
    *,
    contents: Sequence[Hashable] | NDArray[Any] | None = None,
) -> Assignment:
    """Assign the rows to train, val and test, then remove training rows as requested, in the order of its fields.

    Args:
        rows: in any order; the same ids get the same splits in every order.
        request: of the user.
        recipe: of the data set; required for `made`, for `grouped` with the recipe's balance, and for the sizes of
            `natural` where there is no published split.
        contents: sample identity for the leak report, such as a digest; one entry per row.

    Raises:
        InputError: the data set lacks what the request needs, or a split would be empty.
    """
    splits, partition_note = partition.make_partition(rows, request, recipe)
    notes = [partition_note]
    if request.drop_leaks:
        before, splits = splits, leaks.remove_leaks(splits, _find_leaks(splits, rows, contents))
        notes.append(f"copies left out: {np.count_nonzero(before != splits):,} rows")
    # Of the rows of all splits, so that the bands are the same for every draw of the split.
    density = label_density(rows.bins, rows.label.num_bins)
    held = thinning.find_held_out_bins(density, rows.label, request)
    divided = splits
    splits, thinning_notes = _thin(splits, rows, request, held)
    splits, subset_notes = _select_fraction(splits, rows, request)
    subset_notes += _check_training_rows(divided, splits, rows.name)
    if empty := [split for split in SPLITS if not (splits == split).any()]:
        rule = "the split would have no rows"
        if request.split == "published":
            rule += ": the raw files assign none to it, or all were left out; split=made draws new splits"
        raise InputError(Fault(where=rows.name, key=split, rule=rule) for split in empty)
    # Searched in the result, because the steps before may have removed some.
    leak_notes = [leak.format() for leak in _find_leaks(splits, rows, contents)]
    return Assignment(splits=splits, held_out=held, notes=(*notes, *thinning_notes, *subset_notes, *leak_notes))


def _check_training_rows(before: SplitNames, after: SplitNames, name: str) -> list[str]:
    """Return a note if the request leaves few training rows.

    Raises:
        InputError: it leaves one, from which no method learns.
    """
    rows, left = (int(np.count_nonzero(splits == TRAIN)) for splits in (before, after))
    if left == 1 < rows:
        rule = f"one of {rows:,} training rows would be left, of which nothing can be learned; hold out or remove fewer"
        raise InputError(Fault(where=name, key=TRAIN, rule=rule))
    if not 0 < left < min(rows, _FEW_TRAINING):
        return []
    return [f"training rows: {left:,} of {rows:,} are left; too few to compare methods by"]


def _find_leaks(splits: SplitNames, rows: Rows, contents: Sequence[Hashable] | NDArray[Any] | None) -> list[leaks.Leak]:
    groups = None if rows.groups is None else rows.groups.tolist()
    return leaks.find_leaks(splits, ids=rows.ids, contents=contents, groups=groups)


def _thin(
    splits: SplitNames, rows: Rows, request: settings.Splitting, held: tuple[int, ...]
) -> tuple[SplitNames, list[str]]:
    """Remove training rows by label and by density, or as many at random if the request is a control."""
    thinned, notes = splits, []
    if held:
        from_validation = request.validation == "seen"
        thinned = thinning.remove_held_out(splits, rows.bins, held, from_validation=from_validation)
        notes.append(_format_held_out(rows, held, splits, thinned))
    if request.profile != "none":
        thinned, note = _thin_to_profile(thinned, rows, request)
        notes.append(note)
    if not request.control:
        return thinned, notes
    train = np.flatnonzero(splits == TRAIN)
    size = int(np.count_nonzero(thinned == TRAIN))
    selected = thinning.select_at_random(rows.ids[train], size, seed=request.split_seed)
    # Validation is that of the thinned splits, so that the model selection of both uses the same rows.
    whole = np.where(splits == TRAIN, TRAIN, thinned)
    note = f"control: {size:,} of {len(train):,} training rows at random, seed {request.split_seed}"
    return _leave_out(whole, train[~selected]), [note]


def _format_held_out(rows: Rows, held: tuple[int, ...], before: SplitNames, after: SplitNames) -> str:
    label, edges = rows.label, compute_bin_edges(rows.label)
    runs = np.split(np.array(held), np.flatnonzero(np.diff(held) > 1) + 1)
    bands = ", ".join(f"[{edges[run[0]]:g}, {edges[run[-1] + 1]:g})" for run in runs)
    lost = {split: np.count_nonzero((before == split) & (after == LEFT_OUT)) for split in (TRAIN, VAL)}
    test = np.count_nonzero((after == TEST) & np.isin(rows.bins, held))
    return (
        f"held out of training: {label.name} in {bands}; {lost[TRAIN]:,} train and {lost[VAL]:,} val rows left out, "
        f"{test:,} test rows have such labels"
    )


def _thin_to_profile(splits: SplitNames, rows: Rows, request: settings.Splitting) -> tuple[SplitNames, str]:
    train = np.flatnonzero(splits == TRAIN)
    bins = rows.bins[train]
    density = label_density(bins, rows.label.num_bins)
    profile = thinning.compute_profile(density, rows.label, request)
    quota = thinning.compute_profile_quotas(density, profile, tolerance=request.tolerance, rows=request.profile_rows)
    selected = thinning.select_by_quota(rows.ids[train], bins, quota, seed=request.split_seed)
    note = (
        f"training density: {request.profile}, {int(quota.sum()):,} of {len(train):,} training rows, total variation "
        f"distance {partition.compute_total_variation(quota, profile):.3f}, seed {request.split_seed}"
    )
    return _leave_out(splits, train[~selected]), note


def _select_fraction(splits: SplitNames, rows: Rows, request: settings.Splitting) -> tuple[SplitNames, list[str]]:
    if request.fraction == 1.0:
        return splits, []
    train = np.flatnonzero(splits == TRAIN)
    size = max(1, round(request.fraction * len(train)))
    ids, seed = rows.ids[train], request.split_seed
    if request.stratified:
        selected, manner = thinning.select_stratified(ids, rows.bins[train], size, seed=seed), "stratified by label bin"
    else:
        selected, manner = thinning.select_at_random(ids, size, seed=seed), "at random"
    note = f"training subset: {size:,} of {len(train):,} rows, {manner}, seed {seed}"
    return _leave_out(splits, train[~selected]), [note]


def _leave_out(splits: SplitNames, positions: np.typing.NDArray[np.int64]) -> SplitNames:
    lost = np.zeros(len(splits), dtype=np.bool_)
    lost[positions] = True
    return np.where(lost, LEFT_OUT, splits)
