"""`pytest tests/reweighting/test_lds.py`: LDS against the formula written as loops and the published weights."""

from math import exp, floor, sqrt

import numpy as np
import pytest
from pydantic import ValidationError

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.reweighting import LDS, Reweighting
from dirtune.reweighting.lds import make_kernel_window, smooth_counts
from tests.golden.vectors import load_reweighting

KERNELS = [
    pytest.param(LDS(kernel=kernel, size=size, sigma=sigma), id=f"{kernel}_{size}_{sigma:g}")
    for kernel, size, sigma in [("gaussian", 5, 2.0), ("triang", 5, 2.0), ("laplace", 5, 2.0), ("gaussian", 9, 1.0)]
]
SCHEMES = [("inverse", "inverse"), ("sqrt_inverse", "sqrt_inv")]


def _window_by_loops(kernel, size, sigma):
    """The gaussian's tails run to four sigma and come back at the mirrors half a bin outside the window."""
    half = size // 2
    if kernel == "triang":
        return [1 - abs(bin_ - half) / (half + 1) for bin_ in range(size)]
    if kernel == "laplace":
        return [exp(-abs(bin_ - half) / sigma) for bin_ in range(size)]
    window = [0.0] * size
    reach = floor(4 * sigma + 0.5)
    for offset in range(-reach, reach + 1):
        position = half + offset
        while not 0 <= position < size:
            position = -1 - position if position < 0 else 2 * size - 1 - position
        window[position] += exp(-(offset**2) / (2 * sigma**2))
    return [value / max(window) for value in window]


def _weights_by_loops(bins, num_bins, scheme, window):
    counts = [float(sum(other == index for other in bins)) for index in range(num_bins)]
    counts = [sqrt(count) if scheme == "sqrt_inverse" else count for count in counts]
    half = len(window) // 2
    inverse = []
    for index in bins:
        reach = range(max(0, index - half), min(num_bins, index + half + 1))
        inverse.append(1 / sum(window[half + other - index] * counts[other] for other in reach))
    return [value * len(bins) / sum(inverse) for value in inverse]


@pytest.mark.parametrize("kernel", ["gaussian", "triang", "laplace"])
@pytest.mark.parametrize(("size", "sigma"), [(1, 1.0), (3, 2.0), (5, 2.0), (9, 1.0), (9, 2.5)])
def test_kernels_equal_their_formula_written_as_loops(kernel, size, sigma):
    expected = _window_by_loops(kernel, size, sigma)
    np.testing.assert_allclose(make_kernel_window(kernel, size, sigma), expected, rtol=1e-12)


@pytest.mark.parametrize("lds", KERNELS)
@pytest.mark.parametrize("scheme", ["inverse", "sqrt_inverse"])
def test_smoothed_weights_equal_the_formula_written_as_loops(lds, scheme):
    bins = np.random.default_rng(0).geometric(0.2, size=60).clip(max=15) - 1
    window = _window_by_loops(lds.kernel, lds.size, lds.sigma)
    weights = Reweighting(scheme=scheme, lds=lds).compute_weights(bins, num_bins=16)
    expected = _weights_by_loops(bins.tolist(), 16, scheme, window)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


@pytest.mark.parametrize("lds", KERNELS)
def test_smoothed_weights_have_mean_one(lds):
    bins = np.random.default_rng(1).poisson(6.0, size=300)
    weights = Reweighting(scheme="inverse", clip=(5, 1000), lds=lds).compute_weights(bins, num_bins=30)
    assert weights.mean() == pytest.approx(1.0, rel=1e-12)


def test_a_window_of_one_bin_smooths_nothing():
    bins = np.random.default_rng(2).poisson(4.0, size=100)
    plain = Reweighting(scheme="inverse").compute_weights(bins, num_bins=20)
    smoothed = Reweighting(scheme="inverse", lds=LDS(size=1)).compute_weights(bins, num_bins=20)
    np.testing.assert_allclose(smoothed, plain, rtol=1e-12)


@pytest.mark.parametrize(("boundary", "expected"), [("constant", [4.0, 6.0, 8.0]), ("reflect", [6.0, 6.0, 12.0])])
def test_beyond_the_ends_there_is_nothing_or_the_mirrored_counts(boundary, expected):
    lds = LDS(kernel="triang", size=3, boundary=boundary)
    assert smooth_counts(np.array([4.0, 0.0, 8.0]), lds).tolist() == expected


def test_truncation_cuts_smoothed_counts_to_integers():
    lds = LDS(kernel="triang", size=3)
    counts = np.array([3.0, 1.0, 0.0])
    assert smooth_counts(counts, lds).tolist() == [3.5, 2.5, 0.5]
    assert smooth_counts(counts, lds, truncate=True).tolist() == [3.0, 2.0, 0.0]


def test_bins_below_the_first_take_its_smoothed_count():
    counts = np.array([100.0, 50.0, 4.0, 0.0, 8.0])
    lds = LDS(kernel="triang", size=3, boundary="reflect", first_bin=2)
    assert smooth_counts(counts, lds).tolist() == [6.0, 6.0, 6.0, 6.0, 12.0]


def test_a_first_bin_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="first_bin: must be one of the 3 label bins, got 3"):
        Reweighting(scheme="inverse", lds=LDS(first_bin=3)).compute_weights(np.array([0, 1]), 3)


def test_a_first_bin_without_samples_is_refused_where_bins_below_it_have_some():
    lds = LDS(size=1, first_bin=1)
    with pytest.raises(InputError, match="first_bin: must be a bin with training samples"):
        Reweighting(scheme="inverse", lds=lds).compute_weights(np.array([0, 2, 2]), 3)


def _depth_weights_by_loops(counts, scheme, window, first):
    """The weights of all bins as the script for NYUD2 makes them, with float counts."""
    roots = [sqrt(count) if scheme == "sqrt_inverse" else count for count in counts[first:]]
    num, half = len(roots), len(window) // 2
    smoothed = []
    for index in range(num):
        total = 0.0
        for offset in range(-half, half + 1):
            at = index + offset
            at = -1 - at if at < 0 else 2 * num - 1 - at if at >= num else at
            total += window[half + offset] * roots[at]
        smoothed.append(total)
    smoothed = [smoothed[0]] * first + smoothed
    scale = sum(counts) / sum(n / c for n, c in zip(counts, smoothed, strict=True))
    return [scale / c for c in smoothed]


@pytest.mark.parametrize("scheme", ["inverse", "sqrt_inverse"])
@pytest.mark.parametrize("lds", [*KERNELS, pytest.param(LDS(size=1), id="not_smoothed")])
def test_bin_weights_of_depths_equal_the_published_form_written_as_loops(lds, scheme):
    counts = np.random.default_rng(3).integers(1_000_000, 150_000_000, size=100)
    counts[:7] = 0
    settings = lds.model_copy(update={"boundary": "reflect", "first_bin": 7})
    weights = Reweighting(scheme=scheme, lds=settings).compute_bin_weights(counts)
    window = _window_by_loops(lds.kernel, lds.size, lds.sigma)
    expected = _depth_weights_by_loops(counts.tolist(), scheme, window, 7)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert counts @ weights / counts.sum() == pytest.approx(1.0, rel=1e-12)


def test_smoothing_a_root_scheme_smooths_the_roots():
    bins = np.repeat([0, 1], [9, 1])
    lds = LDS(kernel="triang", size=3)
    weights = Reweighting(scheme="sqrt_inverse", lds=lds).compute_weights(bins, num_bins=2)
    assert weights[9] / weights[0] == pytest.approx((3 + 0.5 * 1) / (1 + 0.5 * 3))


def test_the_root_can_be_applied_after_smoothing():
    bins = np.repeat([0, 1], [9, 1])
    lds = LDS(kernel="triang", size=3, root="after")
    weights = Reweighting(scheme="sqrt_inverse", lds=lds).compute_weights(bins, num_bins=2)
    assert weights[9] / weights[0] == pytest.approx(sqrt((9 + 0.5 * 1) / (1 + 0.5 * 9)))


@pytest.mark.parametrize("scheme", ["none", "dense"])
def test_lds_without_counts_is_refused_in_one_sentence(scheme):
    with pytest.raises(InputError) as refusal:
        read(Reweighting, {"scheme": scheme, "lds": {}}, where="study.yaml", prefix="reweighting")
    (fault,) = refusal.value.faults
    assert fault.rule == f"lds smooths the counts of a scheme, so scheme must not be {scheme!r}"


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 4), ("size", 0), ("sigma", 0.0), ("kernel", "box"), ("boundary", "wrap"), ("first_bin", -1)],
)
def test_an_impossible_kernel_is_refused(field, value):
    with pytest.raises(ValidationError, match=field):
        LDS(**{field: value})


@pytest.mark.parametrize("clip", [(1000, 5), (0, 10), (-1, 3)])
def test_an_impossible_clip_is_refused(clip):
    with pytest.raises(ValidationError, match="two counts in order"):
        Reweighting(scheme="inverse", clip=clip)


def test_kernels_are_the_published_ones():
    golden = load_reweighting("kernels")
    names = [name for name in golden.files if name.startswith("lds_")]
    assert len(names) == 10
    for name in names:
        _, kernel, size, sigma = name.split("_")
        window = make_kernel_window(kernel, int(size), float(sigma))
        np.testing.assert_allclose(window, golden[name], rtol=1e-12, err_msg=name)
        # Float32, summing to one
        normalized = golden[name.replace("lds_", "fds_")]
        np.testing.assert_allclose(window / window.sum(), normalized, rtol=1e-6, err_msg=name)


def _published(data_set, scheme, lds):
    golden = load_reweighting(data_set)
    ages = data_set == "lds_agedb"
    clip = (5, 1000) if ages and scheme == "inverse" else None
    bins, num_bins = (golden["labels"], 121) if ages else (golden["bin_idx"], 50)
    return golden, Reweighting(scheme=scheme, clip=clip, lds=lds).compute_weights(bins, num_bins)


@pytest.mark.parametrize("data_set", ["lds_agedb", "lds_stsb"])
@pytest.mark.parametrize(("scheme", "key"), SCHEMES)
@pytest.mark.parametrize("lds", KERNELS)
def test_smoothed_weights_are_the_intended_published_ones(data_set, scheme, key, lds):
    golden, weights = _published(data_set, scheme, lds)
    expected = golden[f"floatcount_f64__{key}__{lds.kernel}_{lds.size}_{lds.sigma:g}"]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


@pytest.mark.parametrize("data_set", ["lds_agedb", "lds_stsb"])
@pytest.mark.parametrize(("scheme", "key"), SCHEMES)
@pytest.mark.parametrize("lds", KERNELS)
def test_the_switch_gives_the_weights_of_the_official_code(data_set, scheme, key, lds):
    switched = lds.model_copy(update={"published_truncation": True})
    golden, weights = _published(data_set, scheme, switched)
    name = f"{key}__{lds.kernel}_{lds.size}_{lds.sigma:g}"
    np.testing.assert_allclose(weights, golden[f"ref_f64__{name}"], rtol=1e-12)
    np.testing.assert_allclose(weights, golden[f"ref_f32__{name}"], rtol=1e-6)
