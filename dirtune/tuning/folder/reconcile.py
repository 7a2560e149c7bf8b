"""A study takes its folder, continues in it, or extends what is there: what stays valid, what is new, what is orphaned.

A record stays as long as the study still plans its trial: the same arm, configuration, seed and data. So more seeds, arms
or trials, and arms that change, reuse everything else. What is no longer planned is moved to `orphaned/`, out of every
table, and moved back when the study plans it again; nothing is thrown away, and nothing old is mixed with new. Data and
objective are what a study *is*: with others it is refused.

What a search has selected is planned once its budget is spent. While a longer search goes on, the trials of its earlier
selection stay; the sweep sets them aside when another configuration is selected (`dirtune.tuning.folder.confirmation`).

Each step may be killed: `study.json` is written last, and until then the next sweep does all of it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from pydantic import ValidationError

from dirtune.config import TrialConfig
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, Manifest
from dirtune.results.records.names import RESOLVED_STUDY as RESOLVED
from dirtune.results.records.studies import StudyInfo, parse_study
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.provenance import provenance
from dirtune.tuning.folder.confirmation import keep_selections, recorded_rows, recorded_selections
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.optuna_storage import optuna_name
from dirtune.tuning.folder.orphans import orphans, put_back, set_aside

STUDY_FILE, PROVENANCE = "study.yaml", "provenance.json"
IDENTITY = ("data", "objective")


@dataclass(frozen=True)
class Extension:
    """What a folder's records are to the study that takes it."""

    kept: frozenset[str]
    orphaned: frozenset[str]
    """Recorded, and no longer planned."""
    restored: frozenset[str]
    """Orphaned by an earlier change, and planned again."""

    @property
    def reused(self) -> int:
        """Trials that need not be run."""
        return len(self.kept | self.restored)


@dataclass(frozen=True)
class Claim:
    """A study, as written in `text`, that wants a folder."""

    folder: Storage
    study: ResolvedStudy
    manifest: Manifest
    text: str

    def extension(self) -> Extension:
        """What would be kept, orphaned and restored; changes nothing.

        Raises:
            InputError: the folder holds a study of other data or with another objective.
        """
        self._refuse_another()
        rows = recorded_rows(self.folder)
        planned, undecided = self._planned(rows)
        recorded = {row["trial_id"] for row in rows}
        kept = {row["trial_id"] for row in rows if self._belongs(row, planned, undecided)}
        restored = orphans(self.folder) & planned.keys()
        return Extension(frozenset(kept), frozenset(recorded - kept), frozenset(restored - kept))

    def take(self) -> None:
        """Make the folder this study's."""
        if self._before == self._plain:
            # Other resources, comments, ...
            if self.folder.read(STUDY_FILE) != self.text.encode():
                self.folder.write(STUDY_FILE, self.text.encode())
            return
        if self._before is None:
            self.folder.write(PROVENANCE, json.dumps(provenance(), indent=1).encode())
            # A copy, so that metrics with other label bins can be computed where the data are not.
            self.folder.write(MANIFEST, self.manifest.model_dump_json(indent=1).encode())
        else:
            self._move_records()
            keep_selections(self.folder, self._unchanged_selections(self._unchanged_searches))
        self.folder.write(STUDY_FILE, self.text.encode())
        self.folder.write(RESOLVED, json.dumps(self._plain, indent=1).encode())

    def forget_changed_searches(self, storage: str) -> None:
        """Remove from the sweep's Optuna storage the searches of arms that are searched otherwise now; before `take`."""
        searched = set((self._before or {}).get("spaces", {}))
        changed = {optuna_name(self.study.name, arm) for arm in searched - self._unchanged_searches}
        # Asking the storage costs a second
        if not changed:
            return
        for name in changed.intersection(optuna.get_all_study_names(storage)):
            optuna.delete_study(study_name=name, storage=storage)

    def _belongs(self, row: Mapping[str, Any], planned: Mapping[str, set[str]], undecided: set[str]) -> bool:
        arm = row["arm"]
        owners = planned.get(row["trial_id"], set())
        if arm in owners or (owners and owners.isdisjoint(self._fixed)):
            return True
        if not self.study.search.confirm or row["role"] == "search":
            return arm in self._unchanged_searches
        return arm in undecided and row["seed"] in self.study.seeds

    def _move_records(self) -> None:
        extension = self.extension()
        # By a driver that was killed here
        unfinished = orphans(self.folder) - extension.restored
        set_aside(self.folder, extension.orphaned | unfinished)
        put_back(self.folder, extension.restored)

    def _planned(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, set[str]], set[str]]:
        """The arms of every trial that is known before it runs; and the arms of which an unspent search decides."""
        maker = JobMaker(study=self.study, fingerprint=self.manifest.fingerprint)
        unchanged = [row for row in rows if row["arm"] in self._unchanged_searches]
        selections = recorded_selections(self.folder, self.study, unchanged)
        planned: dict[str, set[str]] = {}
        for searched, selected in selections.items():
            for job in maker.confirmed(searched, selected.settings) if selected else ():
                planned.setdefault(job.trial_id, set()).add(job.arm)
        planned |= {job.trial_id: {job.arm} for job in maker.possible()}
        undecided = self._unchanged_searches - selections.keys()
        return planned, self._unchanged_selections(undecided)

    def _unchanged_selections(self, searches: set[str]) -> set[str]:
        """The arms that are as they were and are trained with what these searches select."""
        return {
            taker.name
            for searched in searches
            for taker in self.study.arms_using(searched)
            if self._is_unchanged(taker.name)
        }

    @cached_property
    def info(self) -> StudyInfo:
        """The study as the results layer reads it."""
        return parse_study(self.study.name, self._plain)

    @cached_property
    def _fixed(self) -> set[str]:
        """Arms that record their trials themselves; those that are selected may have been recorded by another arm."""
        return {arm.name for arm in self.study.fixed_arms}

    def _is_unchanged(self, arm: str) -> bool:
        """Whether an arm has the configuration, space and transferred settings that it had."""
        before, now = self._before or {}, self._plain
        config = (before.get("configs") or {}).get(arm)
        return _with_defaults(config) == now["configs"][arm] and all(
            (before.get(key) or {}).get(arm) == now[key].get(arm) for key in ("spaces", "transfers")
        )

    @cached_property
    def _unchanged_searches(self) -> set[str]:
        """Arms that are searched as before: the same configuration, space, objectives, data and seed of the trials."""
        before, now = self._before, self._plain
        if before is None or _ways(before) != _ways(now):
            return set()
        return {
            arm.name
            for arm in self.study.searched_arms
            if arm.name in before["spaces"] and self._is_unchanged(arm.name)
        }

    @cached_property
    def _before(self) -> dict[str, Any] | None:
        if not self.folder.exists(RESOLVED):
            return None
        before: dict[str, Any] = json.loads(self.folder.read(RESOLVED))
        return before

    @cached_property
    def _plain(self) -> dict[str, Any]:
        manifest = self.manifest
        data = {"name": manifest.name, "fingerprint": manifest.fingerprint, "unit": manifest.label.unit}
        # As it is read back: tuples are lists, and no number is of another type.
        plain: dict[str, Any] = json.loads(json.dumps({**self.study.to_plain(), "data": data}))
        return plain

    def _refuse_another(self) -> None:
        if self._before is None:
            return
        differences = [
            difference for key in IDENTITY for difference in _differences(self._before.get(key), self._plain[key], key)
        ]
        if not differences:
            return
        rule = "holds a study of this name with other data or another objective"
        raise InputError(
            [Fault(where=self.folder.path(), rule=rule)]
            + [Fault(where=self.folder.path(RESOLVED), key=key, rule=text) for key, text in differences]
        )


def _with_defaults(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """An arm's earlier configuration with the settings that exist since, at their defaults."""
    try:
        known = TrialConfig.model_validate_json(json.dumps({**(config or {}), "seed": 0}))
    except ValidationError:
        return config
    return known.model_dump(mode="json", exclude={"seed"})


def _ways(plain: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the trials of a search rest on besides their arm: whether they are set apart, their seed, all objectives."""
    search = plain.get("search") or {}
    confirm, seed = search.get("confirm", False), search.get("tuning_seed")
    return confirm, seed if confirm else plain["seeds"][0], plain.get("secondary", [])


def _differences(before: Any, now: Any, key: str) -> Iterator[tuple[str, str]]:
    """Dotted keys at which two plain values differ, and how."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}")
    elif before != now:
        yield key, f"was {before!r}, is now {now!r}"
