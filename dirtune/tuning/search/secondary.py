"""Further objectives of a search: the validation numbers that it improves along with the one that selects.

Lowering the error of all samples and that of the rare ones are two aims. With `secondary`, Optuna proposes configurations
for the whole front; what is selected in the end is still the best by the objective, so that arms stay comparable.
"""

from __future__ import annotations

from dataclasses import replace

from dirtune.errors import Fault, InputError
from dirtune.manifest import Manifest
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.task import make_task


def check_secondary(study: ResolvedStudy, manifest: Manifest) -> None:
    """Whether the data set has the metrics of all further objectives, and the one that adds seeds.

    Raises:
        InputError: it has not.
    """
    faults: list[Fault] = []
    config = study.arms[0].config
    further = {f"secondary.{at}": each for at, each in enumerate(study.secondary)}
    if study.sequential is not None:
        further["sequential.compare"] = study.compared_objective
    for name, objective in further.items():
        try:
            make_task(manifest).check(config.model_copy(update={"objective": objective}))
        except InputError as error:
            key = f"{name}.metric"
            faults += [replace(fault, where=study.name, key=key) for fault in error.faults]
    if faults:
        raise InputError(faults)
