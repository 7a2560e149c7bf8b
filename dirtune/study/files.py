"""Study files: those that come with dirtune, a user's own, and one file for several data sets.

A file with `variants` asks one question of several data sets: `base.data.name` is the variant's name, and what stands
under it is laid over the file. The study is named after both: `conr_omega.yaml` holds `agedb_conr_omega` and
`digits_conr_omega`. Of a user's own file a variant is chosen as `FILE:VARIANT`. What a sweep keeps in its folder is the
variant written out, so that resuming needs no other file.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dirtune.config import merged
from dirtune.errors import Fault, InputError
from dirtune.io.yamlfile import parse_yaml, read_text

VARIANTS = "variants"
_SUFFIXES = {".yaml", ".yml"}


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A file that holds a study, and which of its variants is meant."""

    path: Path
    variant: str | None = None

    @property
    def where(self) -> str:
        """Its name in faults."""
        return f"{self.path}:{self.variant}" if self.variant else str(self.path)

    def text(self) -> str:
        """The study as YAML: the file itself, or the variant written out.

        Raises:
            InputError: the file cannot be read, or has no such variant.
        """
        text = read_text(self.path)
        plain = parse_yaml(text, where=str(self.path))
        if self.variant is None and not _variants_of(plain):
            return text
        return yaml.safe_dump(self._chosen(plain), sort_keys=False, allow_unicode=True)

    def raw(self) -> Any:
        """The study as plain data; errors as `text`."""
        return parse_yaml(self.text(), where=self.where)

    def _chosen(self, plain: Any) -> dict[str, Any]:
        variants = _variants_of(plain)
        if self.variant not in variants:
            rule = "is for several data sets; choose one as FILE:NAME" if variants else "has no variants"
            known = list(variants)
            raise InputError(Fault(where=str(self.path), rule=rule, got=self.variant, known=known))
        shared = {key: value for key, value in plain.items() if key != VARIANTS}
        shared["name"] = f"{self.variant}_{plain.get('name')}"
        named = merged({"base": {"data": {"name": self.variant}}}, variants[self.variant] or {})
        return merged(shared, named)


def shipped_studies() -> dict[str, StudyFile]:
    """The studies that come with dirtune, by name."""
    with importlib.resources.as_file(importlib.resources.files("search_spaces")) as folder:
        found = [study for path in sorted(folder.glob("*.yaml")) for study in _held(path)]
    return {_name(study): study for study in sorted(found, key=_name)}


def find_study(name_or_path: str) -> StudyFile:
    """A study's file: `FILE`, `FILE:VARIANT`, or the name of a shipped study.

    Raises:
        InputError: it is neither a file's name nor a shipped study's.
    """
    if is_file_name(name_or_path):
        path, colon, variant = name_or_path.rpartition(":")
        if colon and Path(path).suffix in _SUFFIXES:
            return StudyFile(path=Path(path), variant=variant)
        return StudyFile(path=Path(name_or_path))
    shipped = shipped_studies()
    if name_or_path not in shipped:
        rule = "unknown study (or no such file)"
        raise InputError(Fault(where="study", rule=rule, got=name_or_path, known=list(shipped)))
    return shipped[name_or_path]


def is_file_name(name_or_path: str) -> bool:
    """Whether a study is meant by its file, not by its name."""
    path, _, _ = name_or_path.rpartition(":")
    is_yaml = Path(name_or_path).suffix in _SUFFIXES or Path(path).suffix in _SUFFIXES
    return is_yaml or Path(name_or_path).is_file()


def _held(path: Path) -> list[StudyFile]:
    variants = _variants_of(parse_yaml(read_text(path), where=str(path)))
    return [StudyFile(path=path, variant=name) for name in variants] or [StudyFile(path=path)]


def _name(study: StudyFile) -> str:
    return f"{study.variant}_{study.path.stem}" if study.variant else study.path.stem


def _variants_of(plain: Any) -> dict[str, dict[str, Any] | None]:
    variants = plain.get(VARIANTS) if isinstance(plain, Mapping) else None
    return dict(variants) if isinstance(variants, Mapping) else {}
