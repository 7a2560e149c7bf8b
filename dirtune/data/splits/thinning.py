"""Training rows removed by label (`hold_out`), by density (`profile`) or at random, always without replacement.

Held-out labels ask how a model predicts labels that it never saw: beyond the ends, between two regions, or in narrow
holes. Bands are given in the label's unit, or derived from the label density: the held-out bins contain a given share of
all rows, so that a protocol applies to any data set and the bands are the same for all seeds.

A profile asks how a method behaves under another imbalance of the same data. Few data sets have the rows to follow a
density exactly: one bin with a single row would scale all the others down with it. So bins may fall short of the profile,
within a total variation distance, and as many rows are kept as that allows.

Source of the held-out protocols: Puetz et al., "Deconstructing deep imbalanced regression: a comprehensive review and
experimental evaluation", Artificial Intelligence Review 59, 2026 (noah-puetz/deconstructing_deep_imbalanced_regression,
`data/create_protocols.py`), on AgeDB. There the training rows are drawn with weights `exp(-(age - 50)^2 / 100)`
(Balanced Extrapolation: a density that fades out around 22 and 78), with two such peaks at 25 and 80 (Bimodal
Interpolation), or evenly from the ages 20..73 without 47..53 (Blind-Spot Isolation). Departures: 1. rows are drawn
without replacement, there with it, so that up to a third of the training rows are copies (its lists as shipped: `copies` of
`pipelines/agedb.py`); 2. validation and test are those of
any split (published, made, grouped), there test is the rows that training did not draw, at most 50 of an age, and validation
a tenth of training: `validation="seen"` is the closest; 3. bands end sharply; a density that fades out is a profile
(`profile=normal, peaks=[50], spread=7.07`, and `bimodal` with `[25, 80]`), which combines with them; 4. any number of
blind spots, there one: `bands=[[47, 54]]` with the bands `[0, 20]` and `[74, 121]` added for the limits.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.partition import compute_total_variation
from dirtune.data.splits.rows import LEFT_OUT, TRAIN, VAL, Ids, SplitNames, rank_by_seed, rank_within_bins
from dirtune.data.splits.settings import HoldOut, Profile, Splitting
from dirtune.errors import Fault, InputError
from dirtune.label_transform import compute_bin_edges, restore_labels, transform_labels
from dirtune.manifest import LabelSpec, ShotRule
from dirtune.randomness import derive_seed
from dirtune.wording import format_count

HELD_SHARES: dict[HoldOut, float] = {"extrapolation": 0.2, "interpolation": 0.2, "blind_spots": 0.15}
"""Default share of all rows that is held out."""

# Quantiles of the rows: outlying labels must not stretch a profile.
_BULK = (0.05, 0.95)
# Peaks and spread, in parts of the bulk.
_DEFAULT_PEAKS: dict[Profile, tuple[tuple[float, ...], float]] = {
    "exponential": ((0.0,), 1 / 4),
    "normal": ((0.5,), 1 / 4),
    "bimodal": ((0.25, 0.75), 1 / 8),
}
# Down to the last digit of a float.
_BISECTIONS = 60


def find_held_out_bins(density: NDArray[np.int64], label: LabelSpec, settings: Splitting) -> tuple[int, ...]:
    """Return the label bins that training lacks, ascending.

    With bands, the bins whose center is in one. Without, those whose middle quantile `(rows below + half the bin) / rows`
    is in `[0, s/2)` or `[1 - s/2, 1]` (extrapolation), within `s/2` of the median (interpolation), or within
    `s / (2 spots)` of one of the quantiles `(i + 1/2) / spots` (blind_spots); each interval contains at least one bin.

    Args:
        density: rows of all splits in each label bin, shape `(num_bins,)`.
        label: of the rows.
        settings: the request.

    Raises:
        InputError: no row, or every row, would be held out.
    """
    if settings.hold_out == "none":
        return ()
    held = np.zeros(len(density), dtype=np.bool_)
    if settings.bands is not None:
        centers = _compute_centers(label)
        for low, high in settings.bands:
            held |= (centers >= low) & (centers < high)
    else:
        middles = np.cumsum(density) / density.sum() - density / (2 * density.sum())
        for low, high in _make_quantile_intervals(settings):
            inside = (middles >= low) & (middles < high)
            # A single bin that has more rows than the whole interval may have its middle outside of it.
            if not density[inside].any():
                distances = np.abs(middles - (low + min(high, 1.0)) / 2)
                inside[np.argmin(np.where(density > 0, distances, np.inf))] = True
            held |= inside
    _check_held_out_bins(density, held, label, settings)
    return tuple(np.flatnonzero(held).tolist())


def _check_held_out_bins(
    density: NDArray[np.int64], held: NDArray[np.bool_], label: LabelSpec, settings: Splitting
) -> None:
    """Raise if no row or every row would be held out, or a bin with many more rows than asked for, as zeros of rain are."""
    lost, rows = int(density[held].sum()), int(density.sum())
    if settings.bands is not None:
        if not 0 < lost < rows:
            edges = compute_bin_edges(label)[[np.flatnonzero(density)[0], np.flatnonzero(density)[-1] + 1]]
            rule = (
                f"the held-out bands must contain some of the rows and not all, whose label bins extend from "
                f"{_format_edge(edges[0])} to {_format_edge(edges[1])}; rows held out"
            )
            raise InputError(Fault(where="split", key="bands", rule=rule, got=lost))
        return
    share = settings.held_share or HELD_SHARES[settings.hold_out]
    heaviest = int(np.argmax(np.where(held, density, 0)))
    part = density[heaviest] / rows
    if part > max(0.5, 2 * share):
        low, high = map(_format_edge, compute_bin_edges(label)[[heaviest, heaviest + 1]])
        rule = (
            f"the label bin [{low}, {high}) has {part:.0%} of all rows, so that it cannot be among the {share:.0%} that "
            f"{settings.hold_out} holds out{_suggest_bands(density, label)}"
        )
    elif lost == rows:
        rule = (
            f"{settings.hold_out} would hold out all rows, whose labels are in {format_count(int(np.count_nonzero(density)), 'bin')}"
            f"{_suggest_bands(density, label)}"
        )
    else:
        return
    raise InputError(Fault(where="split", key="hold_out", rule=rule))


def _suggest_bands(density: NDArray[np.int64], label: LabelSpec) -> str:
    """Return a band outside of the bin with the most rows, as the end of a sentence: the outer half of its larger side."""
    heaviest, edges = int(density.argmax()), compute_bin_edges(label)
    below, above = density[:heaviest], density[heaviest + 1 :]
    if not below.any() and not above.any():
        return "; labels in one bin cannot be divided: set a smaller bin_width"
    if above.sum() >= below.sum():
        outer = np.flatnonzero(np.cumsum(above) * 2 >= above.sum())[0]
        first, end = heaviest + 1 + int(outer), len(density)
    else:
        outer = np.flatnonzero(np.cumsum(below[::-1]) * 2 >= below.sum())[0]
        first, end = 0, heaviest - int(outer)
    return f"; give the bands, such as bands=[[{_format_edge(edges[first])}, {_format_edge(edges[end])}]]"


def _format_edge(edge: float) -> str:
    """Return the edge of a bin with enough digits that another bin is not meant."""
    return f"{edge:.12g}"


def _make_quantile_intervals(settings: Splitting) -> list[tuple[float, float]]:
    share = settings.held_share or HELD_SHARES[settings.hold_out]
    if settings.hold_out == "extrapolation":
        return [(0.0, share / 2), (1 - share / 2, np.inf)]
    spots = settings.spots if settings.hold_out == "blind_spots" else 1
    half = share / (2 * spots)
    centers = [(spot + 0.5) / spots for spot in range(spots)]
    return [(center - half, center + half) for center in centers]


def _compute_centers(label: LabelSpec) -> NDArray[np.float64]:
    """Return the middle of each bin, in the label's unit."""
    middles = transform_labels(label.low, label.transform) + (np.arange(label.num_bins) + 0.5) * label.bin_width
    return restore_labels(middles, label.transform)


def remove_held_out(
    splits: SplitNames, bins: NDArray[np.int64], held: Sequence[int], *, from_validation: bool
) -> SplitNames:
    """Return the splits without the training rows of the held-out bins, and without their validation rows if asked for.

    Test rows are kept.
    """
    reduced = [TRAIN, VAL] if from_validation else [TRAIN]
    lost = np.isin(bins, list(held)) & np.isin(splits, reduced)
    return np.where(lost, LEFT_OUT, splits)


def make_held_out_rule(held: Sequence[int], num_bins: int) -> ShotRule:
    """Return a shot rule whose region `few` is the held-out bins and `many` all others; `medium` is empty."""
    seen = tuple(index for index in range(num_bins) if index not in set(held))
    return ShotRule(many_bins=seen, medium_bins=())


def compute_profile(density: NDArray[np.int64], label: LabelSpec, settings: Splitting) -> NDArray[np.float64]:
    """Return the profile's relative density in each label bin, 0 where there are no rows; shape `(num_bins,)`.

    With the bin's center `c` and `d = c - peak`, summed over the peaks: exponential `exp(-|d| / spread)`; normal and
    bimodal `exp(-d^2 / (2 spread^2))`. inverse is `1 / n_b`, which on a long tail keeps a handful of rows unless a number
    is given. Default peaks are at the low end of the bulk (exponential), in its middle (normal), or at its quarter points
    (bimodal); the bulk extends from the 5 % to the 95 % quantile of the rows, so that outlying labels do not stretch it.
    """
    occupied = density > 0
    if settings.profile == "inverse":
        return occupied / np.maximum(density, 1)
    centers = _compute_centers(label)
    relative_peaks, relative_spread = _DEFAULT_PEAKS[settings.profile]
    low, high = centers[np.searchsorted(np.cumsum(density), np.array(_BULK) * density.sum())]
    length = float(max(high - low, label.bin_width))
    peaks = np.array(settings.peaks or [low + length * each for each in relative_peaks])
    steps = np.abs(centers[:, None] - peaks) / (settings.spread or length * relative_spread)
    shape = np.exp(-steps if settings.profile == "exponential" else -(steps**2) / 2)
    return np.where(occupied, shape.sum(axis=1), 0.0)


def compute_profile_quotas(
    density: NDArray[np.int64], profile: NDArray[np.float64], *, tolerance: float = 0.0, rows: int | None = None
) -> NDArray[np.int64]:
    """Return the rows to keep of each bin: `min(n_b, scale * profile_b)`, rounded to whole rows of the same sum.

    The scale is the one that yields `rows` rows, or else the largest whose total variation distance from the profile is
    within the tolerance (before rounding).

    Args:
        density: training rows in each bin, shape `(num_bins,)`.
        profile: relative density, shape `(num_bins,)`, positive only where there are rows.
        tolerance: total variation distance; used if `rows` is None.
        rows: number of rows to keep.

    Raises:
        InputError: the bins that the profile covers have fewer than `rows` rows, or none at all.
    """
    covered = profile > 0
    if not covered.any() or (rows is not None and rows > density[covered].sum()):
        rule = f"the profile can keep at most {density[covered].sum()} training rows"
        raise InputError(Fault(where="split", key="profile_rows", rule=rule, got=rows))

    def scale_profile(scale: float) -> NDArray[np.float64]:
        return np.minimum(density, scale * profile)

    def is_accepted(scale: float) -> bool:
        scaled = scale_profile(scale)
        if rows is not None:
            return bool(scaled.sum() <= rows)
        return compute_total_variation(scaled, profile) <= tolerance

    ratios = density[covered] / profile[covered]
    # Up to the smallest ratio the profile is exact; at a scale of 0 there would be no rows to compare.
    low = 0.0 if rows is not None else float(ratios.min())
    scaled = scale_profile(_find_largest(is_accepted, low=low, high=float(ratios.max())))
    # The bisection ends a rounding error below a whole number.
    scaled = np.round(scaled, 9)
    # Rounded down, then one more for the largest remainders, so that the sum is kept.
    whole = np.floor(scaled).astype(np.int64)
    missing = round(float(scaled.sum())) - int(whole.sum())
    whole[np.argsort(whole - scaled, kind="stable")[:missing]] += 1
    return whole


def _find_largest(condition: Callable[[float], bool], *, low: float, high: float) -> float:
    """Return the largest value in `low..high` under a condition that is true at `low` and, once false, stays false."""
    if condition(high):
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if condition(middle) else (low, middle)
    return low


def select_by_quota(ids: Ids, bins: NDArray[np.int64], quota: NDArray[np.int64], *, seed: int) -> NDArray[np.bool_]:
    """Return True for `quota[b]` random rows of each bin; shape `(rows,)`. A smaller quota selects a subset."""
    return rank_within_bins(bins, rank_by_seed(ids, seed, "profile")) < quota[bins]


def select_at_random(ids: Ids, size: int, *, seed: int) -> NDArray[np.bool_]:
    """Return True for `size` random rows; shape `(rows,)`. With one seed, a smaller subset is contained in a larger one."""
    return rank_by_seed(ids, seed, "subset") < size


def select_stratified(ids: Ids, bins: NDArray[np.int64], size: int, *, seed: int) -> NDArray[np.bool_]:
    """Return True for `size` random rows, from every bin its share, plus or minus one row; nested like `select_at_random`.

    Rows are selected in the order of `(rank in the bin + u) / rows of the bin`, with the rank in a random order and one
    random `0 <= u < 1` per bin, so that the few rows of rare bins come neither all late nor all at once.
    """
    ranks = rank_by_seed(ids, seed, "subset")
    counts = np.bincount(bins)
    # One offset per bin: with equal offsets all rare bins would give their first row at the same size.
    offsets = np.random.default_rng(derive_seed(seed, "split", "offsets")).random(len(counts))
    positions = (rank_within_bins(bins, ranks) + offsets[bins]) / counts[bins]
    selected = np.zeros(len(ids), dtype=np.bool_)
    selected[np.lexsort((ranks, positions))[:size]] = True
    return selected
