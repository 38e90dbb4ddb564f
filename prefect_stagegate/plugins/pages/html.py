"""A document as one self-contained HTML page: no font, no image file, no network, and one script, which only copies."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined

from prefect_stagegate.show.document import Document, Figure, Section, Table
from prefect_stagegate.show.legible import spans, time_text
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.rows import tally, tally_text
from prefect_stagegate.show.trimming import fitted
from prefect_stagegate.units import digest_text

LONG = 100
"""Checks, findings and rows above which a page is long: its parts are laid out as they are scrolled to."""
WIDTH, HEIGHT = 168, 36
"""The size of a figure, in its own units."""
LOADER = ChoiceLoader([PackageLoader(__package__), PackageLoader(__package__, "static")])
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")


def to_html(document: Document) -> str:
    """Lay a document out as a page for screens, phones and printers, in light and dark colours.

    All text in it is escaped, since file names and error messages come from whoever wrote the data. The page has at
    most 300 kB, as far as leaving out details goes.
    """
    return fitted(document, _page)


def _page(document: Document) -> str:
    return (
        _environment().get_template("document.html").render(policy=content_policy(), opened=None, **values_of(document))
    )


def values_of(document: Document) -> dict[str, Any]:
    """What `document_body.html` shows of a document."""
    sections = [(f"section-{place}", section) for place, section in enumerate(document.sections) if section.parts]
    links = [(name, section.title) for name, section in sections if section.title]
    if document.checks:
        found = [] if all(row.is_fine for row in document.checks) else [("found", "Findings")]
        links = [*found, ("checks", "Checks"), *links]
    tables = (part for _, section in sections for part in section.parts if isinstance(part, Table))
    lines = sum(1 + len(row.findings) for row in document.checks) + sum(len(table.rows) for table in tables)
    return {"document": document, "chapters": sections, "contents": links, "is_long": lines > LONG}


@cache
def content_policy() -> str:
    """The page's Content-Security-Policy: its own script and nothing else. Servers send it as a header."""
    # By the template, so that it is the text that stands in the page.
    script = _environment().get_template("copy.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure with its geometry."""

    figure: Figure

    @property
    def step(self) -> float:
        """Units from one bar to the next."""
        return min(WIDTH / len(self.figure.bars), 22)

    @property
    def scale(self) -> float:
        """Units for a share of 1.0: the highest bar fills the figure."""
        return HEIGHT / (max(max(bar.share, bar.share_before) for bar in self.figure.bars) or 1.0)

    @property
    def outlines(self) -> tuple[str, str]:
        """A histogram of this version, and of the other one, as paths: they take less room than bars."""
        shares = zip(*((bar.share, bar.share_before) for bar in self.figure.bars), strict=True)
        now, before = ([(n * self.step, share * self.scale) for n, share in enumerate(each)] for each in shares)
        return _outline(now), _outline(before)

    @property
    def highest(self) -> str:
        """The label of the highest bar of this version."""
        return max(self.figure.bars, key=lambda bar: bar.share).label


def _outline(steps: Sequence[tuple[float, float]]) -> str:
    """The path of a histogram that stands on the picture's lower edge; empty without any height."""
    if not any(height for _, height in steps):
        return ""
    width = steps[1][0] - steps[0][0] if len(steps) > 1 else WIDTH
    tops = "".join(f"H{left:.4g}V{HEIGHT - height:.4g}" for left, height in steps)
    return f"M0 {HEIGHT}{tops}H{steps[-1][0] + width:.4g}V{HEIGHT}"


def page_environment(loader: BaseLoader, **options: Any) -> Environment:
    """Jinja with what documents and the pages of `stagegate serve` share."""
    # By default, Jinja escapes nothing and leaves a gap where the template misspells a field.
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    environment.tests["command"] = is_command
    environment.filters.update(href=link_of, spans=spans, time=time_text, digest=digest_text, drawn=Drawing)
    environment.filters.update(
        kind=lambda part: type(part).__name__, tally=tally, tally_text=tally_text, failing=_failing
    )
    environment.globals.update(picture=(WIDTH, HEIGHT))
    return environment


def _failing(sections: Sequence[Section]) -> set[str]:
    """The titles of the tables of which a row failed."""
    tables = [part for section in sections for part in section.parts if isinstance(part, Table)]
    return {each.title for each in tables for row in each.rows for cell in row if cell.tone in ("fail", "inconclusive")}


@cache
def _environment() -> Environment:
    return page_environment(LOADER)


def link_of(text: str) -> str:
    """The link of a contact or runbook; empty for anything but a web or mail address."""
    if text.lower().startswith(("https://", "http://")):
        return text
    return f"mailto:{text}" if _MAIL.fullmatch(text) else ""
