"""The report as JSON, with names unchanged."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import reduce
from typing import Any

from prefect_stagegate.model import DecisionOutcome
from prefect_stagegate.show.document import merged
from prefect_stagegate.show.model import Report


def json_values(report: Report) -> dict[str, Any]:
    """The fields of `Report` and `accepted`, with the values of sections; each row's standing is written by name."""
    values = asdict(replace(report, sections=())) | {"accepted": report.outcome is DecisionOutcome.ACCEPTED}
    del values["sections"]
    # `asdict` leaves the standing as a number.
    for row, written in zip(report.rows, values["rows"], strict=True):
        written["standing"] = row.standing.name.lower()
    return reduce(merged, (section.values for section in report.sections), values)


def to_json(report: Report) -> str:
    """One object with the values of `json_values`."""
    # ASCII only: UTF-8 can't hold the lone surrogates that stand for bytes of names which aren't UTF-8.
    return json.dumps(json_values(report), indent=2, ensure_ascii=True) + "\n"
