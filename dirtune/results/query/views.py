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

import pyarrow as pa
import pyarrow.compute as pc

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
    """Return the SQL that creates the views; the columns of `results` follow from the table `metrics`."""
    best = metrics.filter(pc.equal(metrics["selection"], "best_val"))
    keys = best.group_by(["split", "region", "metric"]).aggregate([]).to_pylist()
    columns = [
        f"""max(value) FILTER (split = {_quote(key["split"])} AND region = {_quote(key["region"])} """
        f"""AND metric = {_quote(key["metric"])}) AS {_quote(".".join(key.values()), '"')}"""
        for key in keys
    ]
    values = ", ".join(["trial_id", *columns])
    results = (
        "CREATE VIEW results AS SELECT * FROM trials LEFT JOIN "
        f"(SELECT {values} FROM metrics WHERE selection = 'best_val' GROUP BY trial_id) "
        "USING (trial_id)"
    )
    return [results, ARMS, CURVES]


def _quote(value: str, mark: str = "'") -> str:
    """Return SQL of a text, or of a name (mark `"`)."""
    return mark + value.replace(mark, mark * 2) + mark
