"""Shot regions of own data: many, medium and few by the density of the training labels, a third of the test samples each.

The published limits (more than 100, fewer than 20 training samples per bin) suit sets of ten thousand samples with bins of a
year: of a table with four hundred rows, all bins are few. Here the bins are ordered by the density of the training labels
around them, and cut where each region gets about a third of the test samples, so that a claim about rare labels always has
samples to rest on.
"""

from collections.abc import Sequence

import numpy as np

from dirtune.manifest import ShotRule

_NEIGHBORS = 10
"""Training samples within one standard deviation of the smoothing kernel, on average over the occupied bins."""


def fit_shot_rule(train_counts: Sequence[int], test_counts: Sequence[int]) -> ShotRule | None:
    """Return the rule with its lists of bins; None if the test samples are in fewer than three bins.

    The density is the histogram of the training labels, smoothed by a Gaussian kernel as wide as the data are sparse, but at
    least a bin: counts of single bins would cut a dense range into pieces. Bins without test samples follow those of equal
    density. Bins of equal density are one region, so that labels with few levels may leave a region empty.

    Args:
        train_counts: training samples by bin, of a label of one dimension.
        test_counts: test samples by bin.
    """
    # Imported here: it takes a quarter of a second.
    from scipy.ndimage import gaussian_filter1d

    train, test = np.asarray(train_counts, dtype=np.float64), np.asarray(test_counts, dtype=np.int64)
    tested = np.flatnonzero(test)
    if len(tested) < 3 or not train.any():
        return None
    width = max(1.0, _NEIGHBORS / (2 * train[train > 0].mean()))
    density = gaussian_filter1d(train, width, mode="constant")
    order = tested[np.argsort(density[tested], kind="stable")]
    samples = np.cumsum(test[order])
    # Each region has at least one bin.
    first = int(np.abs(samples[:-2] - samples[-1] / 3).argmin())
    second = first + 1 + int(np.abs(samples[first + 1 : -1] - samples[-1] * 2 / 3).argmin())
    few_up_to, medium_up_to = density[order[first]], density[order[second]]
    return ShotRule(
        many_bins=tuple(np.flatnonzero(density > medium_up_to).tolist()),
        medium_bins=tuple(np.flatnonzero((density > few_up_to) & (density <= medium_up_to)).tolist()),
    )
