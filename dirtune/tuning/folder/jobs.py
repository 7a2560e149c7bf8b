"""Trial jobs of a study: planned trials, trials of searches, and trials that evaluate a selection.

A job follows from the study and, for a search or a selection, its settings alone, so that the driver and `dirtune plan`
compute the same trial ids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from dirtune.results.records.schema import Role
from dirtune.study import resolve, schema
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.records import Settings


@dataclass(frozen=True, kw_only=True)
class JobMaker:
    """Factory of the jobs of one study on one data set."""

    study: resolve.ResolvedStudy
    fingerprint: str
    """Fingerprint of the data."""
    code_version: str = ""
    _arms: dict[tuple[str, int], schema.Arm] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Arms on another split than the ingested one, by name and split."""
    _trial_ids: dict[tuple[str, int], Callable[[int], str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def make_planned_jobs(self) -> list[TrialJob]:
        """Return the trials of all fixed arms, sorted by seed, so that arms can be compared early."""
        return self.make_jobs({arm.name: self.study.trial_seeds for arm in self.study.fixed_arms})

    def make_jobs(self, seeds: Mapping[str, Sequence[int]]) -> list[TrialJob]:
        """Return the trials of fixed arms with these seeds by arm, sorted by seed."""
        return [self.make_job(arm, {}, seed, replicate) for arm, seed, replicate in self._list_runs(seeds)]

    def list_trial_arms(self, seeds: Mapping[str, Sequence[int]]) -> dict[str, str]:
        """Return the trials of fixed arms with these seeds by arm, as the arm by trial id.

        A study can have a hundred thousand of them, of which few or none are recorded: this is ten times as fast as the jobs.
        """
        return {self._get_trial_ids(arm, seed)(seed): arm.name for arm, seed, _ in self._list_runs(seeds)}

    def list_possible_trial_arms(self) -> dict[str, str]:
        """Return the arm by trial id of the planned trials, and of those that a sequential study may add."""
        return self.list_trial_arms({arm.name: self.study.possible_seeds for arm in self.study.fixed_arms})

    def _list_runs(self, seeds: Mapping[str, Sequence[int]]) -> Iterator[tuple[schema.Arm, int, int]]:
        """Yield arm, seed and replicate of the trials of fixed arms with these seeds by arm, sorted by seed."""
        chosen, arms = {arm: frozenset(own) for arm, own in seeds.items()}, self.study.fixed_arms
        # Over all possible seeds, so that the replicate of a seed does not depend on how many a study has added
        for replicate, seed in enumerate(self.study.possible_seeds):
            for arm in arms:
                if seed in chosen[arm.name]:
                    yield arm, seed, replicate

    def make_search_job(self, search: resolve.ArmSearchPlan, settings: Settings) -> TrialJob:
        """Return a trial of a search."""
        if self.study.search.confirm:
            # A seed of its own and no replicate: search trials are compared with each other only
            return self.make_job(search.arm, settings, search.seed, None, role="search")
        return self.make_job(search.arm, settings, search.seed, 0)

    def is_search_trial(self, search: resolve.ArmSearchPlan, settings: Settings, trial_id: str | None) -> bool:
        """Return True if a trial of a search with these settings, which may be damaged, has this id."""
        try:
            return self.make_search_job(search, settings).trial_id == trial_id
        except ValidationError:
            return False

    def make_evaluation_jobs(self, search: resolve.ArmSearchPlan, settings: Settings) -> list[TrialJob]:
        """Return the trials that evaluate a selection: of the searched arm, and of the arms that use its settings."""
        return [
            self.make_job(arm, select_settings(arm, settings), seed, replicate)
            for replicate, seed in enumerate(self.study.trial_seeds)
            if self.study.search.repeats == 1 or self.study.get_repetition(seed) == search.repeat
            for arm in self.study.arms_using(search.arm.name)
        ]

    def make_job(
        self, arm: schema.Arm, settings: Settings, seed: int, replicate: int | None, *, role: Role = "evaluation"
    ) -> TrialJob:
        """Return the trial of an arm with these settings and this seed, on the split of the seed."""
        arm = self._select_split(arm, self.study.get_split(seed))
        if settings:
            config = arm.with_settings(settings, seed)
            trial_id = config.compute_trial_id(self.fingerprint)
        else:
            # Nothing but the seed is new, which needs no validation.
            config = arm.with_seed(seed)
            trial_id = self._get_trial_ids(arm, seed)(seed)
        return TrialJob(
            study=self.study.name,
            arm=arm.name,
            cell=arm.axis_values_json,
            role=role,
            replicate=replicate,
            trial_id=trial_id,
            config=config,
            code_version=self.code_version,
        )

    def _select_split(self, arm: schema.Arm, split: int) -> schema.Arm:
        """Return the arm with its data set's split of that number."""
        if split and (arm.name, split) not in self._arms:
            data = arm.config.data.model_copy(update={"split": split})
            self._arms[arm.name, split] = replace(arm, config=arm.config.model_copy(update={"data": data}))
        return self._arms[arm.name, split] if split else arm

    def _get_trial_ids(self, arm: schema.Arm, seed: int) -> Callable[[int], str]:
        """Return the function that computes the ids of an arm without tuned settings, on the split of a seed."""
        key = arm.name, self.study.get_split(seed)
        if key not in self._trial_ids:
            self._trial_ids[key] = self._select_split(arm, key[1]).config.make_trial_ids(self.fingerprint)
        return self._trial_ids[key]


def select_settings(arm: schema.Arm, settings: Settings) -> Settings:
    """Return the settings of a selection that an arm uses: all, or those that are transferred to it."""
    return {path: settings[path] for path in arm.transferred_settings or settings}
