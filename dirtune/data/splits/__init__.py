"""Split making for any data set: `split_rows` turns rows, a recipe and a user's request into one split name per row.

Everything here is numpy on ids, labels and groups; raw files are the pipelines' business. No row is lost or doubled: a row
that no split holds is named `left_out`. All draws depend on the request's seed and the ids alone (`rows.seeded_ranks`).

    settings.py  what can be asked for                    grouped.py   splits that no group crosses
    rows.py      what goes in, and the seeded order       holdout.py   labels that training lacks
    assign.py    the request, step by step                profiles.py  other densities, nested shares
    bases.py     its first step, with its notes           leaks.py     what stands in two splits
    deal.py      the balanced recipe, random splits       known.py     the published splits
"""

from __future__ import annotations

from dirtune.data.splits.assign import Assignment, split_rows
from dirtune.data.splits.holdout import held_out_rule
from dirtune.data.splits.published import fingerprint_of, identify, identify_list
from dirtune.data.splits.leaks import Finding, leaks, without_leaks
from dirtune.data.splits.rows import LEFT_OUT, Rows
from dirtune.data.splits.settings import Recipe, Splitting

__all__ = [
    "LEFT_OUT",
    "Assignment",
    "Finding",
    "Recipe",
    "Rows",
    "Splitting",
    "fingerprint_of",
    "held_out_rule",
    "identify",
    "identify_list",
    "leaks",
    "split_rows",
    "without_leaks",
]
