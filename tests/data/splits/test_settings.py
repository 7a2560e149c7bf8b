"""`pytest tests/data/splits/test_settings.py`: errors of a request."""

from __future__ import annotations

import pytest

from dirtune.data.splits import SplitRecipe, Splitting
from dirtune.errors import InputError
from dirtune.frozen import read


def _fault(**settings: object) -> str:
    with pytest.raises(InputError) as caught:
        read(Splitting, settings, where="options")
    return str(caught.value)


def test_the_default_request_changes_nothing():
    request = Splitting()
    assert (request.split, request.hold_out, request.profile) == ("published", "none", "none")
    assert (request.fraction, request.control, request.drop_leaks) == (1.0, False, False)


def test_bands_are_read_from_plain_lists():
    plain = {"hold_out": "blind_spots", "bands": [[47, 54]], "fraction": 1}
    assert read(Splitting, plain, where="options").bands == ((47.0, 54.0),)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bands": [[1, 2]]}, "bands needs a hold_out"),
        ({"held_share": 0.1, "control": True}, "held_share needs a hold_out"),
        ({"validation": "seen"}, "validation needs a hold_out"),
        ({"spots": 2, "hold_out": "interpolation"}, "spots needs hold_out=blind_spots"),
        ({"peaks": [3.0]}, "peaks needs a profile with peaks"),
        ({"spread": 3.0, "profile": "inverse"}, "spread needs a profile with peaks"),
        ({"profile_rows": 3}, "profile_rows needs a profile"),
        ({"tolerance": 0.1}, "tolerance needs a profile"),
        ({"balance": "natural", "split": "made"}, "balance needs split=grouped"),
        ({"control": True}, "control needs a hold_out or a profile"),
        ({"hold_out": "blind_spots", "bands": [[3, 3]]}, "low < high"),
    ],
)
def test_a_setting_without_effect_is_an_error(settings, reason):
    assert reason in _fault(**settings)


def test_shares_and_names_have_limits():
    assert "fraction" in _fault(fraction=0.0)
    assert "fraction" in _fault(fraction=1.1)
    assert "split" in _fault(split="random")
    with pytest.raises(InputError, match="one_in"):
        read(SplitRecipe, {"per_bin": 30, "one_in": 1}, where="recipe")
