"""Plug-ins: losses, terms, encoders, metrics and other parts from outside of dirtune, and how they reach workers.

    a file       `plugins: [my_terms.py]` in a study, `--plugin FILE`, or a module that registers by decorators
                 (`dirtune.register`); its text is shipped, so that it imports installed packages alone
    a package    an installed distribution with entry points of the groups `dirtune.terms`, `dirtune.losses`, ...; it must be
                 installed, with the same sources, wherever a trial runs

The fingerprint of a plug-in is part of the id of each trial that uses it (`dirtune.config`): a changed source makes new
trials. A file is code: one that a study names is loaded only if the study lies below the current directory, because a
study from elsewhere must not run code by being planned.
"""

import ast
import hashlib
import importlib.abc
import importlib.metadata
import importlib.util
import inspect
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from dirtune.errors import Fault, InputError
from dirtune.registry import Plugin, Registry

REGISTRIES = {
    "loss": "dirtune.losses:LOSSES",
    "term": "dirtune.losses:TERMS",
    "encoder": "dirtune.models.encoders:ENCODERS",
    "metric": "dirtune.metrics.extra:EXTRA_METRICS",
    "synthesis": "dirtune.synthesis:SYNTHESIS",
    "sampling": "dirtune.sampling:SAMPLING",
    "mixing": "dirtune.mixing:MIXING",
    "sharpness": "dirtune.sharpness:SHARPNESS",
    "pipeline": "dirtune.data.ingest:PLUGIN_PIPELINES",
    "method": "dirtune.presets:PLUGIN_METHODS",
    "figure": "dirtune.results.figures:FIGURES",
}
"""Registry of each kind of part, by module, so that this module imports none of them."""
GROUPS = {
    "loss": "dirtune.losses",
    "term": "dirtune.terms",
    "encoder": "dirtune.encoders",
    "metric": "dirtune.metrics",
    "synthesis": "dirtune.synthesis",
    "sampling": "dirtune.sampling",
    "mixing": "dirtune.mixing",
    "sharpness": "dirtune.sharpness",
    "pipeline": "dirtune.pipelines",
    "method": "dirtune.methods",
    "figure": "dirtune.figures",
}
"""Group of entry points of each kind."""
TRAINED_KINDS = ("loss", "term", "encoder", "metric", "synthesis", "sampling", "mixing", "sharpness")
"""Kinds of parts that a trial uses."""
_SUFFIX = ".py"
_DIGITS = 16


class Folder(Protocol):
    """The part of `dirtune.io.storage.Storage` that recorded plug-ins need."""

    def list_files(self, name: str, *, suffix: str) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def path(self, name: str = "") -> str: ...


@dataclass(frozen=True)
class FilePlugin:
    """A Python file."""

    name: str
    """Name of the file, without its folder."""
    source: str
    path: str = field(default="", compare=False)
    """Place of the file on the machine that read it."""
    is_script: bool = False
    """True for the script of this process, which cannot run on a worker as well."""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()[:_DIGITS]

    @property
    def module(self) -> str:
        """Name of the module in `sys.modules`; two versions of a file are two modules."""
        return f"dirtune_plugin_{Path(self.name).stem}_{self.fingerprint}"

    def load(self) -> None:
        """Execute the file, whose decorators register its parts.

        Raises:
            InputError: it cannot be executed, or registers nothing.
        """
        if self.module in sys.modules or self in _REGISTERED:
            return
        for other in _list_other_versions(self):
            unload(other)
        spec = importlib.util.spec_from_loader(self.module, _Loader(self))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.module] = module
        try:
            with _registering(self):
                spec.loader.exec_module(module)
            if self not in _REGISTERED:
                rule = "registers nothing; decorate a part with `@dirtune.register.term(NAME)` or the like"
                raise InputError(Fault(where=self.name, rule=rule))
        except InputError:
            unload(self)
            raise
        except Exception as error:
            unload(self)
            rule = f"cannot be loaded as a plug-in ({get_error_sentence(error)})"
            raise InputError(Fault(where=f"{self.name}{get_error_line(error, self)}", rule=rule)) from error


@dataclass(frozen=True)
class PackagePlugin:
    """An installed distribution with entry points, or with a module that registered a part."""

    distribution: str
    version: str
    package: str
    """Top-level module."""
    fingerprint: str
    module: str
    """Module that registers the parts."""

    @property
    def name(self) -> str:
        return f"{self.distribution} {self.version}"

    def load(self) -> None:
        """Import the package and check that its sources are those of the process that has sent it.

        Raises:
            InputError: it is not installed here, or in another version.
        """
        where = f"package {self.name} on {socket.gethostname()}"
        load_installed()
        try:
            importlib.import_module(self.module)
            found = hash_package(self.package)
        except ImportError as error:
            rule = f"cannot be imported ({error}); install it wherever trials run"
            raise InputError(Fault(where=where, rule=rule)) from None
        if found != self.fingerprint:
            rule = "has other sources here than where the sweep was started; install one version everywhere"
            raise InputError(Fault(where=where, rule=rule))


class _Loader(importlib.abc.SourceLoader):
    """Loader of a plug-in's text; with it, tracebacks and `inspect` know the lines of a file that a worker does not have."""

    def __init__(self, plugin: FilePlugin) -> None:
        self._plugin = plugin

    def get_filename(self, fullname: str) -> str:
        return self._plugin.path or f"<plug-in {self._plugin.name}>"

    def get_data(self, path: str | bytes) -> bytes:
        return self._plugin.source.encode()


_REGISTERED: dict[Plugin, None] = {}
"""Plug-ins with parts in a registry, in the order of their registration."""
_PLUGIN_OF_PART: dict[int, tuple[Any, Plugin]] = {}
"""Plug-in of each part that was ever registered, by the part's `id`, with the part, which keeps the id in use."""
_current: list[Plugin] = []


def register(kind: str, name: str, part: Any) -> None:
    """Register a part of the plug-in that is being loaded, or of the module that defines the part.

    Raises:
        InputError: the name is taken, or no worker could get the part.
    """
    plugin = _current[-1] if _current else _find_plugin(kind, name, part)
    # A module that is imported again after a change of its file.
    for other in _list_other_versions(plugin):
        unload(other)
    get_registry(kind).add(name, part, plugin)
    if kind == "metric":
        directions = importlib.import_module("dirtune.metrics").HIGHER_IS_BETTER
        directions.note(name, higher_is_better=part.higher_is_better)
    _REGISTERED[plugin] = None
    _PLUGIN_OF_PART[id(part)] = part, plugin


def unload(plugin: Plugin) -> None:
    """Remove a plug-in's parts from all registries."""
    for kind in REGISTRIES:
        if is_loaded(kind):
            get_registry(kind).remove(plugin)
    _REGISTERED.pop(plugin, None)
    if isinstance(plugin, FilePlugin):
        sys.modules.pop(plugin.module, None)


def list_registered() -> list[Plugin]:
    """Return the plug-ins with parts in a registry of this process."""
    return list(_REGISTERED)


def get_registry(kind: str) -> Registry[Any]:
    """Return the registry of a kind of parts."""
    module, name = REGISTRIES[kind].split(":")
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry


def is_loaded(kind: str) -> bool:
    """Return True if the registry of a kind of parts is imported, as it is when a part is added."""
    return REGISTRIES[kind].split(":")[0] in sys.modules


def get_plugin(part: Any) -> Plugin | None:
    """Return the plug-in that has registered a part, or None."""
    found = _PLUGIN_OF_PART.get(id(part))
    return None if found is None else found[1]


def find_plugin_of(part: Any) -> Plugin | None:
    """Return the plug-in of a part or of the value that a study makes of it, or None for dirtune's own."""
    # The encoder `module` is dirtune's own, but what it builds is a package's.
    find = getattr(part, "find_plugin", None)
    return get_plugin(part) or get_plugin(type(part)) or (find() if find is not None else None)


def get_error_sentence(error: BaseException) -> str:
    """Return type and first line of an error; of one that Ray has wrapped, those of its cause."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, BaseException) else error
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".removesuffix(": ")


def get_error_line(error: BaseException, plugin: Plugin) -> str:
    """Return `:LINE` of the plug-in's file at which an error was raised, or nothing."""
    if not isinstance(plugin, FilePlugin) or error.__traceback__ is None:
        return ""
    names = {plugin.path, f"<plug-in {plugin.name}>"}
    lines = [frame.lineno for frame in inspect.getinnerframes(error.__traceback__) if frame.filename in names]
    return f":{lines[-1]}" if lines else ""


def read_file(path: str | Path) -> FilePlugin:
    """Read a plug-in from its file, without loading it.

    Raises:
        InputError: there is no such file, it is no Python, or it imports a file that would not be shipped with it.
    """
    place = Path(os.path.expanduser(path))
    if place.suffix != _SUFFIX:
        raise InputError(Fault(where="plugins", rule="must be a Python file (.py)", got=str(path)))
    try:
        source = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(Fault(where=str(path), rule="no such file")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where=str(path), rule=f"cannot be read ({error})")) from None
    plugin = FilePlugin(place.name, source, str(place.resolve()))
    _check_imports(plugin)
    return plugin


def load_files(paths: Iterable[str | Path]) -> list[FilePlugin]:
    """Load plug-ins from their files; returns them.

    Raises:
        InputError: see `read_file` and `FilePlugin.load`.
    """
    found = [read_file(path) for path in paths]
    for plugin in found:
        plugin.load()
    return found


def load_study_files(
    names: Any, folder: Path, *, where: str, allow: bool, given: Iterable[FilePlugin] = ()
) -> list[FilePlugin]:
    """Load the plug-ins that a study names, and return them.

    Args:
        names: the study's `plugins`; what is no list of texts is left to the check of the study.
        folder: that of the study file, to which the names are relative.
        where: name of the study, for errors.
        allow: load the files of a study that does not lie below the current directory.
        given: files that replace those of the same name.

    Raises:
        InputError: a file cannot be loaded, or must not be.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return []
    missing = [name for name in names if Path(name).name not in {plugin.name for plugin in given}]
    if missing and not allow and not folder.resolve().is_relative_to(Path.cwd()):
        rule = f"runs the code of {', '.join(missing)}, and does not lie below the current directory"
        raise InputError(
            Fault(where=where, key="plugins", rule=f"{rule}; read the code, then pass --allow-plugins to run it")
        )
    _check_distinct(names, where)
    return load_files([folder / name for name in missing])


def load_recorded_files(folder: Folder, directory: str, *, allow: bool, given: Iterable[FilePlugin] = ()) -> None:
    """Load the plug-ins that a sweep has recorded.

    Args:
        folder: that of the study.
        directory: name of the plug-ins' folder in it.
        allow: run their code; what this process has loaded already needs no permission.
        given: files that replace those of the same name.

    Raises:
        InputError: there are some, and their code may not be run.
    """
    replaced = {plugin.name for plugin in given}
    found = [
        FilePlugin(name, folder.read(f"{directory}/{name}").decode())
        for name in folder.list_files(directory, suffix=_SUFFIX)
        if name not in replaced
    ]
    new = [plugin for plugin in found if plugin not in _REGISTERED]
    if new and not allow:
        rule = f"the sweep uses the code of {', '.join(plugin.name for plugin in new)}, which would run here"
        advice = "read it, then pass --allow-plugins, or your own file by --plugin"
        raise InputError(Fault(where=folder.path(directory), rule=f"{rule}; {advice}"))
    for plugin in new:
        plugin.load()


def load_installed() -> None:
    """Load the entry points of all installed packages that a trial may use.

    Raises:
        InputError: one of them cannot be imported.
    """
    for kind in TRAINED_KINDS:
        load_entry_points(kind)


@cache
def load_entry_points(kind: str) -> None:
    """Load the entry points of one kind, once in a process.

    Raises:
        InputError: one of them cannot be imported, or its name is taken.
    """
    for entry in list_entry_points(kind):
        assert entry.dist is not None
        plugin = make_package_plugin(entry.dist, entry.module)
        try:
            with _registering(plugin):
                part = entry.load()
        except InputError:
            raise
        except Exception as error:
            rule = f"the {kind} {entry.name!r} cannot be imported ({get_error_sentence(error)}); repair or uninstall it"
            raise InputError(Fault(where=f"package {plugin.name}", rule=rule)) from error
        if entry.name in get_registry(kind) and get_registry(kind)[entry.name] is part:
            continue
        from_register = importlib.import_module("dirtune.register")
        from_register.check_part(kind, entry.name, part)
        with _registering(plugin):
            register(kind, entry.name, part)


def list_entry_points(kind: str) -> list[importlib.metadata.EntryPoint]:
    """Return the entry points of a kind, without importing anything."""
    return _read_entry_points(tuple(sys.path))[kind]


@cache
def _read_entry_points(path: tuple[str, ...]) -> dict[str, list[importlib.metadata.EntryPoint]]:
    """Return the entry points of every kind; the files of all packages on the import path are read once."""
    found = importlib.metadata.entry_points()
    return {kind: sorted(found.select(group=group), key=lambda entry: entry.name) for kind, group in GROUPS.items()}


def make_package_plugin(distribution: importlib.metadata.Distribution, module: str) -> PackagePlugin:
    """Return the plug-in of an installed distribution."""
    package = module.split(".")[0]
    return PackagePlugin(distribution.metadata["Name"], distribution.version, package, hash_package(package), module)


@cache
def hash_package(package: str) -> str:
    """Return the hash of the sources of an installed package, without importing it.

    Raises:
        ImportError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [(path.relative_to(folder), path) for folder in folders for path in folder.rglob("*") if _is_source(path)]
    if not folders and spec.origin is not None:
        files = [(Path(Path(spec.origin).name), Path(spec.origin))]
    state = hashlib.sha256()
    for name, path in sorted(files):
        state.update(f"{name.as_posix()}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()[:_DIGITS]


def find_factory(place: str) -> tuple[Callable[..., Any], PackagePlugin]:
    """Return a function by `package.module:function`, and its package, which must have entry points of dirtune.

    Raises:
        InputError: the package has none, so that a study could run any code by its name, or there is no such function.
    """
    module, name = place.split(":")
    dists = {
        entry.module.split(".")[0]: entry.dist for kind in GROUPS for entry in list_entry_points(kind) if entry.dist
    }
    package = module.split(".")[0]
    if package not in dists:
        rule = "must be of an installed package with entry points of dirtune"
        raise InputError(Fault(where="model.encoder.factory", rule=rule, got=place, known=tuple(dists)))
    try:
        return getattr(importlib.import_module(module), name), make_package_plugin(dists[package], module)
    except (ImportError, AttributeError) as error:
        raise InputError(Fault(where="model.encoder.factory", rule=f"cannot be found ({error})", got=place)) from None


def find_obstacle(plugin: Plugin) -> Fault | None:
    """Return why a plug-in cannot be shipped to workers, or None."""
    if isinstance(plugin, FilePlugin) and plugin.is_script:
        rule = "is the script of this process, which workers cannot run; move its parts into a file of their own"
        advice = "import that file, or name it under `plugins:` in the study"
        return Fault(where=plugin.name, rule=f"{rule} and {advice}")
    return None


def describe(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Return the fingerprint of each plug-in by its name."""
    return {plugin.name: plugin.fingerprint for plugin in sorted(plugins, key=lambda each: each.name)}


def _list_other_versions(plugin: Plugin) -> list[Plugin]:
    """Return the registered versions of a file that differ from it."""
    if not isinstance(plugin, FilePlugin):
        return []
    return [each for each in _REGISTERED if each.name == plugin.name and each != plugin]


def _check_distinct(names: Sequence[str], where: str) -> None:
    bases = [Path(name).name for name in names]
    if twice := sorted({base for base in bases if bases.count(base) > 1}):
        rule = "two files have one name; their copies in the results would, too"
        raise InputError(Fault(where=where, key="plugins", rule=rule, got=twice[0]))


def _check_imports(plugin: FilePlugin) -> None:
    """Raise if a file imports its neighbors, which would not be shipped and whose changes would go unnoticed."""
    try:
        tree = ast.parse(plugin.source)
    except SyntaxError as error:
        rule = f"is not Python ({error.msg})"
        raise InputError(Fault(where=f"{plugin.name}:{error.lineno}", rule=rule)) from None
    folder = Path(plugin.path).parent
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        else:
            names = ["." if node.level else str(node.module).split(".")[0]]
        for name in names:
            is_neighbor = (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
            is_installed = name in sys.stdlib_module_names or name in _read_distributions()
            if name == "." or (is_neighbor and not is_installed):
                rule = (
                    "imports a file beside it, which would not reach the workers; put both into one file or a package"
                )
                raise InputError(Fault(where=f"{plugin.name}:{node.lineno}", rule=rule, got=name))


@cache
def _read_distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _find_plugin(kind: str, name: str, part: Any) -> Plugin:
    """Return the plug-in of the module that defines a part, which registers it while it is imported.

    Raises:
        InputError: the module has no file that could be shipped.
    """
    module = sys.modules.get(getattr(part, "__module__", ""), ModuleType(""))
    place = f"{kind} {name!r}"
    advice = "write it into a file, such as my_terms.py, and import that or name it under `plugins:` in the study"
    file = getattr(module, "__file__", None)
    if not file or not Path(file).is_file():
        rule = "is defined where there is no file (a notebook or prompt), so that no worker could get it"
        raise InputError(Fault(where=place, rule=f"{rule}; {advice}"))
    top = module.__name__.split(".")[0]
    if module.__name__ != "__main__" and (owners := _read_distributions().get(top)):
        return make_package_plugin(importlib.metadata.distribution(owners[0]), module.__name__)
    if "." in module.__name__:
        rule = f"is defined in {module.__name__}, a package that is not installed, so that no worker could import it"
        raise InputError(Fault(where=place, rule=f"{rule}; install it (pip install -e), or {advice}"))
    if module.__name__ == "__main__":
        return FilePlugin(Path(file).name, Path(file).read_text(encoding="utf-8"), file, is_script=True)
    return read_file(file)


@contextmanager
def _registering(plugin: Plugin) -> Iterator[None]:
    _current.append(plugin)
    try:
        yield
    finally:
        _current.pop()


def _is_source(path: Path) -> bool:
    return path.suffix in {".py", ".so", ".pyd"} and path.is_file()
