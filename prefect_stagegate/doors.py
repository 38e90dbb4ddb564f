"""The doors of the core: what a plugin declares, and how it is found.

A declaration imports none of the code that it names: `module:attribute` is imported when it is used.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from prefect_stagegate import plugins as own

GROUP = "prefect_stagegate.plugins"
"""The entry point group of plugins in other packages: each names a `Plugin`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `stagegate`."""

    words: str
    """What is typed: `serve`, or `serve blobs`."""
    function: str
    """`module:attribute`; empty for a word that only has subcommands."""
    line: str
    """What it does, for the overview: the first line of the function's docstring."""
    title: str = ""
    """The group of the overview; empty for a subcommand."""
    usage: str = ""
    """The arguments, where cyclopts would call them all ARGS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What a plugin adds. Each folder of `prefect_stagegate.plugins` has one, as `PLUGIN` in its `__init__`."""

    commands: tuple[Command, ...] = ()


@cache
def plugins() -> tuple[Plugin, ...]:
    """This package's plugins by name, then those of others. One that can't be loaded is logged and left out."""
    from importlib.metadata import entry_points  # takes 50 ms at first

    found = [import_module(f"{own.__name__}.{module.name}") for module in iter_modules(own.__path__)]
    declared = [module.PLUGIN for module in found if hasattr(module, "PLUGIN")]
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            plugin = point.load()
        except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises
            log.warning("the plugin %s can't be loaded: %s: %s", point.value, type(error).__name__, error)
            continue
        if isinstance(plugin, Plugin):
            declared.append(plugin)
        else:
            log.warning("the plugin %s is left out: it is no Plugin of prefect_stagegate.doors", point.value)
    return tuple(declared)
