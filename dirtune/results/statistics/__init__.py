"""Statistics of a study: pure functions on plain numbers, without access to files, tables or figures.

    paired.py      two arms, or two parts, seed by seed     joint.py       the same over seeds and test samples
    influence.py   every sample's part in a metric          verdict.py     helps, hurts, same, open
    margin.py      the largest difference that is none      power.py       seeds and samples that a comparison needs
    sequential.py  seeds added until a comparison is settled
    ranks.py       mean ranks of several arms               greedy.py      path through the parts of an arm
    importance.py  searched settings

The coverage that each interval has in simulations (`benchmarks/coverage.py`) is documented where it is computed.
"""
