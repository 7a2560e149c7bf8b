"""Study files: the shipped ones, a user's own, and variants of one file for several data sets.

A file with `variants` asks one question of several data sets: `base.data.name` is the variant's name, and the variant's
settings are merged over the file. The study is named after both: `conr_omega.yaml` contains `agedb_conr_omega` and
`digits_conr_omega`. A variant of a user's own file is selected as `FILE:VARIANT`. A sweep stores the variant written
out in its folder, so that it resumes without the original file.
"""

import importlib.resources
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dirtune import plugins
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.io.yamlfile import dump_yaml, parse_yaml, read_text
from dirtune.nested import merge, nest_keys

if TYPE_CHECKING:
    from dirtune.study.schema import Study

VARIANTS = "variants"
_SUFFIXES = {".yaml", ".yml"}
_SECTIONS_OF_PATHS = {"axes", "space", "derive.one_factor"}
"""Sections of a study whose keys are dotted paths of settings."""

StudySource: TypeAlias = "str | Path | Mapping[str, Any] | Study"
"""A study file, the name of a shipped study, the content of a file as a mapping, or a `dirtune.Study`."""


@dataclass(frozen=True, kw_only=True)
class StudyText:
    """A study as YAML text that is no file: given in Python, or a file with changed settings."""

    yaml: str
    where: str
    """Name of the study in faults."""
    folder: Path = Path()
    """Folder to which the names of its plug-ins are relative."""

    def read_yaml(self) -> str:
        return self.yaml

    def read_plain(self) -> Any:
        return parse_yaml(self.yaml, where=self.where)


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A study file and the selected variant; None if it has no variants."""

    path: Path
    variant: str | None = None

    @property
    def folder(self) -> Path:
        """Folder to which the names of its plug-ins are relative."""
        return self.path.parent

    @property
    def where(self) -> str:
        """Name of the study in faults."""
        return f"{self.path}:{self.variant}" if self.variant else str(self.path)

    def read_yaml(self) -> str:
        """Return the study as YAML text: the file itself, or the variant written out.

        Raises:
            InputError: the file is not readable, or has no such variant.
        """
        text = read_text(self.path)
        is_whole = self.variant is None and not _get_variants(parse_yaml(text, where=str(self.path)))
        return text if is_whole else dump_yaml(self.read_plain())

    def read_plain(self) -> Any:
        """Return the study as plain data; raises as `read_yaml`."""
        plain = parse_yaml(read_text(self.path), where=str(self.path))
        variants = _get_variants(plain)
        if self.variant is None and not variants:
            return plain
        if self.variant is None or self.variant not in variants:
            rule = "is for several data sets; choose one as FILE:NAME" if variants else "has no variants"
            raise InputError(Fault(where=str(self.path), rule=rule, got=self.variant, known=list(variants)))
        shared = {key: value for key, value in plain.items() if key != VARIANTS}
        shared["name"] = f"{self.variant}_{plain.get('name')}"
        variant = merge({"base": {"data": {"name": self.variant}}}, variants[self.variant] or {})
        # In the order of the file, which is the order of the arms in tables.
        return merge(shared, variant)


def list_shipped_studies(wanted: str | None = None) -> dict[str, StudyFile]:
    """Return the studies that are installed with dirtune, by name.

    Args:
        wanted: a name; files that cannot have it are not read.
    """
    studies = {}
    # A package of files only: the checkout and the wheel have it, wherever it is installed.
    with importlib.resources.as_file(importlib.resources.files("dirtune.search_spaces")) as folder:
        for path in folder.glob("*.yaml"):
            if wanted is not None and not wanted.endswith(path.stem):
                continue
            for variant in _get_variants(parse_yaml(read_text(path), where=str(path))) or [None]:
                name = f"{variant}_{path.stem}" if variant else path.stem
                studies[name] = StudyFile(path=path, variant=variant)
    return dict(sorted(studies.items()))


def find_study(study: StudySource, changes: Mapping[str, Any] | None = None) -> StudyFile | StudyText:
    """Find a study by `FILE`, by `FILE:VARIANT`, or by the name of a shipped study, or take one that is given in Python.

    Args:
        changes: values by dotted path of the study file, such as `base.recipe.epochs`, that replace those of the study.

    Raises:
        InputError: there is no such file and no such shipped study, or `study` is something else.
    """
    if isinstance(study, Frozen):
        study = study.model_dump(mode="json", exclude_unset=True)
    if isinstance(study, Mapping):
        found: StudyFile | StudyText = StudyText(yaml=_to_yaml(study, "study"), where="study")
    elif isinstance(study, str | Path):
        found = _find_file(str(study))
    else:
        rule = "must be a file, the name of a shipped study, a mapping or a dirtune.Study"
        raise InputError(Fault(where="study", rule=f"{rule}, got a {type(study).__name__}"))
    if not changes:
        return found
    plain = found.read_plain()
    if isinstance(plain, Mapping):
        if wrong := [path for path in changes if not isinstance(path, str)]:
            rule = "must be dotted paths of the study, such as base.recipe.epochs"
            raise InputError(Fault(where="changes", rule=rule, got=wrong[0]))
        for path, value in changes.items():
            keys = _split_path(plain, path)
            # Else a slip in a name would add an arm instead of changing one
            if keys[0] in ("arms", "parts") and len(keys) > 2 and keys[1] not in (known := plain.get(keys[0]) or {}):
                rule = f"is not there to be changed; a new one is given whole, as {keys[0]}.NAME={{...}}"
                raise InputError(Fault(where="changes", key=path, rule=rule, got=keys[1], known=list(known)))
            changed = merge(plain, nest_keys(keys, value))
            if value == {} and changed == plain:
                rule = "{} changes nothing, because settings are merged; null leaves out those of an arm or term"
                raise InputError(Fault(where="changes", key=path, rule=rule))
            plain = changed
    return StudyText(yaml=_to_yaml(plain, found.where), where=found.where, folder=found.folder)


def _split_path(plain: Mapping[str, Any], path: str) -> list[str]:
    """Return the keys of a dotted path of a study, which may have dots themselves: names of arms, and paths of settings."""
    keys, rest, current = list[str](), path.split("."), plain
    while rest:
        # The longest key that is there; in a section of paths, all of a new one
        lengths = range(len(rest), 0, -1)
        new = len(rest) if ".".join(keys) in _SECTIONS_OF_PATHS else 1
        length = next((each for each in lengths if ".".join(rest[:each]) in current), new)
        key, rest = ".".join(rest[:length]), rest[length:]
        keys.append(key)
        below = current.get(key)
        current = below if isinstance(below, Mapping) else {}
    return keys


def load_plugins(
    study: StudyFile | StudyText, given: Iterable[str | Path] = (), *, allow: bool = False
) -> list[plugins.FilePlugin]:
    """Load the plug-ins that a study names, and return all files; to be called before the study is resolved.

    Args:
        study: as `find_study` returns it.
        given: further files, which replace those of the same name.
        allow: run the code of a study that does not lie below the current directory.

    Raises:
        InputError: the study or a plug-in cannot be read, or a plug-in must not be run.
    """
    plain = study.read_plain()
    named = plain.get("plugins") if isinstance(plain, Mapping) else None
    loaded = plugins.load_files(given)
    return loaded + plugins.load_study_files(named, study.folder, where=study.where, allow=allow, given=loaded)


def get_study_name(study: StudySource) -> str:
    """Return the name of a study's results: a name as it is; of a file, a mapping or a `dirtune.Study` the one inside.

    Raises:
        InputError: as `find_study`, or there is no name inside.
    """
    if isinstance(study, str) and not is_file_name(study):
        return study
    found = find_study(study)
    plain = found.read_plain()
    name = plain.get("name") if isinstance(plain, Mapping) else None
    if not isinstance(name, str):
        raise InputError(Fault(where=found.where, key="name", rule="must be a text", got=name))
    return name


def is_file_name(name_or_path: str) -> bool:
    """Return True if a study is given by its file, not by its name."""
    path, _, _ = name_or_path.rpartition(":")
    is_yaml = Path(name_or_path).suffix in _SUFFIXES or Path(path).suffix in _SUFFIXES
    # Unlike `Path.is_file`, False for a text that is too long for a path
    return is_yaml or os.path.isfile(name_or_path)


def _find_file(name_or_path: str) -> StudyFile:
    if is_file_name(name_or_path):
        path, colon, variant = name_or_path.rpartition(":")
        # A colon may also be a part of the path; the variant is named after the suffix.
        if colon and Path(path).suffix in _SUFFIXES:
            return StudyFile(path=_check_file(Path(path)), variant=variant)
        return StudyFile(path=_check_file(Path(name_or_path)))
    if (found := list_shipped_studies(name_or_path).get(name_or_path)) is None:
        rule = "unknown study (or no such file)"
        known = [*list_shipped_studies(), *list_study_files(Path())]
        raise InputError(Fault(where="study", rule=rule, got=name_or_path, known=known))
    return found


def list_study_files(folder: Path) -> list[str]:
    """Return the names of the YAML files in a folder, which may be studies."""
    return sorted(path.name for path in folder.glob("*") if path.suffix in _SUFFIXES)


def _check_file(path: Path) -> Path:
    """Return the path of a study file; raise an error that names the files of its folder if there is none."""
    if not path.exists() and (known := list_study_files(path.parent)):
        raise InputError(Fault(where=str(path), rule="no such file", got=path.name, known=known))
    return path


def _to_yaml(plain: Any, where: str) -> str:
    # As JSON, which turns tuples into lists and refuses what a file could not hold.
    try:
        return dump_yaml(json.loads(json.dumps(plain)))
    except (TypeError, ValueError) as error:
        raise InputError(Fault(where=where, rule=f"must be plain data: {error}")) from None


def _get_variants(plain: Any) -> dict[str, dict[str, Any] | None]:
    variants = plain.get(VARIANTS) if isinstance(plain, Mapping) else None
    return dict(variants) if isinstance(variants, Mapping) else {}
