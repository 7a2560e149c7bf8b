"""Registries: read-only mappings from the names that a study may use to the parts that they name, such as loss terms.

A registry has the parts of dirtune itself and those of plug-ins (`dirtune.plugins`), which alone may add to it. Each added
part keeps its plug-in, whose source is shipped to workers and identifies the trials that use the part.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol, TypeVar, runtime_checkable

from dirtune.errors import Fault, InputError

PartT = TypeVar("PartT", covariant=True)


@runtime_checkable
class Plugin(Protocol):
    """Origin of parts outside of dirtune."""

    @property
    def name(self) -> str:
        """File, or package and version."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the source."""
        ...

    def load(self) -> None:
        """Register the parts in this process, unless they are already."""
        ...


class Registry(Mapping[str, PartT]):
    """Read-only mapping of names to parts.

    Args:
        kind: kind of the parts in the singular, such as `term`.
        parts: those of dirtune itself.
        is_open: plug-ins may add to it.
    """

    def __init__(self, kind: str, parts: Mapping[str, PartT], *, is_open: bool = True) -> None:
        self.kind, self.is_open = kind, is_open
        self._own = dict(parts)
        self._added: dict[str, tuple[PartT, Plugin]] = {}
        self._watchers: list[Callable[[], None]] = []

    def __getitem__(self, name: str) -> PartT:
        return self._added[name][0] if name in self._added else self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *self._added])

    def __len__(self) -> int:
        return len(self._own) + len(self._added)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self)})"

    def get_plugin(self, name: str) -> Plugin | None:
        """Return the plug-in of a part, or None for a part of dirtune itself."""
        return self._added[name][1] if name in self._added else None

    def get_added(self) -> dict[str, Plugin]:
        """Return the plug-ins of the added parts by name."""
        return {name: plugin for name, (_, plugin) in self._added.items()}

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call a function after each change of the registry."""
        self._watchers.append(watcher)

    def add(self, name: str, part: Any, plugin: Plugin) -> None:
        """Add a part of a plug-in; called by `dirtune.plugins`.

        Raises:
            InputError: the name belongs to dirtune or to another plug-in.
        """
        owner = "dirtune" if name in self._own else None
        before = self._added.get(name)
        # Another version of a file replaces the one before.
        if before is not None and before[1].name != plugin.name:
            owner = before[1].name
        if owner is not None:
            raise InputError(Fault(where=plugin.name, rule=f"the {self.kind} {name!r} belongs to {owner} already"))
        if before is not None and before[0] is part:
            return
        self._added[name] = part, plugin
        self._notify()

    def remove(self, plugin: Plugin) -> None:
        """Remove the parts of a plug-in."""
        names = [name for name, (_, each) in self._added.items() if each == plugin]
        for name in names:
            del self._added[name]
        if names:
            self._notify()

    def _notify(self) -> None:
        for watcher in self._watchers:
            watcher()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        rule = f"a part that is written into the {self.kind} registry would not reach the workers of a sweep"
        advice = (
            f'decorate it with `@dirtune.register.{self.kind}("NAME")`, or name its file under `plugins:` in the study'
            if self.is_open
            else "there are no plug-ins of this kind"
        )
        raise TypeError(f"{rule}; {advice}")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse
