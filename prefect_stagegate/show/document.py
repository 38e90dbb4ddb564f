"""What a page says, apart from its format: sections with parts, and the values that `--json` prints.

All text is plain: renderers escape it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_stagegate.doors import load, plugins
from prefect_stagegate.workspace import ResolvedVersion, Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bar:
    """The share of values in one bin, or of one value, in both versions."""

    share: float
    """Of this version's values, from 0.0 to 1.0."""
    share_before: float
    label: str
    """The bin or value with its shares, for people."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A small picture of bars, for formats that have pictures."""

    name: str
    bars: tuple[Bar, ...]
    is_histogram: bool = False
    """Whether the bars are neighbouring intervals, and not single values."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str = ""
    below: str = ""
    """Smaller text under it."""
    figure: Figure | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first of each row names it."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    summary: str = ""
    """The table in one line. Formats without room for all rows have it alone."""
    key: tuple[str, str] | None = None
    """What the two colours of figures mean: of a share, and of the share before."""
    more: int = 0
    """Rows that are not shown."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading, such as a plugin adds."""

    title: str
    parts: tuple[Table, ...] = ()
    """Without any, the section is not shown."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What it adds to the page's JSON document."""


@dataclass(frozen=True, slots=True)
class VersionBeside:
    """The subject of the pages `report`, `version` and `comparison`: a version, and perhaps another one beside it."""

    version: ResolvedVersion
    before: str = ""
    """The other version's digest."""
    names: tuple[str, str] = ("this version", "before")
    """What the page calls them."""


def sections_of(page: str, workspace: Workspace, subject: object) -> tuple[Section, ...]:
    """The sections that plugins add to a page. One that fails is logged, since people need the rest of the page."""
    sections: list[Section] = []
    for place in (plugin.sections[page] for plugin in plugins() if page in plugin.sections):
        try:
            sections += load(place)(workspace, subject)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises
            log.warning("The page %s lacks what %s adds: %s: %s", page, place, type(error).__name__, error)
    return tuple(sections)


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Add values to those that are there, within mappings too. What is there stays.

    >>> merged({"changes": {"files": 1}, "past": None}, {"changes": {"tables": []}, "past": {}})
    {'changes': {'files': 1, 'tables': []}, 'past': None}
    """
    both = dict(values)
    for name, value in more.items():
        there = both.setdefault(name, value)
        if there is not value and isinstance(there, Mapping) and isinstance(value, Mapping):
            both[name] = merged(there, value)
    return both
