"""What the texts on the command line mean: settings, configurations, devices.

As in `dirtune.cli`, what is heavy is imported where it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.yamlfile import parse_yaml, read_yaml


def trial_settings(
    file: Path | None, study: str | None, arm: str | None, seed: int | None, settings: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """A trial's configuration as plain data, and what to call its source.

    Raises:
        InputError: two sources are given, or one that cannot be read.
    """
    from dirtune.nested import merge, nest

    if file is not None and study is not None:
        raise InputError(Fault(where="train", rule="takes a file or --study, not both"))
    plain, where = ({}, "--set") if file is None else (read_yaml(file), str(file))
    if not isinstance(plain, dict):
        raise InputError(Fault(where=where, rule="a configuration must be a mapping"))
    if study is not None:
        plain, where = _arm_settings(study, arm), study
    for path, value in settings.items():
        plain = merge(plain, nest(path, value))
    return (plain if seed is None else {**plain, "seed": seed}), where


def _arm_settings(study: str, name: str | None) -> dict[str, Any]:
    from dirtune.study.resolve import load_study

    resolved = load_study(study)
    arms = {arm.name: arm for arm in resolved.arms}
    wanted = name or resolved.study.reference
    if wanted not in arms:
        raise InputError(Fault(where=study, key="arms", rule="unknown arm", got=wanted, known=tuple(arms)))
    return arms[wanted].config.plain()


def check_device(name: str) -> None:
    """Whether a device is on this machine.

    Raises:
        InputError: it is not; names those that are.
    """
    import torch

    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    known = ["cpu", "cuda", *cuda] if cuda else ["cpu"]
    if name not in known:
        raise InputError(Fault(where="--device", rule="not on this machine", got=name, known=known))


def assignments(texts: list[str], flag: str) -> dict[str, Any]:
    """`["a.b=1e-4"]` as `{"a.b": 0.0001}`; values are read as YAML.

    Raises:
        InputError: a text has no name, or a value cannot be read; `flag` says where they stood.
    """
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise InputError([Fault(where=flag, rule="must be name=value", got=text) for text in wrong])
    pairs = (text.split("=", 1) for text in texts)
    return {name: parse_yaml(value, where=f"{flag} {name}") for name, value in pairs}
