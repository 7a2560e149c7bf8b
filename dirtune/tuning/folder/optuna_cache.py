"""Optuna storage for a driver that is its only writer: a database whose trials are also kept in memory.

Optuna's own cache keeps finished trials alone and reads the running ones again, several times for each proposal, because other
processes may have changed them. With hundreds of workers that is most of a proposal's time. Here every change goes to the
database first and then to the copy in memory, from which everything is read.
"""

import copy
from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState


class SingleWriterStorage(BaseStorage):
    """Storage of one process, which alone changes the trials of the database while this object is used.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._database = RDBStorage(url)
        # By study and by id, in the order of their numbers; an entry is replaced, never changed
        self._trials: dict[int, dict[int, FrozenTrial]] = {}
        self._studies: dict[int, int] = {}
        self._directions: dict[int, list[StudyDirection]] = {}

    # --- Trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trials = self._get_trials(study_id)
        trial_id = self._database.create_new_trial(study_id, template_trial)
        trials[trial_id] = self._database.get_trial(trial_id)
        self._studies[trial_id] = study_id
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._database.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        trial = self._copy_trial(trial_id)
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        is_changed = self._database.set_trial_state_values(trial_id, state, values)
        # With the times that the database has
        self._get_trials(self._find_study(trial_id))[trial_id] = self._database.get_trial(trial_id)
        return is_changed

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._database.set_trial_intermediate_value(trial_id, step, intermediate_value)
        trial = self._copy_trial(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._database.set_trial_user_attr(trial_id, key, value)
        trial = self._copy_trial(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._database.set_trial_system_attr(trial_id, key, value)
        trial = self._copy_trial(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._get_trials(self._find_study(trial_id))[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [each for each in self._get_trials(study_id).values() if states is None or each.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _get_trials(self, study_id: int) -> dict[int, FrozenTrial]:
        if study_id not in self._trials:
            found = self._database.get_all_trials(study_id)
            self._trials[study_id] = {each._trial_id: each for each in sorted(found, key=lambda each: each.number)}
            self._studies |= dict.fromkeys(self._trials[study_id], study_id)
        return self._trials[study_id]

    def _find_study(self, trial_id: int) -> int:
        if trial_id not in self._studies:
            # Of a study that was not read yet
            for study in self._database.get_all_studies():
                self._get_trials(study._study_id)
        return self._studies[trial_id]

    def _copy_trial(self, trial_id: int) -> FrozenTrial:
        """Replace a trial by a copy, which alone may be changed: callers hold the objects that they were given."""
        trials = self._get_trials(self._find_study(trial_id))
        trials[trial_id] = copy.copy(trials[trial_id])
        return trials[trial_id]

    # --- Studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._database.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._database.delete_study(study_id)
        for trial_id in self._trials.pop(study_id, {}):
            self._studies.pop(trial_id)
        self._directions.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._database.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._database.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._database.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._database.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            self._directions[study_id] = self._database.get_study_directions(study_id)
        return self._directions[study_id]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._database.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._database.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._database.get_all_studies()

    def remove_session(self) -> None:
        self._database.remove_session()
