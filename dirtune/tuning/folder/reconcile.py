"""Reconciliation of a study with its folder: which records are reused, which trials are new, which records are orphaned.

A record is kept while the study still plans its trial: the same arm, configuration, seed and data. So more seeds, arms or
trials, and changed arms, reuse everything else. Records that are no longer planned are moved to `orphaned/`, out of every
table, and moved back when the study plans them again; nothing is deleted, and nothing old is mixed with new. Data and
objective identify a study: with others it is refused.

The selection of a search is planned once its budget is spent. While a longer search runs, the trials of its earlier selection
are kept; the sweep orphans them if another configuration is selected (`dirtune.tuning.folder.confirmation`).

Each step may be killed: `study.json` is written last, and until then the next sweep repeats all steps.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.storages import BaseStorage
from pydantic import ValidationError

from dirtune import plugins
from dirtune.config import TrialConfig
from dirtune.data.store import read_groups
from dirtune.errors import Fault, InputError
from dirtune.frozen import hash_text
from dirtune.io.jsonfile import encode_json_object, read_json_object
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, Manifest
from dirtune.results.analysis.sequential import list_due_seeds, make_sequential_rule, read_values
from dirtune.results.records import names, schema, studies
from dirtune.results.records.parquetfile import encode_table
from dirtune.study.expand import format_search_name
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.provenance import collect_provenance
from dirtune.training.trial import remove_temporary_files
from dirtune.tuning.folder import confirmation, jobs, journal, layout, lock, models, optuna_storage, records
from dirtune.tuning.folder.retry import ALWAYS_RETRIED, reset_failed_trials

_TEXT_HASH = "study_yaml"
"""Key of `study.json`: hash of the study file."""


@dataclass(frozen=True)
class Reuse:
    """Trial ids of a folder's records by their use for a study."""

    kept: frozenset[str]
    orphaned: frozenset[str]
    """Recorded, and no longer planned."""
    restored: frozenset[str]
    """Orphaned by an earlier change, and planned again."""
    is_complete: bool
    """True if these are all trials of the study: every seed, the whole budget of every search, and what it selects."""

    @property
    def trial_ids(self) -> frozenset[str]:
        """Trials that need not be run."""
        return self.kept | self.restored


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study, and the study to sweep in it."""

    storage: Storage
    study: ResolvedStudy
    manifest: Manifest
    text: str
    """Content of the study file."""
    data: Storage | None = None
    """Root of the ingested data sets, from which the groups of the evaluated samples are copied."""

    def check_unlocked(self) -> None:
        """Raise `InputError` if a driver is sweeping the study."""
        lock.check_unlocked(self.storage)

    def lock(self) -> AbstractContextManager[lock.Lock]:
        """Hold the folder's lock while the block runs; raise `InputError` if another driver owns it."""
        return lock.lock(self.storage)

    def open_journal(self) -> AbstractContextManager[BaseStorage]:
        """Yield the Optuna storage of the study's searches."""
        return journal.open_journal(self.storage)

    def to_plain(self) -> dict[str, Any]:
        """Return the content of `study.json`."""
        label_unit = self.manifest.label.unit
        data = {"name": self.manifest.name, "fingerprint": self.manifest.fingerprint, "unit": label_unit}
        # As it is read back: tuples become lists
        plain: dict[str, Any] = json.loads(json.dumps({**self.study.to_plain(), "data": data}))
        return plain

    def to_info(self) -> studies.StudyInfo:
        """Return the study as the results layer reads it."""
        return studies.parse_study(self.study.name, self.to_plain())

    def check_text(self) -> None:
        """Raise if the study file was changed since a sweep wrote it: a resumed sweep never changes the study.

        Raises:
            InputError: it is another study than that of `study.json`, and was not written with it.
        """
        _Comparison.read(self).check_text()

    def find_reuse(self) -> Reuse:
        """Compare the study with the records of the folder, without changing anything.

        Raises:
            InputError: the folder has a study of other data or with another objective.
        """
        return _Comparison.read(self).find_reuse()

    def reconcile(
        self, searches: BaseStorage, retry: Collection[schema.ErrorClass] = ALWAYS_RETRIED
    ) -> list[records.RecordedTrial]:
        """Make the folder the study's: orphan, restore and retry records; return the recorded trials afterwards.

        Args:
            searches: the sweep's journal.
            retry: error classes of failed trials to run again.
        """
        self.storage.remove_abandoned_files()
        comparison = _Comparison.read(self)
        comparison.remove_changed_searches(searches)
        comparison.write()
        names = [optuna_storage.get_search_name(self.study.name, each.name) for each in self.study.searches]
        reset_failed_trials(self.storage, retry, searches, names)
        recorded = records.read_recorded_trials(self.storage)
        maker = jobs.JobMaker(study=self.study, fingerprint=self.manifest.fingerprint)
        # A driver that was killed, or an earlier `keep_models`, may have left some
        models.remove_unselected_models(self.storage, maker, recorded)
        for trial in recorded:
            # For failed trials, the error class has decided which files a retry still needs
            if trial.outcome.status != "failed":
                remove_temporary_files(self.storage, trial.trial_id)
        return recorded


@dataclass(frozen=True)
class _Comparison:
    """A study to sweep, compared with the one in its folder."""

    folder: StudyFolder
    before: Mapping[str, Any] | None
    """Content of `study.json`; None if the folder is new."""
    now: Mapping[str, Any]
    text_before: str | None = None
    """Hash of the study file from which the folder's `study.json` was made; None if that is not known."""

    @classmethod
    def read(cls, folder: StudyFolder) -> "_Comparison":
        storage = folder.storage
        before = read_json_object(storage, layout.RESOLVED_STUDY) if storage.exists(layout.RESOLVED_STUDY) else None
        text_before = None if before is None else before.pop(_TEXT_HASH, None)
        now = folder.to_plain()
        if before is not None and "claim" in before:
            claim = dict(before["claim"])
            was_changed = claim.pop("is_changed", False)
            # A claim that is chosen once results may have been seen is marked, for good.
            if was_changed or (claim != now["claim"] and records.read_recorded_trials(storage)):
                now["claim"]["is_changed"] = True
        return cls(folder, before, now, text_before)

    def check_text(self) -> None:
        """Raise if the text is another study than the folder's, and not the text that was written with it."""
        is_changed = self.text_before not in (None, hash_text(self.folder.text))
        if is_changed and self.before is not None and self.before != self.now:
            rule = (
                "is not the study of this folder: the file was changed, or a sweep was killed while it changed the study; "
                "`dirtune sweep FILE` continues with the study in FILE"
            )
            raise InputError(Fault(where=self.folder.storage.path(layout.STUDY_YAML), rule=rule))

    def find_reuse(self) -> Reuse:
        self._check_identity()
        storage, study = self.folder.storage, self.folder.study
        trials, orphans = records.read_recorded_trials(storage), records.list_orphans(storage)
        if not trials and not orphans:
            # Every study has a trial; a large one takes a second to list them
            return Reuse(frozenset(), frozenset(), frozenset(), is_complete=False)
        unchanged = self.unchanged_searches
        maker = jobs.JobMaker(study=study, fingerprint=self.folder.manifest.fingerprint)
        searches = study.searches
        unchanged_trials = [each for each in trials if each.arm in unchanged]
        selections = confirmation.find_selections(storage, study, unchanged_trials)
        arms_by_trial: dict[str, set[str]] = {}
        for search in searches:
            selected = selections.get(search.name)
            for job in maker.make_evaluation_jobs(search, selected.settings) if selected else ():
                arms_by_trial.setdefault(job.trial_id, set()).add(job.arm)
        needed = set(arms_by_trial)
        possible = maker.list_possible_trial_arms()
        arms_by_trial |= {trial_id: {arm} for trial_id, arm in possible.items()}
        # Arms that will use the selection of a search whose budget is not spent yet, by the number of the search
        undecided = {
            (arm, search.repeat)
            for search in searches
            if search.arm.name in unchanged and search.name not in selections
            for arm in self.find_unchanged_users([search.arm.name])
        }
        search_seeds = {search.seed for search in searches}
        fixed = {arm.name for arm in study.fixed_arms}

        def is_planned(trial: records.RecordedTrial) -> bool:
            arms = arms_by_trial.get(trial.trial_id, set())
            # Two selections can be the same configuration: then any of their arms may have recorded it
            if trial.arm in arms or (arms and arms.isdisjoint(fixed)):
                return True
            if not study.search.confirm or trial.role == "search":
                return trial.arm in unchanged and trial.seed in search_seeds
            repeat = study.get_repetition(trial.seed) if study.search.repeats > 1 else 0
            return (trial.arm, repeat) in undecided and trial.seed in study.trial_seeds

        recorded = frozenset(each.trial_id for each in trials)
        kept = frozenset(each.trial_id for each in trials if is_planned(each))
        restored = frozenset(orphans & arms_by_trial.keys())
        rule = make_sequential_rule(self.folder.to_info())
        due = possible if rule is None else maker.list_trial_arms(list_due_seeds(rule, read_values(storage, rule)))
        needed |= due.keys()
        has_spent_budgets = all(
            len(records.select_search_trials(unchanged_trials, search, study)) >= study.get_budget(search.arm)
            for search in searches
        )
        # The rule has not seen the values of restored records yet, which may add seeds
        can_add_seeds = rule is not None and bool(restored)
        is_complete = has_spent_budgets and needed <= kept | restored and not can_add_seeds
        # Only a queue writes the selections again, of a file that was lost or damaged
        is_complete = is_complete and confirmation.are_recorded(storage, selections)
        return Reuse(kept, recorded - kept, restored - kept, is_complete)

    @cached_property
    def unchanged_searches(self) -> set[str]:
        """Arms whose search is as before: same configuration, space, objectives, data and seed."""
        if self.before is None or _get_search_conditions(self.before) != _get_search_conditions(self.now):
            return set()
        return {
            arm.name
            for arm in self.folder.study.searched_arms
            if arm.name in self.before["spaces"] and self._is_unchanged(arm.name)
        }

    def find_unchanged_users(self, searches: Collection[str]) -> set[str]:
        """Return the unchanged arms that use the selections of these searches."""
        return {
            arm.name
            for searched in searches
            for arm in self.folder.study.arms_using(searched)
            if self._is_unchanged(arm.name)
        }

    def remove_changed_searches(self, searches: BaseStorage) -> None:
        """Delete the Optuna studies of arms whose search has changed; before `write`, which makes them look unchanged."""
        searched = set((self.before or {}).get("spaces", {}))
        study_name, unchanged = self.folder.study.name, self.unchanged_searches
        repeats = ((self.before or {}).get("search") or {}).get("repeats", 1)
        names = [
            name
            for arm in searched - unchanged
            for name in (arm, *(format_search_name(arm, repeat) for repeat in range(1, repeats)))
        ]
        changed = {optuna_storage.get_search_name(study_name, name) for name in names}
        for name in changed.intersection(optuna.get_all_study_names(searches)):
            optuna.delete_study(study_name=name, storage=searches)

    def write(self) -> None:
        """Move records, and write the files of the study."""
        storage, text = self.folder.storage, self.folder.text.encode()
        if self.before == self.now:
            # Other resources, comments, ...
            if not storage.exists(layout.STUDY_YAML) or storage.read(layout.STUDY_YAML) != text:
                storage.write(layout.STUDY_YAML, text)
            if self.text_before != hash_text(self.folder.text):
                self._write_resolved()
            return
        self._write_plugins()
        if self.before is None:
            provenance = collect_provenance(self.folder.study.plugins)
            storage.write(layout.PROVENANCE, encode_json_object(provenance))
            # A copy, so that metrics with other label bins can be computed without the data
            manifest = self.folder.manifest
            storage.write(layout.MANIFEST, encode_json_object(manifest.model_dump(mode="json")))
        else:
            reuse = self.find_reuse()
            # A driver that was killed here may have moved only some files of a record
            incomplete = records.list_orphans(storage) - reuse.restored
            records.orphan_records(storage, reuse.orphaned | incomplete)
            records.restore_records(storage, reuse.restored)
            confirmation.keep_selections(storage, self.find_unchanged_users(self.unchanged_searches))
        # Samples of one group count as one in tests over test samples; every sample is one of some split
        manifest, splits = self.folder.manifest, SPLITS if self.folder.study.splits > 1 else names.EVALUATED_SPLITS
        is_new = self.before is None or self.before.get("splits", 1) != self.now["splits"]
        if is_new and manifest.group is not None and self.folder.data is not None:
            storage.write(layout.GROUPS, encode_table(read_groups(self.folder.data, manifest, splits)))
        storage.write(layout.STUDY_YAML, text)
        self._write_resolved()

    def _write_resolved(self) -> None:
        content = {**self.now, _TEXT_HASH: hash_text(self.folder.text)}
        self.folder.storage.write(layout.RESOLVED_STUDY, encode_json_object(content))

    def _write_plugins(self) -> None:
        """Write the files of the plug-ins, from which `resume` loads them, and remove those that no arm uses any more."""
        storage = self.folder.storage
        files = {each.name: each for each in self.folder.study.plugins if isinstance(each, plugins.FilePlugin)}
        for name, plugin in files.items():
            storage.write(f"{layout.PLUGINS}/{name}", plugin.source.encode())
        for name in storage.list_files(layout.PLUGINS, suffix=".py"):
            if name not in files:
                storage.remove(f"{layout.PLUGINS}/{name}")

    def _is_unchanged(self, arm: str) -> bool:
        """Return True if an arm has the same configuration, space and transferred settings as before."""
        before = self.before or {}
        config = (before.get("configs") or {}).get(arm)
        return _add_new_defaults(config) == self.now["configs"][arm] and all(
            (before.get(key) or {}).get(arm) == (self.now.get(key) or {}).get(arm)
            for key in ("spaces", "transfers", "plugins")
        )

    def _check_identity(self) -> None:
        if self.before is None:
            return
        differences = [
            difference
            for key in ("data", "objective")
            for difference in _list_differences(self.before.get(key), self.now[key], key)
        ]
        if not differences:
            return
        storage = self.folder.storage
        rule = "holds a study of this name with other data or another objective"
        raise InputError(
            [Fault(where=storage.path(), rule=rule)]
            + [Fault(where=storage.path(layout.RESOLVED_STUDY), key=key, rule=text) for key, text in differences]
        )


def _add_new_defaults(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return an arm's earlier configuration with defaults for the settings that were added to the schema since."""
    try:
        read = TrialConfig.model_validate_json(json.dumps({**(config or {}), "seed": 0}))
    except ValidationError:
        return config
    return read.model_dump(mode="json", exclude={"seed"})


def _get_search_conditions(plain: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the parts of a study that all its searches depend on: confirmation, seed of the trials, all objectives."""
    search = plain.get("search") or {}
    confirm, seed = search.get("confirm", False), search.get("tuning_seed")
    return confirm, seed if confirm else (plain.get("seeds") or [None])[0], plain.get("secondary", [])


def _list_differences(before: Any, now: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted keys at which two plain values differ, each with a description of the difference."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _list_differences(before.get(name), now.get(name), f"{key}.{name}")
    elif before != now:
        yield key, f"was {before!r}, is now {now!r}"
