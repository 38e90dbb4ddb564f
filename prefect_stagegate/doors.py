"""The doors of the core: what a plugin declares, and how it is found.

A declaration imports none of the code that it names: `module:attribute` is imported when it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from threading import Event
from typing import TYPE_CHECKING, Any

from prefect_stagegate import plugins as own

if TYPE_CHECKING:
    from prefect_stagegate.cache.leases import Lease
    from prefect_stagegate.jobs.workspace import Workspace
    from prefect_stagegate.transport.transfer.meter import Meter

GROUP = "prefect_stagegate.plugins"
"""The entry point group of plugins in other packages: each names a `Plugin`."""

log = logging.getLogger(__name__)
Fact = str | int | float | bool


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


@dataclass(eq=False, slots=True)
class Job:
    """A job, or one step of it, as its observers see it."""

    workspace: Workspace
    name: str
    """`stage`, `list`, `check`, …"""
    dataset: str
    target: str = ""
    subject: object = None
    """What a whole job works on: a spec, an address or a resolved version. None for a step, and for a trial."""
    writer: Lease | None = None
    """The lease of a job that writes into the cache."""
    meter: Meter | None = None
    """The progress of a job that transfers."""
    cancel: Event | None = None
    """Stops the job in time, once it is set."""
    is_current: bool = True
    """Whether what begins in its block is a step of it. Not in a generator, whose block is left at each value."""
    is_step: bool = True
    """Whether it is counted and traced. Not a job whose one step has its name."""
    facts: dict[str, Fact] = field(default_factory=dict)
    """What it did: `digest`, `bytes`, `outcome`. They leave this process, so they hold no secret."""
    result: object = None
    """What it made, once that is there: a version, evidence, the figures of a transfer."""
    outcome: str = "ok"
    """`ok`, `error`, or `stopped` by whoever ran it."""
    error: BaseException | None = None
    seconds: float = 0.0

    def note(self, **facts: Fact) -> None:
        """Add facts."""
        self.facts |= facts


class Observer:
    """Looks on at one job or step, and changes nothing of it. What it raises is logged once, and ends no job."""

    def begun(self, job: Job) -> None:
        """The job begins."""

    def ended(self, job: Job) -> None:
        """The job ended, however it ended. The observer that began first ends last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What a plugin adds. Each folder of `prefect_stagegate.plugins` has one, as `PLUGIN` in its `__init__`."""

    commands: tuple[Command, ...] = ()
    observers: Mapping[str, Callable[[Job], bool]] = field(default_factory=dict)
    """The class of each observer of jobs as `module:attribute`, and whether it looks on at a job."""


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


def load(place: str) -> Any:
    """The attribute that `module:attribute` names."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
