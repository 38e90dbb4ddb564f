"""The report as JUnit XML, which every CI system shows.

Each check is a test case. A blocking check that failed is a failure; a blocking check without an answer (inconclusive,
or waiting for an approval) is an error. A check that did not apply or was waived is skipped. Any other check passes,
with its findings as output, since JUnit has no warnings.

The expectations of each table are a suite of their own. They fail only where the check `expectations` blocks, and then
by their severity. Their seconds lie within those of that check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from prefect_stagegate.model import ExpectationResult, Outcome
from prefect_stagegate.show.expectations import CHECK, cells, refused_text
from prefect_stagegate.show.legible import one_line
from prefect_stagegate.show.model import Report, legible
from prefect_stagegate.show.rows import Row, Standing

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
        # JUnit's schema allows neither fractions of a second nor a zone.
        timestamp=report.at[:19],
    )
    properties = ET.SubElement(suite, "properties")
    for name in ("digest", "outcome", "policy", "environment", "expires"):
        ET.SubElement(properties, "property", name=name, value=str(getattr(report, name)))
    for row in report.rows:
        suite.append(_case(report, row))
    root = ET.Element("testsuites", name="stagegate", time=_seconds(report.rows))
    root.append(suite)
    root.extend(_expectation_suites(report))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _expectation_suites(report: Report) -> Iterator[ET.Element]:
    """A `testsuite` for the expectations of each table."""
    blocks = any(row.check == CHECK and row.standing in _ELEMENT for row in report.rows)
    for table, results in report.expectations.items():
        elements = [_expectation_element(result) if blocks else "" for result in results]
        name = f"stagegate.{report.dataset}.{report.target}.{CHECK}.{table}"
        suite = ET.Element(
            "testsuite",
            name=name,
            tests=str(len(results)),
            failures=str(elements.count("failure")),
            errors=str(elements.count("error")),
            skipped="0",
            time=f"{sum(result.seconds or 0 for result in results):.3f}",
            timestamp=report.at[:19],
        )
        suite.extend(_expectation_case(name, *pair) for pair in zip(results, elements, strict=True))
        yield suite


def _expectation_element(result: ExpectationResult) -> str:
    """`failure` or `error` of an expectation by its severity; empty when it passes."""
    if result.verdict == "errored":
        return "" if result.severity == "info" else "error"
    return "failure" if result.verdict == "failed" and result.severity == "critical" else ""


def _expectation_case(suite: str, result: ExpectationResult, element: str) -> ET.Element:
    expectation, column, severity, verdict, observed, _, examples, _ = cells(result)
    title = f"{column}: {expectation}" if column else expectation
    case = ET.Element("testcase", name=title, classname=suite, time=f"{result.seconds or 0:.3f}")
    figures = [("observed", observed), ("refused rows", refused_text(result)), ("examples", examples)]
    body = "\n".join([f"{verdict} ({severity})", *(f"{name}: {text}" for name, text in figures if text)])
    if element:
        ET.SubElement(case, element, message=f"{title}: {verdict}", type=severity).text = body
    else:
        ET.SubElement(case, "system-out").text = body
    return case


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
