"""`recommend`: from own data to a recommended method, within a time limit.

    init      ingest the data, and write a study of common methods
    search    every arm tries settings in turn, the first of them the arm's own, with successive halving (ASHA)
    confirm   the selected settings of every arm are trained on fresh seeds, and compared on test data

Budget: `SEARCH_SHARE` of the time for the search. When it is over, running trials are recorded as pruned, and of every arm as
many settings count as of the arm with the fewest, in the order of their start, so that all arms have tried equally many. An arm
without a complete trial is trained with its own settings next. The rest, but for a reserve, is for fresh seeds: one for every arm
first, then as many of `MAX_SEEDS` as fit by the time that this took. A probe of some steps shortens the trainings if two
whole ones and `MIN_SEEDS` seeds of every arm do not fit, to `MIN_EPOCHS` at least.

All of it is the study file and the records. A call that was interrupted or killed is repeated, and goes on from there, with the
time limit of the new call.
"""

import math
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dirtune.data import blocks, session
from dirtune.data.init import choose_set_name, init
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import LabelTransform
from dirtune.results.records import store
from dirtune.results.report.page import write_report
from dirtune.results.tables.recommendation import describe_recommendation
from dirtune.training.train import read_vocabulary
from dirtune.training.trial import read_progress, remove_temporary_files
from dirtune.tuning import sweep as sweeps
from dirtune.tuning.folder import layout, records
from dirtune.tuning.folder.floors import record_missing_floors
from dirtune.tuning.folder.reconcile import StudyFolder
from dirtune.tuning.folder.stop_request import stop
from dirtune.tuning.interface import SweepSummary, View
from dirtune.tuning.plan import capacity, checks, plan, runtime_probe
from dirtune.wording import format_count

SEARCH_SHARE = 0.5
MAX_SETTINGS = 60
"""Settings per arm; the search ends before, if its time is over."""
MIN_SEEDS, MAX_SEEDS = 3, 10
MIN_EPOCHS = 10
REDUCTION = 3
"""Successive halving: a third of the trials goes on."""
START_SECONDS = 20.0
END_SECONDS = 30.0
"""Reserve for floors, table and report; and `END_SHARE` of the time."""
END_SHARE = 0.05
_MARK = "# Written by `dirtune recommend`"
_SEARCHING = "# Phase: search"
_CONFIRMING = "# Phase: confirmation on fresh seeds"


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Answer of `recommend`."""

    study: str
    """Name of the study, of which tables and figures can be made."""
    file: Path
    sentences: tuple[str, ...]
    """The recommended method first, then its costs, other methods and floors."""
    report: Path | None
    """The HTML report; None if no trial is recorded on fresh seeds."""
    budget: str
    """Settings, seeds and time that were used."""
    seconds: float
    stopped: str | None = None
    """Signal that ended the call before its time; None if none did."""


def recommend(
    source: Any,
    *,
    label: str | None = None,
    minutes: float = 20.0,
    name: str | None = None,
    unit: str | None = None,
    transform: LabelTransform | Literal["auto"] | None = None,
    group: str | None = None,
    options: Mapping[str, object] | None = None,
    output: str | Path | None = None,
    data: str | Path = "data",
    results: str | Path = "results",
    view: View | None = None,
    report: Callable[[str], None] = print,
) -> Recommendation:
    """Return which method for imbalanced labels suits own data, from searches and fresh seeds within a time limit.

    Args:
        source: as for `dirtune.init`, as are label, name, unit, transform, group and options.
        minutes: time limit of this call.
        output: the study file; None for `NAME_recommend.yaml` in the current folder. A file of an earlier call is continued.
        data: root of the ingested data sets.
        results: root of the results.
        view: receives the events of the sweeps.
        report: receives what is being done.

    Raises:
        InputError: as `dirtune.init`; the study file is not one of this command; or the time is too short, with one that is not.
    """
    started = time.monotonic()
    if not minutes > 0:
        raise InputError(Fault(where="recommend", key="minutes", rule="must be above 0", got=minutes))
    file = Path(output) if output is not None else Path(f"{choose_set_name(source, name)}_recommend.yaml")
    run = _Run(file=file, data=data, results=results, view=view, report=report, started=started, seconds=60 * minutes)
    if file.exists():
        if not file.read_text(encoding="utf-8").startswith(_MARK):
            rule = "exists, and is no study of `dirtune recommend`; --output names another file"
            raise InputError(Fault(where=str(file), rule=rule))
        report(f"{file}: continues from its records")
    else:
        with tempfile.TemporaryDirectory(prefix="dirtune-init-") as scratch:
            given = {"label": label, "name": name, "unit": unit, "transform": transform, "group": group}
            # `init` checks the folder of its own file only.
            if not file.absolute().parent.is_dir():
                raise InputError(Fault(where=str(file), rule="there is no folder to write it into"))
            written = init(source, **given, options=options, output=Path(scratch) / file.name, data=data, report=report)  # type: ignore[arg-type]
            text = written.read_text(encoding="utf-8").replace(str(written), str(file))
        run.plan_budget(text)
    # One for all sweeps: it starts in seconds.
    with session.ray_session():
        stopped = run.search() or run.confirm()
    return run.answer(stopped)


@dataclass(kw_only=True)
class _Run:
    """One call, with its clock."""

    file: Path
    data: str | Path
    results: str | Path
    view: View | None
    report: Callable[[str], None]
    started: float
    """By `time.monotonic`."""
    seconds: float
    """Time limit."""

    @property
    def end(self) -> float:
        """Time at which the last trial has to end."""
        return self.started + self.seconds - END_SECONDS - END_SHARE * self.seconds

    @property
    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def open_folder(self, text: str | None = None) -> StudyFolder:
        """Return the folder of the study as its file is now."""
        written = self.file.read_text(encoding="utf-8") if text is None else text
        return checks.open_study_folder(written, str(self.file), data=self.data, results=self.results)

    def plan_budget(self, text: str) -> None:
        """Write the study file with a search that fits the time, by a probe of every arm.

        Raises:
            InputError: the time is too short for it.
        """
        folder = self.open_folder(text)
        study, root = folder.study, Storage.open(self.data)
        self.report(f"{study.name}: timing some steps of every arm")
        device = runtime_probe.get_probe_device(study)
        found = blocks.read_without_ray(root, folder.manifest, device, plan.PREVIEW_MEMORY)
        probed = runtime_probe.estimate_from_probe(study, found, read_vocabulary(folder.manifest, root))
        total = sum(each.seconds for each in probed.values())
        slots = capacity.compute_concurrency(study, capacity.list_available_nodes())
        epochs = max(arm.config.recipe.epochs for arm in study.arms)
        time_left = self.seconds_left - START_SECONDS
        # With halving, the settings of an arm cost about two whole trainings and a few epochs each.
        needed = (2 + MIN_SEEDS) * total / slots
        fitting = int(epochs * min(1.0, time_left / needed)) if needed else epochs
        if fitting < min(MIN_EPOCHS, epochs):
            enough = (needed * MIN_EPOCHS / epochs + START_SECONDS + END_SECONDS) / (1 - END_SHARE) / 60
            spent = (time.monotonic() - self.started) / 60
            rule = f"too short for {len(study.arms)} methods on these data; --minutes {math.ceil(enough + spent)} is enough"
            raise InputError(Fault(where="recommend", key="minutes", rule=rule, got=self.seconds / 60))
        grace = max(1, fitting // REDUCTION**2)
        lines = {
            r"    epochs: .*": f"    epochs: {fitting}",
            r"search: .*": (
                f"search: {{trials: {MAX_SETTINGS}, sampler: random, scheduler: {{name: asha, grace_epochs: {grace}, "
                f"reduction_factor: {REDUCTION}}}, warm_start: {{presets: true}}, confirm: true, tuning_seed: 100}}"
            ),
            r"seeds: .*": "seeds: [0]",
        }
        # The first line of a starter study names its author.
        text = f"{_MARK}; every line may be changed.\n{_SEARCHING}\n{text.partition(chr(10))[2]}"
        self.write(_set_lines(text, lines))
        minutes = time_left / 60
        self.report(
            f"budget: {SEARCH_SHARE:.0%} of {minutes:.1f} minutes for a search of equally many settings in every arm (at most "
            f"{MAX_SETTINGS}, of up to {fitting} epochs), the rest for up to {MAX_SEEDS} fresh seeds"
        )

    def write(self, text: str) -> None:
        """Replace the study file as a whole, since this process may be killed at any moment."""
        Storage.open(self.file.absolute().parent).write(self.file.name, text.encode())

    def search(self) -> str | None:
        """Search until the time is over, if the search is not over; return the signal that ended it, if any."""
        if _SEARCHING not in self.file.read_text(encoding="utf-8"):
            return None
        until = self.started + (self.end - self.started) * SEARCH_SHARE
        summary = self.run_until(until, "the time of the search is over")
        if summary.stopped and summary.stopped.startswith("SIG"):
            return summary.stopped
        folder = self.open_folder()
        _record_running_trials(folder)
        settings = _equalize_searches(folder)
        text = self.file.read_text(encoding="utf-8").replace(_SEARCHING, _CONFIRMING)
        self.write(re.sub(r"(?m)^search: \{trials: \d+", f"search: {{trials: {settings}", text))
        return None

    def confirm(self) -> str | None:
        """Train the selections on fresh seeds, while there is time; return the signal that ended it, if any."""
        seeds = len(self.open_folder().study.seeds)
        while True:
            before = time.monotonic()
            known = self.count_confirmed()
            summary = self.run_until(self.end, "the time is over")
            if summary.stopped:
                return summary.stopped if summary.stopped.startswith("SIG") else None
            done = self.count_confirmed() - known
            study = self.open_folder().study
            # Without new trials there is no time to extrapolate from: an earlier call has recorded them.
            per_seed = (time.monotonic() - before) / done * len(study.arms) if done else math.inf
            more = min(MAX_SEEDS - seeds, int(0.9 * self.seconds_left / per_seed)) if per_seed > 0 else 0
            if more < 1:
                return None
            seeds += more
            self.write(
                _set_lines(self.file.read_text(encoding="utf-8"), {r"seeds: .*": f"seeds: {list(range(seeds))}"})
            )

    def count_confirmed(self) -> int:
        """Return the number of recorded trials on fresh seeds."""
        return sum(trial.role == "evaluation" for trial in records.read_recorded_trials(self.open_folder().storage))

    def run_until(self, until: float, reason: str) -> SweepSummary:
        """Sweep the study, and stop it at a time by `time.monotonic`."""
        name = self.open_folder().study.name
        with _stop_at(until, name, self.results, lambda: self.report(reason)):
            return sweeps.sweep(str(self.file), data=self.data, results=self.results, view=self.view)

    def answer(self, stopped: str | None) -> Recommendation:
        """Return the answer that the records give."""
        folder = self.open_folder()
        name, settings = folder.study.name, folder.study.search.trials
        if stopped is None:
            # A sweep that its time has ended did not record them.
            with folder.lock():
                if problem := record_missing_floors(folder, Storage.open(self.data)):
                    self.report(problem)
        is_confirmed = stopped is None and self.count_confirmed() > 0
        sentences = describe_recommendation(self.results, name) if is_confirmed else []
        planned = len(folder.study.seeds) * len(folder.study.arms)
        if is_confirmed and (missing := planned - self.count_confirmed()) > 0:
            sentences.append(
                f"{missing} of {planned} trials on fresh seeds are missing: the same command goes on with them."
            )
        seconds = time.monotonic() - self.started
        return Recommendation(
            study=name,
            file=self.file,
            sentences=tuple(sentences),
            report=write_report(self.results, name) if is_confirmed else None,
            budget=f"{format_count(settings, 'setting')} per arm, {format_count(len(folder.study.seeds), 'fresh seed')}, "
            f"{seconds / 60:.1f} minutes",
            seconds=seconds,
            stopped=stopped,
        )


@contextmanager
def _stop_at(until: float, study: str, results: str | Path, on_stop: Callable[[], None]) -> Iterator[None]:
    """Request the sweep in this block to stop at a time by `time.monotonic`."""
    is_over = threading.Event()

    def wait() -> None:
        if is_over.wait(max(0.0, until - time.monotonic())):
            return
        on_stop()
        while not is_over.is_set():
            try:
                stop(study, results=results)
            except InputError:
                # The sweep has not locked its folder yet.
                is_over.wait(0.5)
                continue
            # A request that was made before the sweep began to watch has been removed.
            is_over.wait(5.0)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _record_running_trials(folder: StudyFolder) -> None:
    """Record the trials that were running at the end of the search as pruned, as a scheduler's are.

    Those of an arm without a complete trial are left to be resumed: pruned, nothing could be selected.
    """
    storage = folder.storage
    known = records.read_recorded_trials(storage)
    selectable = {trial.arm for trial in known if trial.role == "search" and trial.outcome.status == "complete"}
    with folder.lock():
        for trial_id in sorted(set(storage.list_folders("trials")) - {trial.trial_id for trial in known}):
            progress = read_progress(storage, trial_id)
            if progress is None or (progress.trial.get("arm") not in selectable and progress.epochs):
                continue
            if progress.epochs:
                store.write_record(storage, progress.make_record("pruned"))
            remove_temporary_files(storage, trial_id)


def _equalize_searches(folder: StudyFolder) -> int:
    """Keep as many settings of every arm as the arm with the fewest has, at least one, by their start; return the number."""
    storage, study = folder.storage, folder.study
    rows = store.read_table(storage, "trials", columns=("arm", "role", "started_at")).to_pylist()
    by_arm: dict[str, list[str]] = {arm.name: [] for arm in study.searched_arms}
    for row in sorted(rows, key=lambda row: (row["started_at"], row["trial_id"])):
        if row["role"] == "search" and row["arm"] in by_arm:
            by_arm[row["arm"]].append(row["trial_id"])
    fewest = max(1, min(len(trials) for trials in by_arm.values()))
    # The storage of the searches is restored from the records; a trial that it knows and that has none would run again.
    storage.remove(layout.OPTUNA_JOURNAL)
    records.orphan_records(storage, [trial for trials in by_arm.values() for trial in trials[fewest:]])
    return fewest


def _set_lines(text: str, lines: Mapping[str, str]) -> str:
    """Return a study file with other lines, by patterns of the whole line that each replaces."""
    for pattern, line in lines.items():
        # A replacement text would be read for escapes.
        parts = re.split(rf"(?m)^{pattern}$", text, maxsplit=1)
        assert len(parts) == 2, f"a starter study has a line {pattern!r}"
        text = line.join(parts)
    return text
