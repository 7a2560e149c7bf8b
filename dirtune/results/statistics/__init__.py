"""Statistics of a study: pure functions on plain numbers, without access to files, tables or figures.

    paired.py      two arms, or two parts, seed by seed     two_way.py     the same over test samples, or over both
    verdict.py     helps, hurts, equivalent, undecided      power.py       seeds that a comparison needs
    sequential.py  seeds added until a decision             ranks.py       mean ranks of several arms
    greedy.py      path through the parts of an arm         importance.py  searched settings

The coverage that each interval has in simulations (`benchmarks/coverage.py`) is documented where it is computed.
"""
