"""The report as JUnit XML, which every CI system shows.

Each check is a test case. A blocking check that failed is a failure; a blocking check without an answer (inconclusive,
or waiting for an approval) is an error. A check that did not apply or was waived is skipped. Any other check passes,
with its findings as output, since JUnit has no warnings.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from prefect_stagegate.model import Outcome
from prefect_stagegate.report.legible import one_line
from prefect_stagegate.report.model import Report, Row, Standing, legible

_ELEMENT = {Standing.REFUSES: "failure", Standing.UNDECIDED: "error", Standing.WAITS: "error"}


def to_junit(report: Report) -> str:
    """One `testsuite` named by dataset and target."""
    report = legible(report)
    counts = {name: sum(_ELEMENT.get(row.standing) == name for row in report.rows) for name in ("failure", "error")}
    suite = ET.Element(
        "testsuite",
        name=f"stagegate {report.dataset} {report.target}",
        tests=str(len(report.rows)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(sum(_skipped(row) for row in report.rows)),
        time=_seconds(report.rows),
        timestamp=report.at.removesuffix("Z"),
    )
    properties = ET.SubElement(suite, "properties")
    for name in ("digest", "outcome", "policy", "environment", "expires"):
        ET.SubElement(properties, "property", name=name, value=str(getattr(report, name)))
    for row in report.rows:
        suite.append(_case(report, row))
    root = ET.Element("testsuites", name="stagegate", time=_seconds(report.rows))
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _skipped(row: Row) -> bool:
    return row.outcome in (Outcome.NOT_APPLICABLE, Outcome.WAIVED)


def _seconds(rows: Iterable[Row]) -> str:
    """The seconds that the checks took together; a check without a time counts as 0."""
    return f"{sum(row.seconds or 0 for row in rows):.3f}"


def _case(report: Report, row: Row) -> ET.Element:
    suite = f"stagegate.{report.dataset}.{report.target}"
    case = ET.Element("testcase", name=row.check, classname=suite, time=_seconds([row]))
    message = one_line(row.summary)
    if element := _ELEMENT.get(row.standing):
        ET.SubElement(case, element, message=message, type=row.verdict).text = _body(row)
    elif _skipped(row):
        ET.SubElement(case, "skipped", message=message)
    else:
        ET.SubElement(case, "system-out").text = f"{row.verdict}: {_body(row)}"
    return case


def _body(row: Row) -> str:
    lines = [row.summary, f"owner: {row.owner}"]
    for finding in row.findings:
        lines += [f"{finding.subject}: {finding.problem}", *([f"  {finding.fix}"] if finding.fix else [])]
    return "\n".join(lines)
