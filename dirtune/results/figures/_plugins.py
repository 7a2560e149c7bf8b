"""Figures of plug-in files: those that the caller gives, and those that a sweep has recorded, whose code runs only if it may."""

import re
from collections.abc import Sequence

from dirtune import plugins
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.names import PLUGINS

_FIGURE = re.compile(r"register\s*\.\s*figure|FigureKind")


def load_figures(storage: Storage, given: Sequence[plugins.FilePlugin], *, allow: bool) -> str:
    """Load the plug-ins of a study's folder that may have figures; return a sentence on those that were not loaded, or "".

    Args:
        storage: the study's folder.
        given: files that are loaded already, and replace the recorded ones of the same name.
        allow: run the code of recorded plug-ins.
    """
    plugins.load_entry_points("figure")
    try:
        if allow:
            plugins.load_recorded_files(storage, PLUGINS, allow=True, given=given)
    except InputError as error:
        return f"figures of recorded plug-ins cannot be drawn ({error})"
    loaded = plugins.list_registered()
    replaced = {plugin.name for plugin in given}
    hidden = [
        plugin.name
        for plugin in list_recorded(storage)
        if plugin.name not in replaced and plugin not in loaded and _FIGURE.search(plugin.source)
    ]
    if not hidden:
        return ""
    names = ", ".join(hidden)
    rule = f"the figures of {names}, recorded with this study, run code"
    return f"{rule}; read it, then pass --allow-plugins, or your own file by --plugin"


def list_recorded(storage: Storage) -> list[plugins.FilePlugin]:
    """Return the plug-ins that a sweep has recorded, without running them."""
    return [
        plugins.FilePlugin(name, storage.read(f"{PLUGINS}/{name}").decode(errors="replace"))
        for name in storage.list_files(PLUGINS, suffix=".py")
    ]
