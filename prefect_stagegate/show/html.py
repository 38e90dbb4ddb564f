"""The report as one self-contained HTML page: no font, no image file, no network, and one script, which only copies."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined

from prefect_stagegate.show.changes import VersionChanges
from prefect_stagegate.show.document import Figure
from prefect_stagegate.show.expectations import refused_text, seconds_text, verdict_text
from prefect_stagegate.show.legible import spans, time_text
from prefect_stagegate.show.model import Report, legible, without_repeats
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.traffic import SIDES, bottleneck_text, traffic_cells, transfer_text
from prefect_stagegate.show.trimming import fitted
from prefect_stagegate.units import bytes_text, digest_text

LONG = 100
"""Checks, findings and results above which a page is long: its parts are laid out as they are scrolled to."""
WIDTH, HEIGHT = 168, 36
"""The size of a figure, in its own units."""
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
_TONES = ("accepted", "refused", "inconclusive", "waiting", "promoted", "withdrawn")


def to_html(report: Report) -> str:
    """Lay the report out as a page for screens, phones and printers, in light and dark colours.

    All text in it is escaped, since file names and error messages come from whoever wrote the data. The page has at
    most 300 kB, as far as leaving out details goes.
    """
    return fitted(without_repeats(report), lambda fitting: _page(legible(fitting)))


def _page(report: Report) -> str:
    counts = report.tally.items()
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            tally=[(verdict, count / len(report.rows)) for verdict, count in counts],
            sections=list(_sections(report)),
            differences=list(_differences(report.changes)) if report.changes else [],
            policy=content_policy(),
            is_long=sum(1 + len(row.findings) + len(row.results) for row in report.rows) > LONG,
        )
    )


@cache
def content_policy() -> str:
    """The page's Content-Security-Policy: its own script and nothing else. Servers send it as a header."""
    # By the template, so that it is the text that stands in the page.
    script = _environment().get_template("copy.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    """The id and the words of each section that the page has."""
    sections: dict[tuple[str, str], Any] = {
        ("found", "Findings"): report.defects,
        ("checks", "Checks"): True,
        ("expectations", "Expectations"): report.expectations,
        **{(f"section-{place}", section.title): section.parts for place, section in enumerate(report.sections)},
        ("changes", "Changes"): report.changes,
        ("transfer", "Transfer"): report.transfer,
        ("past", "History"): report.past,
        ("judged", "Basis"): True,
    }
    return (section for section, content in sections.items() if content)


def _differences(changes: VersionChanges) -> Iterator[tuple[str, str, str, str]]:
    """What differs, in this version, before, and in words."""
    numbers = (f"{changes.files:,}", f"{changes.files_before:,}")
    yield ("files", *numbers, ", ".join(f"{total.files:,} {kind}" for kind, total in changes.totals))
    parts = (f"{bytes_text(total.bytes)} {kind}" for kind, total in changes.totals)
    yield ("bytes", bytes_text(changes.bytes), bytes_text(changes.bytes_before), ", ".join(parts))


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
    """Jinja with what reports and the pages of `stagegate serve` share."""
    # By default, Jinja escapes nothing and leaves a gap where the template misspells a field.
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    environment.tests["command"] = is_command
    environment.filters.update(href=link_of, spans=spans, time=time_text, digest=digest_text, drawn=Drawing)
    environment.filters.update(refused=refused_text, seconds=seconds_text, verdict=verdict_text)
    environment.globals.update(picture=(WIDTH, HEIGHT))
    return environment


@cache
def _environment() -> Environment:
    environment = page_environment(PackageLoader("prefect_stagegate.show", "."))
    environment.filters.update(transfer=transfer_text, bottleneck=bottleneck_text, cells=traffic_cells)
    environment.filters.update(bytes=_bytes)
    environment.globals.update(sides=SIDES, tones=_TONES)
    return environment


def _bytes(size: int | None) -> str:
    return "" if size is None else bytes_text(size)


def link_of(text: str) -> str:
    """The link of a contact or runbook; empty for anything but a web or mail address."""
    if text.lower().startswith(("https://", "http://")):
        return text
    return f"mailto:{text}" if _MAIL.fullmatch(text) else ""
