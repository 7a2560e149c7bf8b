from __future__ import annotations

import numpy as np

from dirtune.results.statistics.front import find_pareto_front


def test_the_front_is_that_of_a_double_loop() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        # With equal points
        x, y = generator.integers(0, 6, (2, 12)).tolist()
        expected = [
            not any(x[j] <= x[i] and y[j] <= y[i] and (x[j] < x[i] or y[j] < y[i]) for j in range(12))
            for i in range(12)
        ]
        assert find_pareto_front(x, y) == expected


def test_nothing_has_no_front_and_one_point_is_its_own() -> None:
    assert find_pareto_front([], []) == []
    assert find_pareto_front([1.0], [2.0]) == [True]
