"""Batches for the loss tests."""

from collections.abc import Callable

import pytest

from dirtune.batch import TermInputs
from dirtune.testing import make_term_inputs


@pytest.fixture
def term_inputs() -> Callable[..., TermInputs]:
    """Makes random `TermInputs`: integer labels from 0 to 9, one bin per label, predictions off by a few labels."""
    return make_term_inputs
