"""`pytest tests/losses/test_label_prior.py`: mixtures and histograms of labels; those of AgeDB are the published ones."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from dirtune.batch import TrainingLabels
from dirtune.errors import InputError
from dirtune.losses.label_prior import build_histogram, fit_mixture
from dirtune.manifest import LabelSpec
from dirtune.reweighting import LDS
from tests.golden.vectors import load_reweighting

# The fit stops once a step of the EM algorithm raises the mean log-likelihood by less than this (scikit-learn's `tol`). Until
# then steps amplify what the matrix kernels of a machine round differently: by 9e-5 of a parameter between two machines.
EM_TOLERANCE = 1e-3

AGE = LabelSpec(name="age", unit="years", low=0.0, high=120.0, bin_width=1.0, num_bins=121)
DEPTH = LabelSpec(name="depth", unit="m", low=0.0, high=1.0, bin_width=0.1, num_bins=10)


def _training_labels(labels, spec=AGE, scale=1.0):
    labels = torch.as_tensor(labels, dtype=torch.float64)
    first = labels if labels.ndim == 1 else labels[:, 0]
    bins = ((first - spec.low) / spec.bin_width + 1e-6).long().clamp(0, spec.num_bins - 1)
    return TrainingLabels(labels=labels, label_bins=bins, spec=spec, label_scale=scale)


def _ages(seed):
    return np.random.default_rng(seed).normal(40, 15, size=300).clip(1, 100).round()


@pytest.mark.parametrize("dims", [1, 2])
def test_the_mixture_is_that_of_scikit_learn_on_scaled_labels(dims):
    points = np.stack([_ages(0), _ages(1)], axis=1)[:, :dims]
    labels = points[:, 0] if dims == 1 else points
    found = fit_mixture(_training_labels(labels, scale=10.0), 4)
    expected = GaussianMixture(4, random_state=0).fit((points / 10).astype(np.float32))
    assert list(found) == ["shares", "means", "covariances"]
    np.testing.assert_allclose(found["shares"], expected.weights_, rtol=EM_TOLERANCE)
    np.testing.assert_allclose(found["means"], expected.means_, rtol=EM_TOLERANCE)
    np.testing.assert_allclose(found["covariances"], expected.covariances_, rtol=EM_TOLERANCE)


def test_changes_of_a_mixture_do_not_reach_the_next_one():
    labels = _training_labels(_ages(0))
    first = fit_mixture(labels, 3)
    before = first["means"].clone()
    first["means"].zero_()
    assert torch.equal(fit_mixture(labels, 3)["means"], before)


def test_more_components_than_distinct_labels_are_refused():
    with pytest.raises(InputError, match=r"loss.components: .* distinct labels, 3, got 8"):
        fit_mixture(_training_labels([1.0, 2.0, 3.0, 3.0]), 8)


def test_centers_are_lower_edges_for_whole_labels_and_middles_for_others():
    whole = build_histogram(_training_labels([3.0, 3.0, 7.0, 130.0]), None)
    assert whole["centers"].tolist() == [3.0, 7.0, 120.0]
    assert whole["probabilities"].tolist() == [0.5, 0.25, 0.25]
    fractional = build_histogram(_training_labels([3.0, 3.2, 7.0]), None)
    assert fractional["centers"].tolist() == [3.5, 7.5]


def test_centers_are_in_the_unit_that_the_loss_is_given():
    depths = _training_labels([0.11, 0.17, 0.93], DEPTH, scale=0.5)
    np.testing.assert_allclose(build_histogram(depths, None)["centers"], [0.3, 1.9])


def test_float32_labels_on_decimal_edges_are_on_edges():
    edges = _training_labels(np.array([0.1, 0.3, 0.7], dtype=np.float32), DEPTH)
    np.testing.assert_allclose(build_histogram(edges, None)["centers"], [0.1, 0.3, 0.7])


def test_a_smoothed_histogram_reaches_into_empty_bins():
    found = build_histogram(_training_labels([3.0, 3.0]), LDS(kernel="triang", size=3))
    assert found["centers"].tolist() == [2.0, 3.0, 4.0]
    assert found["probabilities"].tolist() == [0.25, 0.5, 0.25]


def test_bins_below_the_first_have_its_probability_even_without_smoothing():
    lds = LDS(size=1, boundary="reflect", first_bin=7)
    found = build_histogram(_training_labels([0.75, 0.75, 0.85], DEPTH), lds)
    np.testing.assert_allclose(found["centers"], np.arange(9) / 10 + 0.05)
    np.testing.assert_allclose(found["probabilities"], [2 / 17] * 8 + [1 / 17])


def test_a_histogram_of_labels_of_several_dimensions_is_refused():
    with pytest.raises(InputError, match="bni is made for labels of one dimension, got 2"):
        build_histogram(_training_labels([[1.0, 2.0], [3.0, 4.0]]), None)


def test_the_mixture_of_agedb_is_the_published_one():
    golden = load_reweighting("balanced_mse")
    ages = load_reweighting("lds_agedb")["labels"]
    found = fit_mixture(_training_labels(ages), 8)
    np.testing.assert_allclose(found["shares"], golden["agedb_gmm_weights"], rtol=EM_TOLERANCE)
    np.testing.assert_allclose(found["means"], golden["agedb_gmm_means"], rtol=EM_TOLERANCE)
    np.testing.assert_allclose(found["covariances"], golden["agedb_gmm_variances"], rtol=EM_TOLERANCE)


@pytest.mark.parametrize(("lds", "name"), [(None, "bni_agedb"), (LDS(published_truncation=True), "bni_agedb_lds")])
def test_the_histogram_of_agedb_is_the_published_one(lds, name):
    golden = load_reweighting("balanced_mse")
    ages = load_reweighting("lds_agedb")["labels"]
    found = build_histogram(_training_labels(ages), lds)
    assert found["centers"].tolist() == golden[f"{name}_centers"].tolist()
    np.testing.assert_allclose(found["probabilities"], golden[f"{name}_weights"], rtol=1e-12)
