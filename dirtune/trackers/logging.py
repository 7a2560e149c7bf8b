"""Logging of a study: write the trials that a tracker lacks, and the report if there is one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.io.credentials import remove_credentials
from dirtune.io.storage import Storage
from dirtune.progress import show_progress
from dirtune.results.records.compaction import list_stamps
from dirtune.results.records.studies import open_study
from dirtune.trackers import trial_log
from dirtune.trackers.target import Target, check_installed, parse_target
from dirtune.trackers.tracker import Tracker
from dirtune.wording import format_count


def log(
    study: str,
    *,
    to: str,
    results: str | Path = "results",
    report: str | Path | None = None,
) -> int:
    """Write the recorded trials of a study that a tracker lacks, and return their number; a second call writes nothing.

    Args:
        study: name of the study's folder.
        to: mlflow, wandb or tensorboard; or with a place, such as `mlflow:http://host:5000`.
        results: root of the results, a path or URL.
        report: an HTML file to store as artifact; None means `reports/STUDY.html` if it exists.

    Raises:
        InputError: the study or tracker is unknown, the tracker's package is missing, or its server cannot be reached.
    """
    target = parse_target(to, "--to")
    check_installed(target, "--to")
    folder = open_study(results, study)
    if report is not None and not Path(report).is_file():
        raise InputError(Fault(where=str(report), rule="no such file"))
    log_of_study: StudyLog | None = None
    try:
        tracker = open_tracker(target, study)
        log_of_study = StudyLog(folder, tracker)
        try:
            log_of_study.update()
            file = Path(report) if report is not None else Path("reports") / f"{study}.html"
            if file.is_file():
                tracker.write_report(file)
        finally:
            tracker.close()
    except InputError:
        raise
    # Whatever the tracker's package raises
    except Exception as error:
        written = 0 if log_of_study is None else log_of_study.written
        rule = f"{describe_error(error)}; {format_count(written, 'trial')} written; the same command writes the others"
        raise InputError(Fault(where=str(target), rule=rule)) from error
    return log_of_study.written


def open_tracker(target: Target, study: str) -> Tracker:
    """Open the tracker that a target names, for one study."""
    # Imported here: their packages are optional, and importing one takes seconds.
    match target.tracker:
        case "mlflow":
            from dirtune.trackers.mlflow import MLflow

            return MLflow(study, target.place)
        case "wandb":
            from dirtune.trackers.wandb import WeightsAndBiases

            return WeightsAndBiases(study, target.place)
        case _:
            from dirtune.trackers.tensorboard import TensorBoard

            return TensorBoard(study, target.place)


@dataclass
class StudyLog:
    """The log of one study in one tracker, which is brought up to date again and again."""

    folder: Storage
    """The study's folder."""
    tracker: Tracker
    written: int = 0
    """Recorded trials that were written."""
    _logged: dict[str, str] | None = None
    """Versions in the tracker by trial id; None if they must be read."""
    _versions: dict[str, str] = field(default_factory=dict)
    """Versions in the results by trial id."""
    _stamps: Mapping[str, str] = field(default_factory=dict)
    """Stamps of the trials whose versions are known."""

    def update(self) -> None:
        """Write what the tracker lacks; raises the errors of its package, after which another call continues."""
        stamps = list_stamps(self.folder)
        changed = {each: stamp for each, stamp in stamps.items() if self._stamps.get(each) != stamp}
        self._versions = trial_log.read_versions(self.folder, self._versions, changed)
        self._stamps = stamps
        try:
            if self._logged is None:
                self._logged = dict(self.tracker.list_logged())
            missing = self.list_missing()
            with show_progress("writing trials", len(missing)) as advance:
                for trial in trial_log.read_recorded(self.folder, missing):
                    self.tracker.write(trial)
                    self._logged[trial.trial_id] = trial.version
                    self.written += 1
                    advance(1)
            if self.tracker.follows_running:
                for trial in trial_log.read_running(self.folder):
                    self.tracker.write(trial)
        except Exception:
            # The last trial may be written in part.
            self._logged = None
            raise

    def list_missing(self) -> list[str]:
        """Return the recorded trials that are known to be missing in the tracker."""
        logged = self._logged or {}
        return [each for each in self._stamps if logged.get(each) != self._versions[each]]


def describe_error(error: Exception) -> str:
    """Return the first line of a package's error, shortened and without keys."""
    lines = remove_credentials(str(error)).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= 200 else f"{text[:200]} ..."
