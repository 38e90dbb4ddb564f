"""Reports as JUnit XML: a case for each check and each expectation, well-formed whatever the data hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from prefect_stagegate.model import DecisionOutcome, Finding, Outcome, Severity
from tests.plugins.pages.renderers import to_junit
from tests.unit.test_expectation_reports import (
    ERRORED,
    FAILED,
    HARD,
    OBSERVED,
    PASSED,
    REFUSED,
    evidence,
    hostile,
    judgement,
)
from tests.unit.test_report import ALL, HOSTILE, MISSING, a_report, answer


@pytest.mark.parametrize("outcome", DecisionOutcome)
def test_junit_has_every_check_defect_and_decision(outcome: DecisionOutcome) -> None:
    report = a_report(*ALL, outcome=outcome)
    written = to_junit(report)
    for part in (*(row.check for row in report.rows), MISSING.subject, MISSING.problem, MISSING.fix):
        assert part in written
    assert outcome.value in written.lower() or "can't be decided" in written
    assert "nycflights" in to_junit(a_report(outcome=outcome))


def test_junit_has_passed_and_failed_expectations() -> None:
    written = to_junit(a_report(evidence(REFUSED, OBSERVED)))
    for part in ("flights", "expect_it", "expect_max", "4983", "pattern AAA", "-7", "distance"):
        assert part in written


def test_junit_counts_what_blocks_and_nothing_else() -> None:
    (suite,) = ET.fromstring(to_junit(a_report(*ALL)))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "8", "failures": "1", "errors": "2", "skipped": "2"}
    elements = {
        name: [case.get("name") for case in suite.iter("testcase") if case.find(name) is not None]
        for name in ("failure", "error", "skipped")
    }
    assert elements == {"failure": ["schema"], "error": ["space", "approval"], "skipped": ["owner", "rollback"]}


@pytest.mark.parametrize("name", [*HOSTILE, "nul\x00", "half\ud800", "\ufffe"])
def test_junit_is_well_formed_whatever_files_are_called(name: str) -> None:
    written = to_junit(a_report(answer("schema", Outcome.FAIL, Finding(name, name, name))))
    (failure,) = ET.fromstring(written.encode()).iter("failure")
    assert failure.text
    assert not set("\x1b\x07\u202e").intersection(written)


def test_junit_times_are_those_of_the_checks() -> None:
    checks = [replace(answer(name, Outcome.PASS), seconds=took) for name, took in (("schema", 1.5), ("license", None))]
    root = ET.fromstring(to_junit(a_report(*checks, replace(ALL[2], check="drift", seconds=0.25))))
    (suite,) = root
    assert [case.get("time") for case in suite.iter("testcase")] == ["0.250", "1.500", "0.000"]
    assert (suite.get("time"), root.get("time")) == ("1.750", "1.750")


def test_junit_of_hostile_values_is_well_formed() -> None:
    root = ET.fromstring(to_junit(a_report(evidence(*hostile()))).encode())
    assert len(list(root[1].iter("testcase"))) == len(HARD)


def suites(*judgements: Any, **fields: Any) -> list[dict[str, str]]:
    return [dict(suite.attrib) for suite in ET.fromstring(to_junit(a_report(evidence(*judgements, **fields))))]


def test_junit_has_a_case_and_its_seconds_for_each_expectation() -> None:
    root = ET.fromstring(to_junit(a_report(evidence(REFUSED, OBSERVED))))
    cases = {case.get("name"): case.get("time") for case in root[1].iter("testcase")}
    assert cases == {"distance: expect_it": "0.250", "distance: expect_max": "0.500"}
    assert root[1].get("time") == "0.750"
    assert root.get("time") == root[0].get("time")


@pytest.mark.parametrize(
    ("verdict", "severity", "counted"),
    [
        (FAILED, "critical", "failures"),
        (FAILED, "warning", ""),
        (FAILED, "info", ""),
        (ERRORED, "critical", "errors"),
        (ERRORED, "warning", "errors"),
        (ERRORED, "info", ""),
        (PASSED, "critical", ""),
    ],
)
def test_junit_counts_expectations_by_severity(verdict: Any, severity: str, counted: str) -> None:
    suite = suites(judgement(verdict, severity))[1]
    assert {name for name in ("failures", "errors", "skipped") if suite[name] != "0"} == {counted} - {""}


def test_junit_fails_no_expectation_where_the_check_only_warns() -> None:
    assert suites(REFUSED, severity=Severity.WARNING)[1]["failures"] == "0"
