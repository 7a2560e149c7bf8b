"""`pytest tests/losses/test_srl.py`: centers, coverage and smoothness against loops, and the surrogate over epochs."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from dirtune.losses.srl import SRL, srl
from dirtune.testing import fit, make_term_inputs


def _unit(vector):
    return vector / np.linalg.norm(vector)


def test_the_three_parts_are_those_of_loops():
    rng = np.random.default_rng(0)
    vectors, bins = rng.normal(size=(7, 3)), [0, 0, 2, 2, 2, 3, 5]
    surrogate, points = rng.normal(size=(6, 3)), rng.normal(size=(9, 3))
    values = np.array([0.0, 1.0, 2.5, 3.0, 5.0, 6.0])
    # No row and no training row is in bin 4.
    kept = [0, 1, 2, 3, 5]
    centers = {}
    for k in kept:
        own = [_unit(vector) for vector, each in zip(vectors, bins, strict=True) if each == k]
        centers[k] = _unit(np.mean(own, axis=0) if own else surrogate[k])
    contrast = 0.0
    for vector, own in zip(vectors, bins, strict=True):
        shares = {k: np.exp(_unit(vector) @ centers[k] / 0.3) for k in kept}
        contrast -= np.log(shares[own] / sum(shares.values())) / len(bins)
    envelope = 1 - np.mean([max(point @ centers[k] for k in kept) for point in points])
    steps = [np.sum((centers[b] - centers[a]) ** 2) / (values[b] - values[a]) for a, b in pairwise(kept)]
    found = srl(
        torch.tensor(vectors),
        torch.tensor(bins),
        surrogate=torch.tensor(surrogate),
        points=torch.tensor(points),
        bin_values=torch.tensor(values),
        left_out=torch.tensor([k == 4 for k in range(6)]),
        tau=0.3,
    )
    for part, expected in zip(found, (contrast, envelope, sum(steps)), strict=True):
        assert part.item() == pytest.approx(expected, rel=1e-12)


def test_the_term_begins_when_the_surrogate_is_known_and_points_are_drawn_per_run_or_step():
    inputs = make_term_inputs()
    empty = fit(SRL())
    empty.epochs.zero_()
    assert empty(inputs).item() == 0.0
    assert fit(SRL())(inputs).item() > 0
    per_run, per_step = fit(SRL(points=5)), fit(SRL(points=5, points_per="step"))
    steps = [replace(inputs, draw_seed=seed) for seed in (1, 2, 1)]
    assert len({per_run(step).item() for step in steps}) == 1
    first, second, again = (per_step(step).item() for step in steps)
    assert first == again != second
