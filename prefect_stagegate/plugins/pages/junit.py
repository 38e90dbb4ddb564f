"""The report of a decision as JUnit XML, which every CI system shows. It is made from the values of `--json`.

Each check is a test case. A blocking check that failed is a failure; a blocking check without an answer (inconclusive,
or waiting for an approval) is an error. A check that did not apply or was waived is skipped. Any other check passes,
with its findings as output, since JUnit has no warnings.

The expectations of each table are a suite of their own. They fail only where the check `expectations` blocks, and then
by their severity. Their seconds lie within those of that check.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias
from xml.etree import ElementTree as ET

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import ExpectationResult
from prefect_stagegate.show.document import Document, legible, to_json
from prefect_stagegate.show.expectations import CHECK, by_table, cells
from prefect_stagegate.show.legible import one_line

Values: TypeAlias = Mapping[str, Any]
_ELEMENT = {"refuses": "failure", "undecided": "error", "waits": "error"}


def to_junit(document: Document) -> str:
    """One `testsuite` named by dataset and target, and one for the expectations of each table.

    Raises:
        UsageError: The document is no report.
    """
    report = legible(json.loads(to_json(document)))
    if "rows" not in report:
        raise UsageError("Only the report of a decision can be written as JUnit XML")
    suite = f"stagegate.{report['dataset']}.{report['target']}"
    cases = [_case(suite, row) for row in report["rows"]]
    seconds = _seconds(report["rows"])
    checks = _suite(f"stagegate {report['dataset']} {report['target']}", cases, seconds, report)
    properties = ET.Element("properties")
    for name in ("digest", "outcome", "policy", "environment", "expires"):
        ET.SubElement(properties, "property", name=name, value=report[name])
    checks.insert(0, properties)
    root = ET.Element("testsuites", name="stagegate", time=seconds)
    root.append(checks)
    root.extend(_expectation_suites(suite, report))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(name: str, cases: list[ET.Element], seconds: str, report: Values) -> ET.Element:
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    suite = ET.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=seconds,
        # JUnit's schema allows neither fractions of a second nor a zone.
        timestamp=report["at"][:19],
    )
    suite.extend(cases)
    return suite


def _expectation_suites(suite: str, report: Values) -> Iterator[ET.Element]:
    blocks = any(row["check"] == CHECK and row["standing"] in _ELEMENT for row in report["rows"])
    recorded = (ExpectationResult(**result) for row in report["rows"] for result in row["results"])
    for table, results in by_table(recorded).items():
        name = f"{suite}.{CHECK}.{table}"
        cases = [_expectation_case(name, result, _expectation_element(result) if blocks else "") for result in results]
        yield _suite(name, cases, f"{sum(result.seconds or 0 for result in results):.3f}", report)


def _expectation_element(result: ExpectationResult) -> str:
    """`failure` or `error` of an expectation by its severity; empty when it passes."""
    if result.verdict == "errored":
        return "" if result.severity == "info" else "error"
    return "failure" if result.verdict == "failed" and result.severity == "critical" else ""


def _expectation_case(suite: str, result: ExpectationResult, element: str) -> ET.Element:
    expectation, column, severity, verdict, observed, refused, examples, _ = cells(result)
    title = f"{column}: {expectation}" if column else expectation
    case = ET.Element("testcase", name=title, classname=suite, time=f"{result.seconds or 0:.3f}")
    figures = [("observed", observed), ("refused rows", refused), ("examples", examples)]
    body = "\n".join([f"{verdict} ({severity})", *(f"{name}: {text}" for name, text in figures if text)])
    if element:
        ET.SubElement(case, element, message=f"{title}: {verdict}", type=severity).text = body
    else:
        ET.SubElement(case, "system-out").text = body
    return case


def _seconds(rows: Iterable[Values]) -> str:
    """The seconds that the checks took together; a check without a time counts as 0."""
    return f"{sum(row['seconds'] or 0 for row in rows):.3f}"


def _case(suite: str, row: Values) -> ET.Element:
    case = ET.Element("testcase", name=row["check"], classname=suite, time=_seconds([row]))
    message, verdict = one_line(row["summary"]), _verdict(row)
    if element := _ELEMENT.get(row["standing"]):
        ET.SubElement(case, element, message=message, type=verdict).text = _body(row)
    elif row["outcome"] in ("not-applicable", "waived"):
        ET.SubElement(case, "skipped", message=message)
    else:
        ET.SubElement(case, "system-out").text = f"{verdict}: {_body(row)}"
    return case


def _verdict(row: Values) -> str:
    word: str = "waiting" if row["awaiting"] else row["outcome"].replace("-", " ")
    return word if row["severity"] == "blocking" or row["standing"] == "fine" else f"{word} ({row['severity']})"


def _body(row: Values) -> str:
    owner = "{role} ({contact})" if row["owner"]["contact"] else "{role}"
    lines = [row["summary"], f"owner: {owner.format(**row['owner'])}"]
    for finding in row["findings"]:
        lines += [f"{finding['subject']}: {finding['problem']}", *([f"  {finding['fix']}"] if finding["fix"] else [])]
    return "\n".join(lines)
