"""The report as JSON, with every name exactly as it is."""

from __future__ import annotations

import json
from dataclasses import asdict

from prefect_stagegate.model import DecisionOutcome
from prefect_stagegate.report.model import Report


def to_json(report: Report) -> str:
    """One object: the fields of `Report`, and `accepted`; the standing of each row by its name."""
    values = asdict(report) | {"accepted": report.outcome is DecisionOutcome.ACCEPTED}
    for row, written in zip(report.rows, values["rows"], strict=True):
        written["standing"] = row.standing.name.lower()
    # ASCII: lone surrogates, which stand for bytes of names that aren't UTF-8, have no other form that can be written.
    return json.dumps(values, indent=2, ensure_ascii=True) + "\n"
