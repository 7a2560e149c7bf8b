"""Distribution of the training labels as tensors, for the Balanced MSE.

Two forms, a Gaussian mixture and a histogram, in the unit of the labels that a loss is given (label units divided by
`label_scale`). Each is a mapping whose keys are the keywords of the formula that reads it (`dirtune.losses.balanced_mse`).

Source: Ren et al., CVPR 2022; official code github.com/jiawei-ren/BalancedMSE, `imdb-wiki-dir/preprocess_gmm.py` and
`get_bucket_info` in `imdb-wiki-dir/datasets.py` and `nyud2-dir/loaddata.py`.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dirtune.batch import TrainingLabels
from dirtune.errors import Fault, InputError
from dirtune.reweighting.density import label_density
from dirtune.reweighting.lds import LDS, smooth_counts


def fit_mixture(labels: TrainingLabels, components: int) -> dict[str, Tensor]:
    """Fit a Gaussian mixture to the labels: `shares (K,)`, `means (K, L)`, `covariances (K, L, L)`.

    It is the official fit: scikit-learn's default, with full covariances and random state 0, on labels in float32.

    Raises:
        InputError: there are fewer distinct labels than components.
    """
    scaled = labels.labels.double() / labels.label_scale
    points = scaled.reshape(len(scaled), -1).float().cpu().numpy()
    distinct = len(np.unique(points, axis=0))
    if distinct < components:
        rule = f"must be at most the number of distinct labels, {distinct}"
        fault = Fault(where="training labels", key="loss.components", rule=rule, got=components)
        raise InputError(fault)
    parts = _fit_mixture(points.tobytes(), points.shape[1], components)
    # New tensors for each caller, which may change them in place
    return dict(zip(("shares", "means", "covariances"), map(torch.tensor, parts), strict=True))


# A resident worker trains many trials on one set of labels, and 200,000 labels take seconds.
@lru_cache(maxsize=4)
def _fit_mixture(labels: bytes, dims: int, components: int) -> tuple[np.typing.NDArray[np.float32], ...]:
    # The import takes seconds, and only this function needs it.
    from sklearn.mixture import GaussianMixture

    points = np.frombuffer(labels, dtype=np.float32).reshape(-1, dims)
    mixture = GaussianMixture(components, random_state=0).fit(points)
    return mixture.weights_, mixture.means_, mixture.covariances_


def build_histogram(labels: TrainingLabels, lds: LDS | None) -> dict[str, Tensor]:
    """Return the label bins that are not empty, after smoothing if any: `centers` and `probabilities`, both `(bins,)`.

    Raises:
        InputError: labels of several dimensions, or an lds that does not fit the bins.
    """
    spec, dims = labels.spec, labels.labels[0].numel()
    if dims > 1:
        rule = "bni is made for labels of one dimension"
        raise InputError(Fault(where="training labels", key="loss.name", rule=rule, got=dims))
    counts = label_density(labels.label_bins.cpu().numpy(), spec.num_bins).astype(np.float64)
    if lds is not None:
        counts = smooth_counts(counts, lds, truncate=lds.published_truncation)
    (bins,) = counts.nonzero()
    centers = compute_bin_centers(labels)[bins]
    return {
        "centers": torch.tensor(centers / labels.label_scale),
        "probabilities": torch.tensor(counts[bins] / counts.sum()),
    }


def compute_bin_centers(labels: TrainingLabels) -> np.typing.NDArray[np.float64]:
    """Return the center of every label bin, in the unit of training.

    It is the bin's middle, as in Balanced MSE's code for depth; where every training label is on the edge of a bin, as whole
    years are, it is the lower edge, as in its code for ages.
    """
    spec = labels.spec
    positions = (labels.labels.double() - spec.low) / spec.bin_width
    # Float32 labels on decimal edges are off by less than a thousandth of a bin.
    on_edges = bool((positions - positions.round()).abs().max() < 1e-3)
    places = np.arange(spec.num_bins, dtype=np.float64) + (0.0 if on_edges else 0.5)
    return np.asarray(spec.low + places * spec.bin_width, dtype=np.float64)
