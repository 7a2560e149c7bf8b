"""`pytest tests/reweighting/test_init.py`: what `Reweighting` takes from its caller and from a file."""

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.reweighting import FDS, LDS, Reweighting

BINS = np.array([0, 1, 1, 3])
EVERY_SCHEME = ["none", "inverse", "sqrt_inverse", "dense"]


def test_everything_off_is_the_default():
    plain = Reweighting().model_dump(mode="json")
    assert plain == {"scheme": "none", "clip": None, "alpha": 1.0, "lds": None, "fds": None}


@pytest.mark.parametrize("scheme", EVERY_SCHEME)
def test_labels_may_be_a_column(scheme):
    labels = np.array([0.0, 1.0, 1.0, 3.0])
    column = Reweighting(scheme=scheme).compute_weights(BINS, 4, labels=labels[:, None])
    assert column.tolist() == Reweighting(scheme=scheme).compute_weights(BINS, 4, labels=labels).tolist()


def test_flattened_bins_of_two_dimensions_are_weighed_as_they_come():
    weights = Reweighting(scheme="inverse").compute_weights(BINS, 4, labels=np.zeros((4, 2)))
    assert weights.tolist() == Reweighting(scheme="inverse").compute_weights(BINS, 4).tolist()


@pytest.mark.parametrize(
    ("settings", "key"), [({"scheme": "dense"}, "scheme"), ({"scheme": "inverse", "lds": LDS()}, "lds")]
)
def test_dense_weights_and_lds_refuse_two_dimensions(settings, key):
    with pytest.raises(InputError) as refusal:
        Reweighting(**settings).compute_weights(BINS, 4, labels=np.zeros((4, 2)))
    (fault,) = refusal.value.faults
    assert str(fault) == f"training labels: reweighting.{key}: is made for labels of one dimension, got 2"


def test_dense_weights_need_the_labels_and_are_no_weights_of_bins():
    with pytest.raises(ValueError, match="needs the labels"):
        Reweighting(scheme="dense").compute_weights(BINS, 4)
    with pytest.raises(ValueError, match="no weights of bins"):
        Reweighting(scheme="dense").compute_bin_weights(np.array([1, 2, 0, 1]))


@pytest.mark.parametrize("scheme", EVERY_SCHEME)
def test_fds_goes_with_every_scheme_and_changes_no_weight(scheme):
    raw = {"scheme": scheme, "fds": {"first_bin": 3}}
    settings = read(Reweighting, raw, where="study.yaml")
    assert settings.fds == FDS(first_bin=3)
    labels = np.array([0.0, 1.0, 1.0, 3.0])
    expected = Reweighting(scheme=scheme).compute_weights(BINS, 4, labels=labels)
    assert settings.compute_weights(BINS, 4, labels=labels).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"scheme": "squared"}, "scheme"),
        ({"fds": {"size": 4}}, "fds.size"),
        ({"scheme": "inverse", "lds": {"first_bin": -1}}, "lds.first_bin"),
    ],
)
def test_impossible_settings_are_refused_with_their_key(raw, key):
    with pytest.raises(InputError) as refusal:
        read(Reweighting, raw, where="study.yaml")
    assert [fault.key for fault in refusal.value.faults] == [key]
