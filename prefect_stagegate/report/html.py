"""The report as one self-contained HTML page: no script, no font, no image file, no network."""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from prefect_stagegate.report.coverage import basis_text, group_text, table_text
from prefect_stagegate.report.expectations import refused_text, seconds_text, verdict_text
from prefect_stagegate.report.legible import spans, time_text
from prefect_stagegate.report.model import Report, is_command, legible, without_repeats
from prefect_stagegate.report.rubric import SOURCES, rubric_of
from prefect_stagegate.report.tables import HEIGHT, WIDTH, rows_text
from prefect_stagegate.units import digest_text

_MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")


def to_html(report: Report) -> str:
    """Lay the report out as a page for screens, phones and printers, in light and dark colours.

    All text in it is escaped, since file names and error messages come from whoever wrote the data.
    """
    report = legible(without_repeats(report))
    checks = [row.check for row in report.rows]
    return _template().render(report=report, rubric=rubric_of(report), sources=SOURCES, checks=checks)


@cache
def _template() -> Template:
    # By default, Jinja escapes nothing and leaves a gap where the template misspells a field.
    environment = Environment(
        loader=PackageLoader("prefect_stagegate.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["command"] = is_command
    environment.filters.update(href=link_of, spans=spans, time=time_text, rows=rows_text)
    environment.filters.update(refused=refused_text, seconds=seconds_text, verdict=verdict_text)
    environment.filters.update(table=table_text, group=group_text, basis=basis_text, digest=digest_text)
    environment.globals.update(picture=(WIDTH, HEIGHT))
    return environment.get_template("report.html")


def link_of(text: str) -> str:
    """The link of a contact or runbook; empty for anything but a web or mail address."""
    if text.lower().startswith(("https://", "http://")):
        return text
    return f"mailto:{text}" if _MAIL.fullmatch(text) else ""
