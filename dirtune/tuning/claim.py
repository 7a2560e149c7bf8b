"""A study takes its folder, continues in it, or extends what is there: what stays valid, what is new, what is orphaned.

A record stays as long as the study still plans its trial: the same arm, configuration, seed and data. So more seeds, arms
or trials, and arms that change, reuse everything else. What is no longer planned is moved to `orphaned/`, out of every
table, and moved back when the study plans it again; nothing is thrown away, and nothing old is mixed with new. Data and
objective are what a study *is*: with others it is refused.

Each step may be killed: `study.json` is written last, and until then the next sweep does all of it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna

from dirtune.errors import Fault, InputError
from dirtune.manifest import MANIFEST, Manifest
from dirtune.results.schema import TABLES
from dirtune.results.store import read_table
from dirtune.results.studies import STUDY_FILE as RESOLVED
from dirtune.storage import Storage
from dirtune.training.provenance import provenance
from dirtune.tuning.search import optuna_name, planned_jobs
from dirtune.tuning.study import ResolvedStudy

STUDY_FILE, PROVENANCE, ORPHANED = "study.yaml", "provenance.json", "orphaned"
IDENTITY = ("data", "objective")


@dataclass(frozen=True)
class Extension:
    """What a folder's records are to the study that takes it."""

    kept: frozenset[str]
    orphaned: frozenset[str]  # recorded, and no longer planned
    restored: frozenset[str]  # orphaned by an earlier change, and planned again

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
        found = read_table(self.folder, "trials", columns=["trial_id", "arm"])
        recorded = dict(zip(found["trial_id"].to_pylist(), found["arm"].to_pylist(), strict=True))
        kept = {trial for trial, arm in recorded.items() if self._belongs(trial, arm)}
        restored = self._set_aside() & self._planned.keys()
        return Extension(frozenset(kept), frozenset(recorded) - kept, frozenset(restored - kept))

    def take(self) -> None:
        """Make the folder this study's."""
        if self._before == self._plain:
            return
        if self._before is None:
            self.folder.write(PROVENANCE, json.dumps(provenance(), indent=1).encode())
            # A copy, so that metrics with other label bins can be computed where the data are not.
            self.folder.write(MANIFEST, self.manifest.model_dump_json(indent=1).encode())
        else:
            self._move_records()
        self.folder.write(STUDY_FILE, self.text.encode())
        self.folder.write(RESOLVED, json.dumps(self._plain, indent=1).encode())

    def forget_changed_searches(self, storage: str) -> None:
        """Remove from the sweep's Optuna storage the searches of arms that are searched otherwise now; before `take`."""
        searched = set((self._before or {}).get("spaces", {}))
        changed = {optuna_name(self.study.name, arm) for arm in searched - self._unchanged_searches}
        if not changed:  # asking the storage costs a second
            return
        for name in changed.intersection(optuna.get_all_study_names(storage)):
            optuna.delete_study(study_name=name, storage=storage)

    def _belongs(self, trial_id: str, arm: str) -> bool:
        return self._planned.get(trial_id) == arm or arm in self._unchanged_searches

    def _move_records(self) -> None:
        extension = self.extension()
        unfinished = self._set_aside() - extension.restored  # by a driver that was killed here
        # The file in `trials`, the last of `TABLES`, commits a record: it is the first to go, and the last to come back.
        for trial_id in extension.orphaned | unfinished:
            for table in reversed(TABLES):
                self._move(f"results/{table}/{trial_id}", f"{ORPHANED}/{table}/{trial_id}")
        for trial_id in extension.restored:
            for table in TABLES:
                self._move(f"{ORPHANED}/{table}/{trial_id}", f"results/{table}/{trial_id}")

    def _set_aside(self) -> set[str]:
        names = self.folder.names(f"{ORPHANED}/trials", suffix=".parquet")
        return {name.removesuffix(".parquet") for name in names}

    def _move(self, name: str, to: str) -> None:
        if self.folder.exists(f"{name}.parquet"):
            self.folder.move(f"{name}.parquet", f"{to}.parquet")

    @cached_property
    def _planned(self) -> dict[str, str]:
        """The arm of every trial that is known before it runs."""
        jobs = planned_jobs(self.study, self.manifest.fingerprint)
        return {job.trial_id: job.arm for job in jobs}

    @cached_property
    def _unchanged_searches(self) -> set[str]:
        """Arms that are searched as before: the same configuration, space, sampler's data and seed of the trials."""
        before, now = self._before, self._plain
        if before is None:
            return set()
        searched = [arm.name for arm in self.study.searched_arms]
        if before["seeds"][:1] != now["seeds"][:1]:
            return set()
        return {
            arm
            for arm in searched
            if before["configs"].get(arm) == now["configs"][arm]
            and before["spaces"].get(arm) == now["spaces"][arm]
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
        data = {
            "name": manifest.name, "fingerprint": manifest.fingerprint, "unit": manifest.label.unit,
        }  # fmt: skip
        # As it is read back: tuples are lists, and no number is of another type.
        plain: dict[str, Any] = json.loads(json.dumps({**self.study.plain(), "data": data}))
        return plain

    def _refuse_another(self) -> None:
        if self._before is None:
            return
        differences = [
            difference
            for key in IDENTITY
            for difference in _differences(self._before.get(key), self._plain[key], key)
        ]
        if not differences:
            return
        rule = "holds a study of this name with other data or another objective"
        raise InputError(
            [Fault(where=self.folder.path(), rule=rule)]
            + [
                Fault(where=self.folder.path(RESOLVED), key=key, rule=text)
                for key, text in differences
            ]
        )


def _differences(before: Any, now: Any, key: str) -> Iterator[tuple[str, str]]:
    """Dotted keys at which two plain values differ, and how."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}")
    elif before != now:
        yield key, f"was {before!r}, is now {now!r}"
