"""`pytest tests/reweighting/test_fds.py`: the settings of feature distribution smoothing, and what they refuse."""

from __future__ import annotations

import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.reweighting.fds import FDS


def test_the_defaults_are_those_of_the_paper():
    settings = FDS()
    assert (settings.kernel, settings.size, settings.sigma) == ("gaussian", 5, 2.0)
    assert (settings.start_update, settings.start_smooth, settings.momentum) == (0, 1, 0.9)
    assert not settings.published_aliasing


def test_settings_are_read_from_plain_data():
    raw = {"kernel": "laplace", "momentum": None, "clip": [0.5, 2], "zero_variance": "skip_bin"}
    settings = read(FDS, raw, where="study.yaml", prefix="reweighting.fds")
    expected = FDS(kernel="laplace", momentum=None, clip=(0.5, 2.0), zero_variance="skip_bin")
    assert settings == expected
    assert read(FDS, settings.model_dump(mode="json"), where="again") == settings


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"size": 4}, "fds.size: must be odd, so that the kernel has a center bin, got 4"),
        ({"clip": [2.0, 0.5]}, "clip must be two positive numbers in order"),
        ({"clip": [0.0, 0.5]}, "clip must be two positive numbers in order"),
        ({"momentum": 1.0}, "fds.momentum: .*less than 1"),
        ({"zero_variance": "skip"}, "fds.zero_variance: .*'skip_dimension' or 'skip_bin'"),
        ({"window": 5}, "fds.window: unknown key"),
    ],
)
def test_a_wrong_setting_is_refused_at_its_key(raw, message):
    with pytest.raises(InputError, match=message):
        read(FDS, raw, where="study.yaml", prefix="reweighting.fds")
