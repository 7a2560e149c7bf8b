"""The calls on results for Python and notebooks: a study first, roots by name with defaults, and objects that show themselves.

`dirtune.table(...)` and its neighbors are the commands of the same names. A study is given as everywhere: by its name, by
its file, as a mapping or as a `dirtune.Study`. Nothing here imports torch or Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dirtune.metrics import REGIONS
from dirtune.results.analysis import recompute as recomputation
from dirtune.results.analysis import soundness
from dirtune.results.analysis import status as progress
from dirtune.signatures import check_arguments
from dirtune.study.files import StudySource, get_study_name

if TYPE_CHECKING:
    import pandas as pd

    from dirtune.results.tables.comparison import Comparison

Names = str | Sequence[str]
"""One name, or several."""


@dataclass(frozen=True)
class Table:
    """A results table: text when printed, a table in a notebook, a DataFrame on request."""

    comparison: Comparison
    """Its numbers."""

    def __str__(self) -> str:
        return self.render("table")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.render("html")

    def render(self, style: str) -> str:
        """Return the table as text: table, markdown, latex, html, csv or json."""
        from dirtune.results.tables.render.formats import render

        return render(self.comparison, style)

    def to_latex(self) -> str:
        return self.render("latex")

    def to_markdown(self) -> str:
        return self.render("markdown")

    def to_frame(self) -> pd.DataFrame:
        """Return one row per study, metric, arm or floor, and region, at full precision; columns as in the CSV format."""
        import pandas as pd

        from dirtune.results.tables.render.flat import make_lines

        lines = make_lines(self.comparison)
        return pd.DataFrame(line | {"word": line["word"] and str(line["word"])} for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON format: every cell with its values, trials and test by seed, and the footer."""
        plain: dict[str, Any] = json.loads(self.render("json"))
        return plain


@dataclass(frozen=True)
class Plot:
    """A figure in a file, which a notebook shows."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_png_(self) -> bytes | None:
        return self.path.read_bytes() if self.path.suffix == ".png" else None

    def _repr_svg_(self) -> str | None:
        return self.path.read_text(encoding="utf-8") if self.path.suffix == ".svg" else None


def table(
    study: StudySource | Sequence[StudySource],
    *,
    results: str | Path = "results",
    metric: Names = (),
    region: Names = REGIONS,
    arm: Names = (),
    row: Names = "arm",
    layout: str = "stacked",
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    margin: str | float | None = None,
    shots: str | None = None,
    bin_width: float | None = None,
    cost: bool = False,
    equal: str | None = None,
    spread: str = "sd",
    bold: str = "better",
    published: str | None = None,
    published_as: Mapping[str, str] | None = None,
    mix_data: bool = False,
) -> Table:
    """Compare the arms of one or several studies by shot region; the arguments are the options of the command.

    Args:
        study: a study, or a list of them.
        results: root of the results, a path or URL.
        metric: names; empty for that of each study's claim.
        arm: names or patterns such as `conr*`; empty for all.
        row: keys of the rows: arm, or axes by their dotted path.
        published_as: published method by arm.
        mix_data: allow trials that saw different data in one table.

    Raises:
        InputError: a study or name is unknown, trials saw different data, or a file is damaged.
    """
    from dirtune.results.tables.comparison import TableRequest, compare

    request = TableRequest(
        studies=_list_studies(study),
        metrics=_list(metric),
        regions=_list(region),
        arms=_list(arm),
        rows=_list(row),
        layout=layout,
        split=split,
        selection=selection,
        reference=reference,
        margin=margin if margin is None else str(margin),
        mix_data=mix_data,
        shots=shots,
        bin_width=bin_width,
        cost=cost,
        equal=equal,
        spread=spread,
        bold=bold,
        published=published,
        published_as=published_as or {},
    )
    return Table(compare(results, request))


def plot(
    study: StudySource,
    kind: str = "regions",
    *,
    results: str | Path = "results",
    output: str | Path | None = None,
    arm: Names = (),
    **options: Any,
) -> Plot:
    """Draw a figure of a study into a file.

    Args:
        study: a study.
        kind: regions, heatmap, forest, curve, training_curves, ... (`dirtune.results.figures`).
        results: root of the results, a path or URL.
        output: a .png, .pdf or .svg file; None means `figures/STUDY-KIND.png`.
        arm: names or patterns such as `conr*`; empty means as many as the figure has room for.
        options: x, y, metric, region, split, selection, reference, each, method, relative, plugins, allow_plugins, as for
            `dirtune.results.figures.plot`.

    Raises:
        InputError: a name is unknown, there is nothing to draw, or a file is damaged.
    """
    from dirtune.results.figures import plot as draw

    name = get_study_name(study)
    file = Path(output) if output is not None else Path("figures") / f"{name}-{kind}.png"
    # The options are those of the figures, with their types
    draw = check_arguments(draw, "dirtune.plot")
    return Plot(draw(results, name, kind, output=file, arms=_list(arm), **options))


def query(
    sql: str,
    *,
    results: str | Path = "results",
    study: StudySource | Sequence[StudySource] | None = None,
    limit: int | None = None,
    timeout: float | None = None,
) -> pd.DataFrame:
    """Run one read-only SQL statement on the results, and return its rows.

    Args:
        sql: over trials, metrics, epochs, predictions, floors and the views results, arms, curves.
        results: root of the results, a path or URL.
        study: only this study, or these; None means all.
        limit: maximum number of rows; None means all.
        timeout: time limit in seconds; None means none.

    Raises:
        InputError: there is no such study, a file is damaged, or the statement is invalid or takes too long.
    """
    from dirtune.results.query.query import query as run

    names = None if study is None else _list_studies(study)
    rows: pd.DataFrame = run(sql, results, studies=names, limit=limit, timeout=timeout).to_pandas()
    return rows


def report(study: StudySource, *, results: str | Path = "results", output: str | Path | None = None) -> Path:
    """Write the results of a study into one HTML file that needs no network, and return its path.

    Args:
        study: a study, finished or not.
        results: root of the results, a path or URL.
        output: the HTML file; None means `reports/STUDY.html`.

    Raises:
        InputError: the study is unknown, its trials saw different data, or a file is damaged.
    """
    from dirtune.results.report.page import write_report

    return write_report(results, get_study_name(study), output=None if output is None else Path(output))


def intervals(
    study: StudySource, *, level: float = 0.9, results: str | Path = "results", arms: Names = ()
) -> pd.DataFrame:
    """Compute split-conformal prediction intervals from the stored predictions: coverage and width by arm and shot region.

    Args:
        study: a study.
        level: share of the labels that the intervals are to cover.
        results: root of the results, a path or URL.
        arms: names or patterns such as `conr*`; empty means all.

    Raises:
        InputError: the study is unknown, or has no complete trial with predictions of val and test.
    """
    from dirtune.results.analysis.conformal import compute_intervals

    found: pd.DataFrame = compute_intervals(results, get_study_name(study), level=level, arms=_list(arms)).to_pandas()
    return found


def check(study: StudySource, *, results: str | Path = "results") -> list[soundness.Finding]:
    """Check whether the trials that a study compares are any good; raises as `table`."""
    return soundness.check_study(results, get_study_name(study))


def status(study: StudySource, *, results: str | Path = "results") -> progress.SweepStatus:
    """Return the progress of a sweep, running or not; raises InputError for an unknown study."""
    return progress.status(get_study_name(study), results=results)


def recompute(
    study: StudySource, *, metric: str, results: str | Path = "results", **options: Any
) -> dict[str, dict[str, recomputation.RegionValue]]:
    """Compute a metric by trial and region from the stored predictions.

    Args:
        study: a study.
        metric: its name.
        results: root of the results, a path or URL.
        options: split, rule, bin_width, trials, manifest, train_labels, as for
            `dirtune.results.analysis.recompute.recompute`.

    Raises:
        InputError: a name is unknown, or the data set's manifest is missing or of other data.
    """
    compute = check_arguments(recomputation.recompute, "dirtune.recompute")
    found: dict[str, dict[str, recomputation.RegionValue]] = compute(
        results, get_study_name(study), metric=metric, **options
    )
    return found


def compact(study: StudySource, *, results: str | Path = "results") -> dict[str, int]:
    """Copy a study's many small result files into a few large ones; return the rows by table."""
    from dirtune.results.records.compaction import compact_study

    return compact_study(get_study_name(study), results=results)


def log(study: StudySource, *, to: str, results: str | Path = "results", report: str | Path | None = None) -> int:
    """Write the recorded trials of a study that a tracker lacks, and return their number; a second call writes nothing.

    Args:
        study: a study.
        to: mlflow, wandb or tensorboard; or with a place, such as `mlflow:http://host:5000`.
        results: root of the results, a path or URL.
        report: an HTML file to store as artifact; None means `reports/STUDY.html` if it exists.

    Raises:
        InputError: the study or tracker is unknown, the tracker's package is missing, or its server cannot be reached.
    """
    from dirtune.trackers.logging import log as write_log

    return write_log(get_study_name(study), to=to, results=results, report=report)


def stop(study: StudySource, *, results: str | Path = "results") -> str:
    """Ask a running sweep to end after the current epoch of every trial; return who runs it."""
    from dirtune.tuning.folder.stop_request import stop as request_stop

    return request_stop(get_study_name(study), results=results)


def _list_studies(study: StudySource | Sequence[StudySource]) -> tuple[str, ...]:
    if isinstance(study, Sequence) and not isinstance(study, str):
        return tuple(get_study_name(each) for each in study)
    return (get_study_name(study),)


def _list(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
