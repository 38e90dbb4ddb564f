"""Turns what a page shows into HTML. All text is escaped, since names and evidence come from anybody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup, escape

from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.doors import Page, answer_path, plugins
from prefect_stagegate.jobs.review.inbox import answer_pages
from prefect_stagegate.plugins.pages.html import LOADER, page_environment
from prefect_stagegate.show.legible import legible_text, one_line
from prefect_stagegate.units import age_text, bytes_text, count_text

LONGEST = 600
"""Characters of one text that are shown; reports and `--json` have all."""
WIDTH, HEIGHT = 240, 40
"""The size of a sparkline, in its own units."""
MARGIN = 3


def render(template: str, **values: Any) -> str:
    """One page as HTML."""
    return _environment().get_template(template).render(at=stamp(now()), **values)


@cache
def added_pages() -> tuple[Page, ...]:
    """What plugins add."""
    return tuple(page for plugin in plugins() for page in plugin.pages)


@cache
def static_text(*names: str) -> str:
    """Files of the folder `static`, one behind the other: the look of all documents, and what pages have beside it."""
    return "".join(files(__package__).joinpath("static", name).read_text(encoding="utf-8") for name in names)


@cache
def _environment() -> Environment:
    added = dict.fromkeys(page.function.partition(":")[0].rpartition(".")[0] for page in added_pages() if page.template)
    environment = page_environment(ChoiceLoader([LOADER, *map(PackageLoader, added)]), finalize=_shown)
    environment.filters.update(age=_age, cut=_cut, whole=_whole, bytes=bytes_text, count=count_text, json=_json)
    # Pages of one thing have no place in the navigation.
    sections = tuple((page.section, page.path) for page in added_pages() if page.section and "{" not in page.path)
    environment.globals.update(spark=(WIDTH, HEIGHT), sections=sections)
    environment.globals.update(answer_path=answer_path, answer_pages=answer_pages)
    return environment


def _shown(value: object) -> object:
    """What an expression shows: text without characters that act, and not too long. Markup is left as it is."""
    if type(value) is not str:
        return value
    return legible_text(value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…")


def _whole(path: str) -> Markup:
    """All of a path in a manifest, which has 3,072 bytes at most."""
    return escape(legible_text(path))


def _age(text: str) -> str:
    """How long ago a recorded time was; the text itself where it is none."""
    try:
        return age_text(max(now() - moment(text), timedelta(0)))
    except ValueError:
        return _cut(text, 16)  # it is shown unbroken


def _cut(text: object, longest: int = LONGEST) -> str:
    line = one_line(str(text))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of figures, the oldest first."""

    label: str
    """What it shows, with first, last, least and greatest figure, for people who don't see it."""
    lines: tuple[str, ...]
    """The points of each unbroken piece, as SVG's `points`. A figure that is missing breaks the line."""
    dots: tuple[tuple[float, float, str], ...]
    """Each figure's place, with its text."""


def sparkline(label: str, figures: Sequence[tuple[float | None, str]]) -> Sparkline | None:
    """Lay figures out, each with its text; None with fewer than two figures.

    The lowest place is 0, so that small changes of large figures look small.
    """
    known = [figure for figure, _ in figures if figure is not None]
    if len(known) < 2:  # noqa: PLR2004 - one point is no line
        return None
    highest = max(known) or 1.0
    step = (WIDTH - 2 * MARGIN) / max(len(figures) - 1, 1)
    pieces: list[list[str]] = [[]]
    dots = []
    for number, (figure, text) in enumerate(figures):
        if figure is None:
            pieces.append([])
            continue
        x = round(MARGIN + number * step, 1)
        y = round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * max(figure, 0) / highest, 1)
        pieces[-1].append(f"{x},{y}")
        dots.append((x, y, text))
    return Sparkline(label, tuple(" ".join(piece) for piece in pieces if piece), tuple(dots))
