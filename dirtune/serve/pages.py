"""What the pages of the web view show, read from the results; nothing here knows HTTP."""

from __future__ import annotations

import base64
import tempfile
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.metrics import EXTRA_METRICS, METRICS, REGIONS
from dirtune.plugins import FilePlugin
from dirtune.results import figures
from dirtune.results.analysis.soundness import check_study
from dirtune.results.analysis.status import SweepStatus, status
from dirtune.results.figures._plugins import list_recorded, load_figures
from dirtune.results.query.query import query
from dirtune.results.records import names, store, studies
from dirtune.results.records.compaction import list_stamps
from dirtune.results.report.content import Listing
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render import footer, grids
from dirtune.trackers.trial_log import TrialLog, read_recorded, read_running

TRIALS_PER_PAGE = 200
SQL_ROWS, SQL_SECONDS, SQL_MEMORY = 1_000, 10.0, 2_000_000_000
"""Limits of a statement: rows of its answer, time, and bytes."""
LONGEST_CELL = 2_000
"""Characters of a cell of its answer."""
MOST_CACHED = 64
TRACEBACK_BYTES = 20_000
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """A study in the list of all."""

    name: str
    question: str = ""
    recorded: int = 0
    planned: int = 0
    problem: str = ""
    """Why the study cannot be read; empty if it can."""


@dataclass(frozen=True, kw_only=True)
class ResultsTable:
    """The comparison of a study's arms, and what is unsound about its trials."""

    grids: Sequence[grids.Grid]
    notes: Sequence[str]
    findings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class TrialPage:
    """One trial."""

    log: TrialLog
    listings: Sequence[Listing]
    curves: Sequence[str]
    """Names of the values by epoch."""
    curve: str
    """The one that is drawn; empty if there is none."""
    picture: str
    """As the address of an image; empty without a curve."""
    traceback: str


@dataclass(frozen=True, kw_only=True)
class TrialsPage:
    """Some trials of a study, newest last."""

    listing: Listing
    """The first column is the trial's id."""
    page: int
    """From 1."""
    pages: int
    total: int


@dataclass
class Pages:
    """The pages of one results root."""

    root: str
    given: Sequence[FilePlugin] = ()
    """Plug-ins that are loaded already, whose figures are shown."""
    allow_plugins: bool = False
    """True: run the code of the plug-ins that sweeps have recorded, and show their figures."""
    _cache: dict[Hashable, Any] = field(default_factory=dict)
    """The last used values are last."""
    _cache_lock: Lock = field(default_factory=Lock)
    """Requests have a thread each."""
    _drawing: Lock = field(default_factory=Lock)
    """matplotlib's settings are global."""

    def list_studies(self) -> list[StudyLine]:
        """Return all studies of the root; none if there is no study yet."""
        try:
            found = studies.open_studies(self.root)
        except InputError:
            return []
        return [_summarize(name, folder) for name, folder in found.items()]

    def open_study(self, name: str) -> Storage:
        """Return the folder of a study; raises InputError, with the names of all, if there is none."""
        return studies.open_study(self.root, name)

    def read_info(self, name: str) -> studies.StudyInfo:
        """Return the facts of a study."""
        return studies.read_study(self.open_study(name))

    def read_status(self, name: str) -> SweepStatus:
        """Return the progress of a study."""
        return status(name, results=self.root)

    def make_table(self, request: TableRequest) -> ResultsTable:
        """Return the table of one study, with its findings."""
        (name,) = request.studies

        def make() -> ResultsTable:
            made = compare(self.root, request)
            # The same for every choice of columns
            findings = self._remember(name, "findings", lambda: tuple(map(str, check_study(self.root, name))))
            return ResultsTable(grids=grids.make_grids(made), notes=footer.make_footer(made), findings=findings)

        return self._remember(name, repr(request), make)

    def list_figures(self, study: str) -> tuple[list[str], str]:
        """Return the kinds of figures of a study, and a sentence on those of plug-ins that are not among them, or ""."""
        folder = self.open_study(study)
        with self._drawing:
            hidden = load_figures(folder, self.given, allow=self.allow_plugins)
            added = figures.FIGURES.get_added()
            own = {*self.given, *list_recorded(folder)}
            # Not those of another study's plug-ins, which this process may have loaded as well
            kinds = [
                kind for kind in figures.FIGURES if not isinstance(added.get(kind), FilePlugin) or added[kind] in own
            ]
        return kinds, hidden

    def draw(self, study: str, kind: str, options: Mapping[str, Any]) -> tuple[str, str]:
        """Return a figure as the address of an image, and its warnings."""

        def make() -> tuple[str, str]:
            with (
                tempfile.TemporaryDirectory() as folder,
                self._drawing,
                warnings.catch_warnings(record=True) as messages,
            ):
                warnings.simplefilter("always")
                load_figures(self.open_study(study), self.given, allow=self.allow_plugins)
                file = figures.plot(self.root, study, kind, output=Path(folder) / "figure.svg", **options)
                return _to_address(file.read_bytes()), " ".join(str(each.message) for each in messages)

        return self._remember(study, (kind, *sorted(options.items())), make)

    def list_trials(self, study: str, *, arm: str, status: str, page: int) -> TrialsPage:
        """Return a page of the recorded trials of a study.

        Args:
            study: its name.
            arm: only this one; empty means all.
            status: only this one; empty means all.
            page: number of the page, from 1.
        """
        columns = ("arm", "seed", "status", "objective", "epochs_run", "error_class", "finished_at")

        def read() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = store.read_table(self.open_study(study), "trials", columns=columns).to_pylist()
            return sorted(rows, key=lambda row: (row["finished_at"] is not None, row["finished_at"], row["trial_id"]))

        rows = [
            row
            for row in self._remember(study, "trials", read)
            if arm in ("", row["arm"]) and status in ("", row["status"])
        ]
        pages = max(1, -(-len(rows) // TRIALS_PER_PAGE))
        page = min(max(page, 1), pages)
        shown = rows[(page - 1) * TRIALS_PER_PAGE : page * TRIALS_PER_PAGE]
        return TrialsPage(
            listing=Listing(
                title="Trials",
                header=("trial", "arm", "seed", "status", "objective", "epochs", "error", "ended"),
                rows=tuple(
                    (row["trial_id"], *(_format(row[name]) for name in columns[:-1]), _format_time(row["finished_at"]))
                    for row in shown
                ),
            ),
            page=page,
            pages=pages,
            total=len(rows),
        )

    def read_trial(self, study: str, trial_id: str, curve: str = "") -> TrialPage:
        """Return one trial, recorded or running.

        Args:
            study: its study.
            trial_id: its id.
            curve: name of the value by epoch to draw; empty means the objective of the study.

        Raises:
            InputError: there is no such trial, or no such curve.
        """
        folder, info = self.open_study(study), self.read_info(study)
        log = next(read_recorded(folder, [trial_id]), None)
        if log is None:
            log = next((each for each in read_running(folder) if each.trial_id == trial_id), None)
        if log is None:
            raise InputError(Fault(where=f"study {study}", rule="no such trial, recorded or running", got=trial_id))
        curves = sorted({name for each in log.curves.values() for name in each})
        default = f"val/{info.region}/{info.metric}"
        curve = curve or (default if default in curves else next(iter(curves), ""))
        if curve and curve not in curves:
            raise InputError(Fault(where="curve", rule="unknown value", got=curve, known=curves))
        traceback = ""
        # The id is that of a trial in the results: it leads nowhere else.
        if folder.exists(name := f"trials/{log.trial_id}/traceback.txt"):
            traceback = folder.read(name)[-TRACEBACK_BYTES:].decode(errors="replace")
        listings = (
            Listing(title="Trial", header=("what", "value"), rows=tuple(log.tags.items())),
            Listing(title="Metrics", header=("metric", "value"), rows=_format_rows(log.final)),
            Listing(title="Settings", header=("setting", "value"), rows=_format_rows(log.settings)),
            Listing(title="Values by epoch", header=("value", "last"), rows=_format_rows(_get_last_values(log))),
        )
        picture = self._draw_curve(log, curve) if curve else ""
        return TrialPage(log=log, listings=listings, curves=curves, curve=curve, picture=picture, traceback=traceback)

    def run_sql(self, sql: str) -> tuple[Listing, bool]:
        """Return the rows of a read-only statement, long cells shortened, and True if there are more rows than the limit.

        Raises:
            InputError: as `query`.
        """
        found = query(sql, self.root, limit=SQL_ROWS + 1, timeout=SQL_SECONDS, memory=SQL_MEMORY)
        rows = [tuple(map(_format_cell, row.values())) for row in found.slice(0, SQL_ROWS).to_pylist()]
        return Listing(title="Rows", header=tuple(found.column_names), rows=tuple(rows)), found.num_rows > SQL_ROWS

    def _draw_curve(self, log: TrialLog, name: str) -> str:
        points = [(epoch, values[name]) for epoch, values in log.curves.items() if name in values]
        figures.check_drawable(f"of {name}", points)

        def draw() -> Figure:
            figure = Figure(figsize=(4.5, 2.6))
            axes = figure.subplots()
            axes.plot(
                [epoch for epoch, _ in points], [value for _, value in points], marker=".", color=figures.COLORS[0]
            )
            axes.set_xlabel("epoch")
            axes.set_ylabel(name.replace("$", r"\$"))
            return figure

        with self._drawing, mpl.rc_context(figures.STYLE), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "curve.svg"
            figures.write_figure(draw, file, dpi=100)
            return _to_address(file.read_bytes())

    def _remember(self, study: str, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return a value that depends on the records of a study alone, made again only after they have changed."""
        folder = self.open_study(study)
        versions = [folder.read(name) for name in (names.RESOLVED_STUDY, names.SELECTED) if folder.exists(name)]
        state = hash((tuple(list_stamps(folder).items()), *versions))
        with self._cache_lock:
            known = self._cache.pop((study, key), None)
        # Outside of the lock: two requests may make the same value, but none waits for another one's.
        value: _T = known[1] if known is not None and known[0] == state else make()
        with self._cache_lock:
            self._cache[study, key] = (state, value)
            while len(self._cache) > MOST_CACHED:
                del self._cache[next(iter(self._cache))]
        return value


CHOICES: Mapping[str, Sequence[str]] = {
    "metric": sorted({*METRICS, *EXTRA_METRICS}),
    "region": REGIONS,
    "split": tuple(reversed(names.EVALUATED_SPLITS)),
    "selection": ("best_val", "last", "oracle"),
}
"""Names that the forms offer."""


def _summarize(name: str, folder: Storage) -> StudyLine:
    """Return the line of a study; of one that is damaged, or was removed since it was listed, what is wrong with it."""
    try:
        info = studies.read_study(folder)
        return StudyLine(
            name=name,
            question=info.question,
            recorded=len(list_stamps(folder)),
            planned=sum(plan.trials or len(plan.seeds) for plan in info.plans.values()),
        )
    except InputError as error:
        return StudyLine(name=name, problem=str(error))


def _get_last_values(log: TrialLog) -> dict[str, float]:
    return {name: value for values in log.curves.values() for name, value in values.items()}


def _format_rows(values: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple((name, _format(value)) for name, value in values.items())


def _format(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _format_cell(value: Any) -> str:
    text = _format(value)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} ... ({len(text):,} characters)"


def _format_time(time: Any) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def _to_address(svg: bytes) -> str:
    """Return an SVG file as the address of an image, in which no script runs."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
