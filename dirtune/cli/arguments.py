"""Parsing of command-line texts: settings, configurations, devices."""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from typer.core import TyperCommand

from dirtune.errors import Fault, InputError
from dirtune.io.yamlfile import parse_yaml, read_text, read_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel


def parse_assignments(texts: list[str], flag: str, model: "type[BaseModel]") -> dict[str, Any]:
    """Return `["a.b=1e-4"]` as `{"a.b": 0.0001}`; values are parsed as YAML, unless the setting is a text.

    A text is taken as it is typed, so that every name can be given: `label=# of rings`, `unit=%`, `name=2024`.

    Args:
        texts: assignments of the form `name=value`.
        flag: the option that they come from, for error messages.
        model: has the settings; a name is a dotted path in it.

    Raises:
        InputError: an assignment has no name, a name is given twice, or a value is not valid YAML.
    """
    # pydantic is not loaded before a command needs it.
    from dirtune.frozen import find_annotations

    pairs = [(*_split_assignment(text), text) for text in texts]
    # All wrong texts are reported at once, as in a study file.
    _check_names([(name if "=" in text else "", text) for name, _, text in pairs], flag)
    return {name: _parse_value(value, find_annotations(model, name), f"{flag} {name}") for name, value, _ in pairs}


def _split_assignment(text: str) -> tuple[str, str]:
    """Return name and value, which the first equals sign separates if it is not in the name of an arm or part."""
    name, _, value = text.partition("=")
    # As in arms.beta=0.5.recipe.epochs=9
    is_arm = re.fullmatch(r"(arms|parts)\.[^.]+", name) and not value.lstrip().startswith("{")
    if is_arm and (match := re.fullmatch(r"(.+?(?:\.[a-z]\w*)+)=(.*)", value, re.DOTALL)):
        return f"{name}={match[1]}", match[2]
    return name, value


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """Return changes of a study, `["seeds=[0,1]"]`, as `{"seeds": [0, 1]}`.

    Raises:
        InputError: as `parse_assignments`, or a path begins with a setting of a trial, which is below `base` or an arm.
    """
    if not texts:
        return {}
    from dirtune.config import TrialConfig
    from dirtune.study.schema import Study

    changes = parse_assignments(texts, "--set", Study)
    settings = TrialConfig.model_fields.keys() - Study.model_fields.keys()
    rule = "is a setting of the arms: write base.{0} for all of them, or arms.ARM.{0}"
    if wrong := [path for path in changes if path.split(".")[0] in settings]:
        raise InputError([Fault(where="--set", key=path, rule=rule.format(path)) for path in wrong])
    return changes


def parse_names(texts: list[str], flag: str) -> dict[str, str]:
    """Return `["beta=0.1=ConR"]` as `{"beta=0.1": "ConR"}`: names of arms have equals signs, those of papers have none.

    Raises:
        InputError: an assignment has no name, or a name is given twice.
    """
    pairs = [(*text.rpartition("=")[::2], text) for text in texts]
    _check_names([(name, text) for name, _, text in pairs], flag)
    return {name: value for name, value, _ in pairs}


def _check_names(names: list[tuple[str, str]], flag: str) -> None:
    if wrong := [text for name, text in names if not name]:
        raise InputError([Fault(where=flag, rule="must be name=value", got=text) for text in wrong])
    counts = Counter(name for name, _ in names)
    if twice := [name for name, number in counts.items() if number > 1]:
        raise InputError([Fault(where=flag, key=name, rule="is given more than once") for name in twice])


def _parse_value(text: str, annotations: list[Any], where: str) -> Any:
    kinds = {kind for annotation in annotations for kind in _list_kinds(annotation)} - {type(None)}
    if kinds == {str}:
        return text
    # Names in a list are texts, too, and one name needs no brackets.
    if kinds == {tuple}:
        return parse_yaml(text, where=where, only_texts=True) if text.lstrip().startswith("[") else [text]
    return parse_yaml(text, where=where)


def _list_kinds(annotation: Any) -> Iterator[type]:
    """Yield the Python types of an annotation: `str` for texts, `tuple` for lists of texts, `object` for all others."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _list_kinds(inner[0])
    elif origin is Literal:
        yield from {str if isinstance(value, str) else object for value in inner}
    elif origin in {Union, UnionType}:
        for each in inner:
            yield from _list_kinds(each)
    elif origin is tuple:
        yield tuple if set(_list_kinds(inner[0])) == {str} else object
    elif annotation in {str, type(None)}:
        yield annotation
    else:
        yield object


def load_plugins(study: str | None, files: Sequence[str], *, allow: bool) -> None:
    """Load the plug-ins of a study, and those of further files.

    Raises:
        InputError: one of them cannot be loaded, or must not be.
    """
    from dirtune import plugins
    from dirtune.study import files as study_files

    if study is None:
        plugins.load_files(files)
    else:
        study_files.load_plugins(study_files.find_study(study), files, allow=allow)


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
        from dirtune.study.files import find_study
        from dirtune.study.resolve import resolve, select_arm

        # Its plug-ins are loaded, and a file given for one of them must not be replaced.
        file_of_study = find_study(study)
        resolved, where = resolve(file_of_study.read_plain(), where=file_of_study.where), study
        plain = select_arm(resolved, arm, where=study).config.to_plain()
    for path, value in settings.items():
        plain = merge(plain, nest(path, value))
    return (plain if seed is None else {**plain, "seed": seed}), where


class SqlCommand(TyperCommand):
    """Command whose SQL may begin with a comment, `--`, as an option does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments with the SQL behind a `--` of its own."""
        # No option has a line break or blank behind its hyphens.
        comments = [text for text in args if re.match(r"--(\s|[^\n]*\n)", text)]
        if comments and "--" not in args:
            args = [*(text for text in args if text not in comments), "--", *comments]
        return super().parse_args(ctx, args)


def read_sql(text: str) -> str:
    """Return SQL that is given as text, as a file with the suffix .sql, or as - for standard input.

    Raises:
        InputError: the file cannot be read.
    """
    if text == "-":
        return sys.stdin.read()
    return read_text(Path(text)) if text.lower().endswith(".sql") and "\n" not in text else text


def check_device(name: str) -> None:
    """Raise InputError if this machine has no such device.

    Raises:
        InputError: with the devices that it has.
    """
    from dirtune.training.device import find_device

    find_device(name, where="--device")
