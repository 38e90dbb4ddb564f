"""The report as JSON, with names unchanged."""

from __future__ import annotations

import json
from dataclasses import asdict

from prefect_stagegate.model import DecisionOutcome
from prefect_stagegate.report.model import Report


def to_json(report: Report, indent: int | None = 2) -> str:
    """One object with the fields of `Report` and `accepted`; each row's standing is written by name.

    Without `indent`, it is one line.
    """
    values = asdict(report) | {"accepted": report.outcome is DecisionOutcome.ACCEPTED}
    # `asdict` leaves the standing as a number.
    for row, written in zip(report.rows, values["rows"], strict=True):
        written["standing"] = row.standing.name.lower()
    # ASCII only: UTF-8 can't hold the lone surrogates that stand for bytes of names which aren't UTF-8.
    return json.dumps(values, indent=indent, ensure_ascii=True) + "\n"
