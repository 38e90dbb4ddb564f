"""Ages behind the times in recorded texts, for readers at a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from prefect_stagegate.clock import moment
from prefect_stagegate.show import Report, Row
from prefect_stagegate.units import age_text

TIME = re.compile(r"(?<![\w:.-])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?!\w)")
"""A time as `wording.time_text` writes it."""


def with_ages(text: str, now: datetime) -> str:
    """The text with an age behind each time.

    >>> with_ages("last heartbeat at 2026-03-01T03:00:00Z", moment("2026-03-01T03:17:00Z"))
    'last heartbeat at 2026-03-01T03:00:00Z (17 min ago)'
    """

    def with_age(match: re.Match[str]) -> str:
        try:
            age = now - moment(match[0])
        except ValueError:  # digits of no date
            return match[0]
        past = age.total_seconds() >= 0
        return f"{match[0]} ({age_text(age)} ago)" if past else f"{match[0]} (in {age_text(-age)})"

    return TIME.sub(with_age, text)


def report_with_ages(report: Report, now: datetime) -> Report:
    """The report with an age behind each time in its rows' summaries and findings."""
    return replace(report, rows=tuple(_aged_row(row, now) for row in report.rows))


def _aged_row(row: Row, now: datetime) -> Row:
    findings = tuple(replace(finding, problem=with_ages(finding.problem, now)) for finding in row.findings)
    return replace(row, summary=with_ages(row.summary, now), findings=findings)
