"""Train, validation and test splits of any data set: `split_rows` maps rows, a recipe and a request to split names.

Everything here is numpy on ids, labels and groups; reading raw files is left to the pipelines. Every row gets exactly one
name; a row in no split is named `left_out`. All draws depend on the request's seed and the ids alone
(`rows.rank_by_seed`).

    settings.py   the request (`Splitting`) and a data set's own `SplitRecipe`
    rows.py       the rows, and the seeded order
    assign.py     `split_rows`: the steps of a request, with their notes
    partition.py  published, balanced, random and grouped splits of all rows
    thinning.py   training rows removed by label, by density, or at random
    leaks.py      samples and groups that are in two splits
    published.py  the published splits and their fingerprints
"""

from dirtune.data.splits.assign import Assignment, split_rows
from dirtune.data.splits.leaks import Leak, find_leaks, remove_leaks
from dirtune.data.splits.published import compute_split_fingerprint, describe_list, describe_split
from dirtune.data.splits.rows import LEFT_OUT, Rows
from dirtune.data.splits.settings import SplitRecipe, Splitting
from dirtune.data.splits.thinning import make_held_out_rule

__all__ = [
    "LEFT_OUT",
    "Assignment",
    "Leak",
    "Rows",
    "SplitRecipe",
    "Splitting",
    "compute_split_fingerprint",
    "describe_list",
    "describe_split",
    "find_leaks",
    "make_held_out_rule",
    "remove_leaks",
    "split_rows",
]
