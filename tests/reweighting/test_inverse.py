"""`pytest tests/reweighting/test_inverse.py`: inverse weights against the formula and the published weights."""

from math import sqrt

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.reweighting import Reweighting
from dirtune.reweighting.density import label_density
from dirtune.reweighting.inverse import compute_effective_counts, compute_inverse_weights
from tests.golden.vectors import load_reweighting


def _weights_by_loops(bins, scheme, clip):
    def inverse(index):
        count = sum(other == index for other in bins)
        count = min(max(count, clip[0]), clip[1]) if clip else count
        return 1 / {"none": 1, "inverse": count, "sqrt_inverse": sqrt(count)}[scheme]

    total = sum(inverse(index) for index in bins)
    return [inverse(index) * len(bins) / total for index in bins]


@pytest.mark.parametrize("scheme", ["none", "inverse", "sqrt_inverse"])
@pytest.mark.parametrize("clip", [None, (3, 12)])
def test_weights_equal_the_formula_written_as_loops(scheme, clip):
    bins = np.random.default_rng(0).geometric(0.25, size=80).clip(max=14)
    weights = Reweighting(scheme=scheme, clip=clip).compute_weights(bins, num_bins=16)
    np.testing.assert_allclose(weights, _weights_by_loops(bins.tolist(), scheme, clip), rtol=1e-12)


@pytest.mark.parametrize("scheme", ["none", "inverse", "sqrt_inverse"])
def test_weights_have_mean_one_over_the_training_set(scheme):
    bins = np.random.default_rng(1).poisson(4.0, size=500)
    weights = Reweighting(scheme=scheme).compute_weights(bins, num_bins=40)
    assert weights.mean() == pytest.approx(1.0, rel=1e-12)


def test_without_a_scheme_every_weight_is_exactly_one():
    weights = Reweighting().compute_weights(np.array([0, 0, 0, 2]), num_bins=4)
    assert weights.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_clipping_raises_empty_bins_too():
    counts = compute_effective_counts(np.array([0, 3, 2000]), "inverse", (5, 1000))
    assert counts.tolist() == [5.0, 5.0, 1000.0]


def test_a_sample_in_a_rarer_bin_weighs_in_inverse_proportion():
    weights = compute_inverse_weights(np.array([1.0, 4.0]), np.array([1, 4]))
    np.testing.assert_allclose(weights, [2.5, 0.625])


def test_a_bin_without_any_count_weighs_nothing():
    weights = compute_inverse_weights(np.array([0.0, 2.0, 0.5]), np.array([0, 2, 0]))
    np.testing.assert_allclose(weights, [0.0, 1.0, 4.0])


def test_samples_without_an_effective_count_are_refused():
    with pytest.raises(InputError, match=r"lds.first_bin: must be a bin with training samples.*got \[1\]"):
        compute_inverse_weights(np.array([1.0, 0.0]), np.array([3, 2]))


def test_the_weights_of_samples_are_those_of_their_bins():
    bins = np.random.default_rng(2).poisson(4.0, size=200)
    scheme = Reweighting(scheme="inverse")
    by_bin = scheme.compute_bin_weights(label_density(bins, 30))
    assert by_bin.shape == (30,)
    assert by_bin[bins].tolist() == scheme.compute_weights(bins, 30).tolist()


@pytest.mark.parametrize(("scheme", "key"), [("inverse", "inverse"), ("sqrt_inverse", "sqrt_inv")])
def test_agedb_weights_are_the_published_ones(scheme, key):
    golden = load_reweighting("lds_agedb")
    clip = (5, 1000) if scheme == "inverse" else None
    weights = Reweighting(scheme=scheme, clip=clip).compute_weights(golden["labels"], num_bins=121)
    np.testing.assert_allclose(weights, golden[f"ref_f64__{key}__nolds"], rtol=1e-12)
    np.testing.assert_allclose(weights, golden[f"ref_f32__{key}__nolds"], rtol=1e-6)


@pytest.mark.parametrize(("scheme", "key"), [("inverse", "inverse"), ("sqrt_inverse", "sqrt_inv")])
def test_sts_b_weights_are_the_published_ones(scheme, key):
    golden = load_reweighting("lds_stsb")
    weights = Reweighting(scheme=scheme).compute_weights(golden["bin_idx"], num_bins=50)
    np.testing.assert_allclose(weights, golden[f"ref_f64__{key}__nolds"], rtol=1e-12)
    np.testing.assert_allclose(weights, golden[f"ref_f32__{key}__nolds"], rtol=1e-6)


def test_agedb_and_sts_b_weights_span_the_documented_ranges():
    ages = load_reweighting("lds_agedb")["labels"]
    scores = load_reweighting("lds_stsb")["bin_idx"]
    clipped = Reweighting(scheme="inverse", clip=(5, 1000)).compute_weights(ages, 121)
    rooted = Reweighting(scheme="sqrt_inverse").compute_weights(ages, 121)
    unclipped = Reweighting(scheme="inverse").compute_weights(scores, 50)
    assert (clipped.min(), clipped.max()) == pytest.approx((0.377, 26.6), rel=2e-3)
    assert (rooted.min(), rooted.max()) == pytest.approx((0.696, 13.08), rel=1e-3)
    assert (unclipped.min(), unclipped.max()) == pytest.approx((0.245, 104.98), rel=2e-3)
    assert label_density(scores, 50).min() == 1
