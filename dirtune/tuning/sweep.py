"""`sweep` and `resume`: run the trials of a study that are not recorded in its folder.

The study's folder is the state: a recorded trial is not run again, a started one resumes from its checkpoint. Tune schedules and
stops trials; what it remembers is deleted at the end.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dirtune.data.fork_server import serve_forks
from dirtune.errors import Fault, InputError
from dirtune.io.credentials import remove_credentials
from dirtune.io.storage import Storage
from dirtune.plugins import load_files, load_recorded_files
from dirtune.results.records.compaction import compact_if_outdated
from dirtune.study import files
from dirtune.trackers import follower, target
from dirtune.tuning.folder import floors, layout, reconcile
from dirtune.tuning.folder.retry import ALWAYS_RETRIED, find_failed_trials, parse_error_classes
from dirtune.tuning.interface import RunOptions, SweepSummary, View
from dirtune.tuning.plan import autoscaling, checks

PRELOADED = ("dirtune.training.trial", "pandas", "pyarrow.dataset")
"""What workers import besides Ray."""


def sweep(
    study: files.StudySource,
    *,
    changes: Mapping[str, Any] | None = None,
    data: str | Path = "data",
    results: str | Path = "results",
    expect: str | Path | None = None,
    log: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    allow_plugins: bool = False,
    view: View | None = None,
) -> SweepSummary:
    """Run the trials of a study that are not recorded.

    Args:
        study: a file, one of its variants as `FILE:VARIANT`, the name of a shipped study, the content of a file as a
            mapping, or a `dirtune.Study`.
        changes: values by dotted path of the study file, such as `base.recipe.epochs`; the stored study has them.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; the study gets a folder of its own below it.
        expect: the file of a cluster that may have no nodes yet (`dirtune.tuning.plan.autoscaling`).
        log: trackers to which recorded trials are written while the sweep runs (`dirtune.trackers`), such as
            `mlflow:http://host:5000`; in addition to those of the study.
        plugins: files with parts of your own, in addition to those that the study names (`dirtune.plugins`).
        allow_plugins: run the code of a study that does not lie below the current directory.
        view: receives the events of the sweep.

    Raises:
        InputError: the study or the data are invalid, or the folder holds another study.
    """
    options = RunOptions(
        data=Storage.open(data),
        results=Storage.open(results),
        results_location=results,
        retry=ALWAYS_RETRIED,
        node_types=autoscaling.read_node_types(expect),
        log=[target.parse_target(each, "log") for each in log],
    )
    file = files.find_study(study, changes)
    files.load_plugins(file, plugins, allow=allow_plugins)
    folder = checks.open_study_folder(file.read_yaml(), file.where, data=data, results=results)
    return _run(folder, options, view or View())


def resume(
    study: files.StudySource,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    retry: Sequence[str] = (),
    expect: str | Path | None = None,
    log: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    allow_plugins: bool = False,
    view: View | None = None,
) -> SweepSummary:
    """Continue a sweep from its folder: recorded trials are kept, started ones resume from their checkpoints.

    Args:
        study: name of the study, or where it comes from, as for `sweep`.
        data: root of the ingested data sets; a path or URL.
        results: root of the results.
        retry: error classes of failed trials to run again (`out_of_memory`, `nan`, `code`), or `failed` for all of them;
            trials that failed by `infrastructure` always run again.
        expect: as for `sweep`.
        log: as for `sweep`.
        plugins: files that replace the recorded ones of the same name.
        allow_plugins: run the code of the recorded plug-ins.
        view: as for `sweep`.

    Raises:
        InputError: there is no such sweep, the data have changed since, or an error class is unknown.
    """
    options = RunOptions(
        data=Storage.open(data),
        results=Storage.open(results),
        results_location=results,
        retry=parse_error_classes(retry),
        node_types=autoscaling.read_node_types(expect),
        log=[target.parse_target(each, "log") for each in log],
    )
    name = files.get_study_name(study)
    storage = options.results.get_folder(name)
    if not storage.exists(layout.STUDY_YAML):
        known = [
            each for each in options.results.list_folders() if options.results.exists(f"{each}/{layout.STUDY_YAML}")
        ]
        rule = "no sweep of this study to resume"
        raise InputError(Fault(where=remove_credentials(results), rule=rule, got=name, known=known))
    load_recorded_files(storage, layout.PLUGINS, allow=allow_plugins, given=load_files(plugins))
    text, where = storage.read(layout.STUDY_YAML).decode(), storage.path(layout.STUDY_YAML)
    folder = checks.open_study_folder(text, where, data=data, results=results)
    if folder.storage.root != storage.root:
        rule = "must be the name of the folder"
        raise InputError(Fault(where=where, key="name", rule=rule, got=folder.study.name))
    folder.check_text()
    return _run(folder, options, view or View())


def _run(folder: reconcile.StudyFolder, options: RunOptions, view: View) -> SweepSummary:
    """Run the missing trials, and log the study to its trackers meanwhile."""
    reuse = folder.find_reuse()
    folder.check_unlocked()
    targets = dict.fromkeys([*(target.parse_target(each, "log") for each in folder.study.log), *options.log])
    for each in targets:
        target.check_installed(each, "log")
    with follower.follow(tuple(targets), options.results_location, folder.study.name, view.report_activity):
        return _run_missing(folder, reuse, options, view)


def _run_missing(
    folder: reconcile.StudyFolder, reuse: reconcile.Reuse, options: RunOptions, view: View
) -> SweepSummary:
    """Run the missing trials; if there are none, only reconcile the folder, without Ray, which takes seconds to start."""
    # Before Ray starts
    folder.storage.check_creatable()
    if not reuse.is_complete or find_failed_trials(folder.storage, options.retry):
        # Before the import of Ray
        with serve_forks(PRELOADED):
            from dirtune.tuning.execution.run import run_missing_trials

            return run_missing_trials(folder, options, view)
    with folder.lock(), folder.open_journal() as journal:
        recorded = folder.reconcile(journal, options.retry)
        # The driver that ran the last trial may have been killed before it did
        compact_if_outdated(folder.storage)
        problem = floors.record_missing_floors(folder, options.data)
    return SweepSummary(
        folder=folder.storage.path(),
        reused=len(recorded),
        orphaned=len(reuse.orphaned),
        run={},
        crashed={},
        left=0,
        floors_problem=problem,
    )
