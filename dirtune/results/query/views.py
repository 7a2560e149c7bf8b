"""The views that a query may ask besides the tables: `results`, `arms` and `curves`.

`results` has one row per trial: the columns of `trials`, and one column `<split>.<region>.<metric>` per number at the best
validation epoch (to be quoted: `"test.few.mae"`). `arms` has one row per study, arm, split, selection, region and metric, with
mean, standard deviation and range over the arm's complete trials; where an arm was searched these are all its
configurations, for nothing is selected here (`dirtune table` does that), unless what the search selected was trained anew on the
study's seeds: then they are those trials alone. `curves` has one row per trial, epoch and name:
`epochs` with the arm, seed and status it belongs to.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

# What each view is made of.
VIEWS = {"results": ("trials", "metrics"), "arms": ("trials", "metrics"), "curves": ("trials", "epochs")}

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


def view_statements(metrics: pa.Table) -> list[str]:
    """SQL that creates the views; `metrics` says which columns `results` has."""
    return [_results(metrics), ARMS, CURVES]


def _results(metrics: pa.Table) -> str:
    best = metrics.filter(pc.equal(metrics["selection"], "best_val"))
    keys = best.group_by(["split", "region", "metric"]).aggregate([]).to_pylist()
    columns = [
        f"""max(value) FILTER (split = {_text(key["split"])} AND region = {_text(key["region"])} """
        f"""AND metric = {_text(key["metric"])}) AS {_name(".".join(key.values()))}"""
        for key in keys
    ]
    values = ", ".join(["trial_id", *columns])
    return (
        "CREATE VIEW results AS SELECT * FROM trials LEFT JOIN "
        f"(SELECT {values} FROM metrics WHERE selection = 'best_val' GROUP BY trial_id) "
        "USING (trial_id)"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'
