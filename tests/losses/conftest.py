"""Batches for the loss tests."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.batch import TermInputs


@pytest.fixture
def term_inputs() -> Callable[..., TermInputs]:
    """Makes random `TermInputs`: integer labels from 0 to 9, one bin per label, predictions off by a few labels."""
    return _term_inputs


def _term_inputs(*, samples=8, views=2, dim=5, dtype=torch.float64, labels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if labels is None:
        labels = torch.randint(0, 10, (samples,), generator=generator).tolist()
    rows = torch.tensor(labels, dtype=dtype).repeat(views)
    noise = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(len(labels), generator=generator, dtype=torch.float64)
    vectors = torch.randn(len(rows), dim, generator=generator, dtype=torch.float64)
    return TermInputs(
        representations=normalize(vectors, dim=1).to(dtype).requires_grad_(),
        labels=rows,
        label_bins=rows.long(),
        predictions=rows + 2 * noise.to(dtype),
        weights=weights.to(dtype).repeat(views),
        samples=torch.arange(len(labels)).repeat(views),
        num_views=views,
        label_range=10.0,
    )
