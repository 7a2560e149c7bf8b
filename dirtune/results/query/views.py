"""Views for queries, in addition to the tables: `results`, `arms` and `curves`.

`results` has one row per trial: the columns of `trials`, and one column `<split>.<region>.<metric>` per number at the best
validation epoch (to be quoted: `"test.few.mae"`). `arms` has one row per study, arm, split, selection, region and metric, with
mean, standard deviation and range over the arm's complete evaluation trials; where an arm was searched these are all its
configurations, because nothing is selected here (`dirtune table` does that), unless the selected configuration was trained
on the study's seeds: then they are those trials alone. `curves` has one row per trial, epoch and name: `epochs` with the
arm, seed and status it belongs to.

Floors (`dirtune.training.floors`) are in two tables of their own, so that no statement on trials counts them: `floors` has one
row per study, floor, split, region and metric, `floor_predictions` the rows of `predictions` with study and floor.
"""

import numpy as np
import pyarrow as pa

VIEWS = {"results": ("trials", "metrics"), "arms": ("trials", "metrics"), "curves": ("trials", "epochs")}
"""Tables of each view."""

ARMS = """
CREATE VIEW arms AS
SELECT study, arm, split, selection, region, metric, count(value) AS n, avg(value) AS mean,
    stddev_samp(value) AS sd, min(value) AS min, max(value) AS max
FROM metrics JOIN trials USING (trial_id)
WHERE status = 'complete' AND role = 'evaluation'
GROUP BY ALL ORDER BY ALL
"""

CURVES = """
CREATE VIEW curves AS
SELECT study, arm, seed, trial_id, status, epoch, name, value
FROM epochs JOIN trials USING (trial_id)
ORDER BY ALL
"""

COLUMNS = {
    "results": ["all columns of trials", 'one "<split>.<region>.<metric>" per best_val metric'],
    "arms": ["study", "arm", "split", "selection", "region", "metric", "n", "mean", "sd", "min", "max"],
    "curves": ["study", "arm", "seed", "trial_id", "status", "epoch", "name", "value"],
}


def list_view_statements(metrics: pa.Table) -> list[str]:
    """Return the SQL that creates the views; the columns of `results` follow from the table `metrics`.

    Args:
        metrics: the table, whose columns of text may be dictionaries.
    """
    keys = _list_keys(metrics)
    # A number for each column of the view: a row's texts are compared once, and not once for every column
    terms, numbers, size = ["0"], [0] * len(keys), 1
    for name in ("split", "region", "metric"):
        known = list(dict.fromkeys(key[name] for key in keys))
        cases = " ".join(f"WHEN {_quote(value)} THEN {size * at}" for at, value in enumerate(known))
        terms += [f"CASE {name} {cases} END"] if known else []
        numbers = [number + size * known.index(key[name]) for number, key in zip(numbers, keys, strict=True)]
        size *= len(known)
    columns = [
        f"max(value) FILTER (number = {number}) AS " + _quote(".".join(key.values()), '"')
        for number, key in zip(numbers, keys, strict=True)
    ]
    results = (
        f"CREATE VIEW results AS SELECT * FROM trials LEFT JOIN (SELECT {', '.join(['trial_id', *columns])} FROM "
        f"(SELECT trial_id, value, {' + '.join(terms)} AS number FROM metrics WHERE selection = 'best_val') "
        "GROUP BY trial_id) USING (trial_id)"
    )
    return [results, ARMS, CURVES]


def _list_keys(metrics: pa.Table) -> list[dict[str, str]]:
    """Return the split, region and metric of every number at the best validation epoch."""
    if not metrics.num_rows:
        return []
    names = ("selection", "split", "region", "metric")
    columns = [metrics[name].combine_chunks() for name in names]
    encoded = [each if pa.types.is_dictionary(each.type) else each.dictionary_encode() for each in columns]
    texts = [each.dictionary.to_pylist() for each in encoded]
    sizes = [len(each) for each in texts]
    # Counting is faster than the aggregation of four columns of text
    numbers = np.ravel_multi_index([each.indices.to_numpy() for each in encoded], sizes)
    found = np.unravel_index(np.flatnonzero(np.bincount(numbers)), sizes)
    rows = [[known[at] for known, at in zip(texts, places, strict=True)] for places in zip(*found, strict=True)]
    return [dict(zip(names[1:], values, strict=True)) for selection, *values in rows if selection == "best_val"]


def _quote(value: str, mark: str = "'") -> str:
    """Return SQL of a text, or of a name (mark `"`)."""
    return mark + value.replace(mark, mark * 2) + mark
