"""`pytest tests/losses/test_phreg.py`: spanning trees against Kruskal's algorithm in a loop, and slopes against a fit."""

from itertools import combinations

import numpy as np
import pytest
import torch

from dirtune.losses.phreg import PHReg, compare_dimensions, compare_trees
from dirtune.testing import make_term_inputs


def _kruskal(lengths, others):
    """Edges of the tree by sorting all pairs; of equal ones, those that are shorter in the other space come first."""
    parents = list(range(len(lengths)))

    def find(row):
        while parents[row] != row:
            row = parents[row]
        return row

    edges = []
    for i, j in sorted(combinations(range(len(lengths)), 2), key=lambda edge: (lengths[edge], others[edge])):
        if find(i) != find(j):
            parents[find(i)] = find(j)
            edges.append((i, j))
    return edges


def _distances(rows):
    rows = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
    return np.linalg.norm(rows[:, None] - rows, axis=2)


def _features_and_labels(rows=14):
    inputs = make_term_inputs(samples=rows, views=1, dim=3, reads="embedding")
    return inputs.representations, inputs.labels


def test_distances_are_compared_along_both_trees():
    features, labels = _features_and_labels()
    vectors = features.detach().numpy()
    scaled = _distances(vectors / np.linalg.norm(vectors, axis=1).max())
    gaps = _distances(labels / labels.max())
    expected = sum(
        np.mean([(gaps[edge] - scaled[edge]) ** 2 for edge in _kruskal(*keys)])
        for keys in ((gaps, scaled), (scaled, gaps))
    )
    assert compare_trees(features, labels, torch.arange(14)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("signed", [False, True])
def test_the_growth_of_the_trees_is_the_slope_of_a_fit(signed):
    features, labels = _features_and_labels()
    subsets = [torch.tensor([0, 3, 5, 7, 8, 9]), torch.arange(9), torch.arange(2, 13)]
    logs = []
    for subset in subsets:
        apart, gaps = _distances(features.detach()[subset]), _distances(labels[subset])
        length = sum(apart[edge] for edge in _kruskal(apart, gaps))
        logs.append(np.log(length) - (0 if signed else np.log(sum(gaps[edge] for edge in _kruskal(gaps, apart)))))
    slope = np.polyfit(np.log([len(subset) for subset in subsets]), logs, 1)[0]
    expected = slope if signed else abs(slope)
    found = compare_dimensions(features, labels, subsets, signed=signed)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_the_term_is_the_weighted_sum_of_its_parts():
    inputs = make_term_inputs(samples=12, reads="embedding")
    both = PHReg(topology=2.0, dimension=3.0)(inputs)
    parts = PHReg(topology=2.0, dimension=0.0)(inputs), PHReg(topology=0.0, dimension=3.0)(inputs)
    assert min(part.item() for part in parts) > 0
    torch.testing.assert_close(both, sum(parts))


def test_equal_labels_have_no_dimension():
    features, _ = _features_and_labels()
    subsets = [torch.arange(7), torch.arange(10)]
    assert compare_dimensions(features, torch.full((14,), 3.0).double(), subsets).item() == 0.0
