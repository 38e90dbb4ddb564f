"""What a page says, apart from its format, and the formats that there are.

All text is plain: renderers escape it, and may show what stands between backticks as code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeAlias, TypeVar, cast

from prefect_stagegate.doors import declared, load, plugins
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.show.legible import legible_text
from prefect_stagegate.show.next_steps import Turn
from prefect_stagegate.show.rows import Row
from prefect_stagegate.workspace import ResolvedVersion, Workspace

T = TypeVar("T")
RENDERERS = {
    "json": f"{__name__}:to_json",
    "markdown": "prefect_stagegate.show.markdown:to_markdown",
    "text": "prefect_stagegate.show.text:to_text",
}
"""The core's own renderers: `module:attribute` of a function that writes a document, by the name of its format."""

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
    tone: str = ""
    """Colours the text: `pass`, `warn`, `fail`, `inconclusive`, `waiting`, …; empty for none."""
    is_code: bool = False
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
    fine: int = 0
    """How many of the rows, the last ones, say that nothing is wrong. Formats may fold them."""
    is_folded: bool = False
    """Whether formats show the rows only on demand."""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names and values."""

    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Shares:
    """A whole in parts."""

    label: str
    """The shares in one sentence."""
    shares: tuple[tuple[str, float, str], ...]
    """The tone of each, its share from 0.0 to 1.0, and its words."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Checks with their findings; those that decided come first."""

    rows: tuple[Row, ...]
    is_brief: bool = False
    """Whether only the summaries of those that are not fine are shown."""


Part: TypeAlias = Table | Text | Pairs | Shares | Outcomes


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading, such as a plugin adds."""

    title: str
    parts: tuple[Part, ...] = ()
    """Without any, the section is not shown."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What it adds to the page's JSON document."""
    brief: str = ""
    """In a line what people need at once, also at a terminal and in a form, which show nothing else of it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A page. What people need at once comes first; terminals show nothing of the sections but their checks."""

    title: str
    tone: str = ""
    """`accepted`, `refused`, `inconclusive`, `waiting`; or `pass`, `warn`, `fail`; or empty."""
    lead: str = ""
    """Why, in a sentence."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values, a few words each."""
    notes: tuple[str, ...] = ()
    turn: str = ""
    """Who acts next, in one line."""
    turns: tuple[Turn, ...] = ()
    """The same people with what they have to see to."""
    steps: tuple[str, ...] = ()
    """What to do, in order; commands can be copied."""
    sections: tuple[Section, ...] = ()
    when: str = ""
    """A sentence on when it was decided."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What `--json` prints, with names as they are in the data."""

    @property
    def checks(self) -> tuple[Row, ...]:
        """The checks of all sections."""
        parts = (part for section in self.sections for part in section.parts)
        return tuple(row for part in parts if isinstance(part, Outcomes) for row in part.rows)


@dataclass(frozen=True, slots=True)
class VersionBeside:
    """The subject of the pages `report`, `version` and `comparison`: a version, and perhaps another one beside it."""

    version: ResolvedVersion
    before: str = ""
    """The other version's digest."""
    names: tuple[str, str] = ("this version", "before")
    """What the page calls them."""


def render(name: str, document: Document) -> str:
    """Write a document in a format, without characters that act.

    Raises:
        UsageError: No renderer has the name.
    """
    # Programs want the values as they are.
    written: str = load(renderer(name))(replace(legible(document), values=document.values))
    return written


def renderer(name: str) -> str:
    """The function that writes a format, as `module:attribute`.

    Raises:
        UsageError: No renderer has the name.
    """
    found = declared("renderers") | RENDERERS
    if name not in found:
        raise UsageError(
            f"No renderer {name!r} is installed", hint=f"Install a plugin that has it. Installed: {', '.join(found)}"
        )
    return str(found[name])


def to_json(document: Document) -> str:
    """The document's values, with names unchanged."""
    # ASCII only: UTF-8 can't hold the lone surrogates that stand for bytes of names which aren't UTF-8.
    return json.dumps(document.values, indent=2, ensure_ascii=True) + "\n"


def legible(value: T) -> T:
    """A document, a part of one, or values, without characters that act on a terminal, break XML or turn the text."""
    cleaned: Any = value
    # Members of enumerations are strings too, and safe.
    if isinstance(value, str) and type(value) is str:
        cleaned = legible_text(value)
    elif isinstance(value, tuple | list):
        cleaned = type(value)(map(legible, value))
    elif isinstance(value, dict):
        cleaned = {name: legible(item) for name, item in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        cleaned = replace(value, **{field.name: legible(getattr(value, field.name)) for field in fields(value)})
    return cast("T", cleaned)


def sections_of(page: str, workspace: Workspace, subject: object) -> tuple[Section, ...]:
    """The sections that plugins add to a page. One that fails is logged, since people need the rest of the page."""
    sections: list[Section] = []
    for place in (plugin.sections[page] for plugin in plugins() if page in plugin.sections):
        try:
            sections += load(place)(workspace, subject)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises
            log.warning("The page %s lacks what %s adds: %s: %s", page, place, type(error).__name__, error)
    return tuple(sections)


def recall_of(workspace: Workspace, version: Address) -> tuple[list[str], dict[str, Any]]:
    """What plugins tell beside a withdrawal of a version or a revocation: lines for people, and values for programs."""
    sections = sections_of("recall", workspace, version)
    parts = (part for section in sections for part in section.parts)
    lines = [legible_text(part.text) for part in parts if isinstance(part, Text)]
    return lines, {name: value for section in sections for name, value in section.values.items()}


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
