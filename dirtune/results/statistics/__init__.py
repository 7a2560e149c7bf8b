"""Statistics of a study: pure functions on plain numbers, without a look at files, tables or figures.

`paired` compares two arms seed by seed, `paired_tests` without assuming normal differences, `effects` says how large a
difference is, `bootstrap` and `hierarchical` give intervals (over seeds; over seeds and test samples), `power` how many seeds
a question needs, and `verdict` puts an answer into a word. What each interval really covers was simulated
(`benchmarks/coverage.py`) and stands with it.
"""
