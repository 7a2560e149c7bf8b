"""Parsing of command-line texts: settings, configurations, devices."""

from pathlib import Path
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.yamlfile import parse_yaml, read_yaml


def parse_assignments(texts: list[str], flag: str) -> dict[str, Any]:
    """Return `["a.b=1e-4"]` as `{"a.b": 0.0001}`; values are parsed as YAML.

    Args:
        texts: assignments of the form `name=value`.
        flag: the option that they come from, for error messages.

    Raises:
        InputError: an assignment has no name, or a value is not valid YAML.
    """
    # All wrong texts are reported at once, as in a study file.
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise InputError([Fault(where=flag, rule="must be name=value", got=text) for text in wrong])
    pairs = (text.split("=", 1) for text in texts)
    return {name: parse_yaml(value, where=f"{flag} {name}") for name, value in pairs}


def read_trial_settings(
    file: Path | None, study: str | None, arm: str | None, seed: int | None, settings: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return a trial's configuration as plain data, and the name of its source for error messages.

    Args:
        file: a YAML file with a configuration.
        study: a study, whose `arm` has the configuration; an alternative to `file`.
        arm: None means the study's reference.
        seed: overrides that of the configuration.
        settings: values by dotted path, which override those of the configuration.

    Raises:
        InputError: both sources are given, one cannot be read, or the arm is unknown.
    """
    from dirtune.nested import merge, nest

    if file is not None and study is not None:
        raise InputError(Fault(where="train", rule="takes a file or --study, not both"))
    plain, where = ({}, "--set") if file is None else (read_yaml(file), str(file))
    if not isinstance(plain, dict):
        raise InputError(Fault(where=where, rule="a configuration must be a mapping"))
    if study is not None:
        # Imported here because it imports torch, which an error above does not need.
        from dirtune.study.resolve import load_study

        resolved, where = load_study(study), study
        arms = {each.name: each for each in resolved.arms}
        name = arm or resolved.reference
        if name not in arms:
            raise InputError(Fault(where=study, key="arms", rule="unknown arm", got=name, known=tuple(arms)))
        plain = arms[name].config.to_plain()
    for path, value in settings.items():
        plain = merge(plain, nest(path, value))
    return (plain if seed is None else {**plain, "seed": seed}), where


def check_device(name: str) -> None:
    """Raise InputError if this machine has no such device.

    Raises:
        InputError: with the devices that it has.
    """
    import torch

    # Listed by number, because a worker of a machine with several GPUs may need a certain one.
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    known = ["cpu", "cuda", *cuda] if cuda else ["cpu"]
    if name not in known:
        raise InputError(Fault(where="--device", rule="not on this machine", got=name, known=known))
