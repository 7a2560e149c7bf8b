"""MLflow: an experiment per study, a run per trial."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

# A server that does not answer is asked again in the next pass; MLflow's own retries take minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from dirtune.trackers.tracker import MARK, Tracker
from dirtune.trackers.trial_log import TrialLog

TRIAL, REPORT = "dirtune.trial", "dirtune.report"
"""Tags: id of the run's trial; the run that has the report."""
FINAL = "final/"
"""Prefix of final metrics, whose names would be those of curves."""
_PARAMS, _METRICS = 100, 1000
"""Maximum number in one request."""
_LONGEST = 5000
"""Characters of a value."""
_REFUSED = re.compile(r"[^\w\-. :/]")
_T = TypeVar("_T")
_STATUSES = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class MLflow(Tracker):
    """Runs of a study in MLflow; `place` is a tracking URI, by default `MLFLOW_TRACKING_URI` or MLflow's own default."""

    def __init__(self, study: str, place: str) -> None:
        self._client = MlflowClient(place or None)
        found = self._client.get_experiment_by_name(study)
        self._experiment = self._client.create_experiment(study) if found is None else found.experiment_id

    def list_logged(self) -> Mapping[str, str]:
        logged: dict[str, str] = {}
        for run in self._list_runs():
            trial_id, version = run.data.tags.get(TRIAL), run.data.tags.get(MARK)
            if trial_id is None:
                continue
            # Interrupted, or written twice by two processes at once
            if version is None or trial_id in logged:
                self._client.delete_run(run.info.run_id)
            else:
                logged[trial_id] = version
        return logged

    def write(self, trial: TrialLog) -> None:
        for run in self._list_runs(f"tags.`{TRIAL}` = '{trial.trial_id}'"):
            self._client.delete_run(run.info.run_id)
        start, end = _to_milliseconds(trial.started_at), _to_milliseconds(trial.finished_at)
        run = self._client.create_run(
            self._experiment,
            start_time=start,
            run_name=trial.name,
            tags={TRIAL: trial.trial_id} | {name: value[:_LONGEST] for name, value in trial.tags.items()},
        )
        params = [Param(_clean(name), str(value)[:_LONGEST]) for name, value in trial.settings.items()]
        for some in _split(params, _PARAMS):
            self._client.log_batch(run.info.run_id, params=some)
        # Epochs have no recorded times: they are spread evenly over the run.
        last = max(trial.curves, default=1)
        metrics = [
            Metric(_clean(name), value, start + (end - start) * epoch // last, epoch)
            for epoch, values in trial.curves.items()
            for name, value in values.items()
        ]
        metrics += [Metric(_clean(FINAL + name), value, end, last) for name, value in trial.final.items()]
        for some in _split(metrics, _METRICS):
            self._client.log_batch(run.info.run_id, metrics=some)
        self._client.log_batch(run.info.run_id, tags=[RunTag(MARK, trial.version)])
        self._client.set_terminated(run.info.run_id, _STATUSES[trial.status], end_time=end)

    def write_report(self, file: Path) -> bool:
        found = next(self._list_runs(f"tags.`{REPORT}` = 'yes'"), None)
        run = found or self._client.create_run(self._experiment, run_name="report", tags={REPORT: "yes"})
        self._client.log_artifact(run.info.run_id, str(file))
        self._client.set_terminated(run.info.run_id)
        return True

    def _list_runs(self, condition: str = "") -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, max_results=1000, page_token=token)
            yield from page
            if not (token := page.token):
                return


def _split(entries: Sequence[_T], most: int) -> Iterator[Sequence[_T]]:
    for first in range(0, len(entries), most):
        yield entries[first : first + most]


def _clean(name: str) -> str:
    """Return a name that MLflow accepts."""
    return _REFUSED.sub("_", name)[:250]


def _to_milliseconds(time: datetime | None) -> int:
    return 0 if time is None else int(time.timestamp() * 1000)
