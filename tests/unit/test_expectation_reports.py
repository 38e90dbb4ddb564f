"""The results of expectations in each format: complete, bounded, harmless whatever the data hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prefect_stagegate.cli.reporting import SHOWN_EXPECTATIONS, print_expectations
from prefect_stagegate.model import Evidence, ExpectationResult, Outcome, Severity, Validation
from prefect_stagegate.show import read_results, render, validation_document
from prefect_stagegate.show.expectations import MOST, refused_text
from prefect_stagegate.validations.expectation_results import MOST_RECORDED, caller_results, recorded_results
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement, ShownValues, TableReport
from tests.support.renderings import to_json, to_markdown
from tests.unit.test_report import HOSTILE, a_report

FAILED, PASSED, ERRORED = ExpectationVerdict.FAILED, ExpectationVerdict.PASSED, ExpectationVerdict.ERRORED


def judgement(verdict: ExpectationVerdict = PASSED, severity: str = "critical", **fields: Any) -> Judgement:
    return Judgement(fields.pop("expectation", "expect_it"), "distance", severity, verdict, **fields)


def evidence(
    *judgements: Judgement, outcome: Outcome = Outcome.FAIL, severity: Severity = Severity.BLOCKING
) -> Evidence:
    # As JSON, since that is what the catalog gives back.
    measured = json.loads(json.dumps(recorded_results([TableReport("flights", judgements)])))
    return Evidence("expectations", outcome, "1 of 2 hold", "data", severity, measured=measured)


REFUSED = judgement(
    FAILED,
    rows=1000,
    refused=28,
    seconds=0.25,
    shown=ShownValues("", ("-7", "LGA")),
    recorded=ShownValues("", ("-7", "pattern AAA")),
)
OBSERVED = judgement(expectation="expect_max", recorded=ShownValues("4983"), shown=ShownValues("4983"), seconds=0.5)


def test_record_says_all_that_the_caller_sees_but_text() -> None:
    report = TableReport("flights", [OBSERVED, REFUSED])
    recorded = read_results(evidence(OBSERVED, REFUSED))
    refused = ExpectationResult(
        "flights", "expect_it", "distance", "critical", "failed", "", 1000, 28, ("-7", "pattern AAA"), 0.25
    )
    assert recorded[0] == refused
    assert recorded[1].observed == "4983"
    assert caller_results(report)[1].examples == ("-7", "LGA")


def test_record_is_bounded_and_holds_failures_first() -> None:
    long = judgement(
        expectation="e" * 100_000, recorded=ShownValues("v" * 100_000, tuple("x" * 10_000 for _ in "12345"))
    )
    measured = recorded_results([TableReport("t", [*[long] * 500, REFUSED])])
    assert measured["results"][0]["verdict"] == "failed"
    assert (len(measured["results"]), measured["results_left_out"]) == (MOST_RECORDED, 501 - MOST_RECORDED)
    assert len(json.dumps(measured)) < 100_000


@pytest.mark.parametrize("recorded", [None, "x", [1], [{"table": "t"}], [{"table": []}], {"results": []}])
def test_damaged_results_are_no_results(recorded: object) -> None:
    assert read_results(Evidence("expectations", Outcome.PASS, "", "data", measured={"results": recorded})) == ()


def test_forged_record_of_many_results_is_cut() -> None:
    one = recorded_results([TableReport("t", [REFUSED])])["results"]
    forged = Evidence("expectations", Outcome.PASS, "", "data", measured={"results": one * 10_000})
    assert len(read_results(forged)) == MOST


@pytest.mark.parametrize("writer", [to_markdown, to_json])
def test_every_writer_shows_passed_and_failed_expectations(writer: Any) -> None:
    written = writer(a_report(evidence(REFUSED, OBSERVED)))
    for part in ("flights", "expect_it", "expect_max", "4983", "pattern AAA", "-7", "distance"):
        assert part in written


def test_shares_of_refused_rows_are_readable() -> None:
    results = read_results(evidence(REFUSED, judgement(FAILED, rows=10**9, refused=1), judgement(rows=5, refused=0)))
    assert [refused_text(result) for result in results] == [
        "28 of 1,000 (2.8%)",
        "1 of 1,000,000,000 (<0.01%)",
        "0 of 5",
    ]


# ── hostile values ──────────────────────────────────────────────────────────────────────────────────────────────

HARD = (*HOSTILE, "x" * 5000, "nul\x00", "a\nb | c")


def hostile() -> list[Judgement]:
    return [
        judgement(FAILED, expectation=text, rows=1, refused=1, recorded=ShownValues(text, (text, "plain")))
        for text in HARD
    ]


def test_markdown_rows_of_hostile_values_stay_whole() -> None:
    written = to_markdown(a_report(evidence(*hostile())))
    rows = written.partition("### Expectations")[2].partition("### What")[0].strip().splitlines()
    assert [row[:11] for row in rows] == ["- flights: "] * len(HARD)


def test_markdown_has_failures_of_all_tables_first() -> None:
    reports = [TableReport("a", [OBSERVED, OBSERVED]), TableReport("z", [REFUSED])]
    measured = recorded_results(reports)
    written = to_markdown(a_report(Evidence("expectations", Outcome.FAIL, "1 of 3", "data", measured=measured)))
    failed, passed = written.partition("### Expectations")[2].strip().splitlines()[:3:2]
    assert failed.startswith("- z: `expect_it` (distance): verdict failed (critical), found 28 of 1,000")
    assert passed.startswith("<details><summary>2 fine</summary><ul><li>a: expect_max (distance): verdict passed")


def test_artifact_holds_nothing_that_acts() -> None:
    page = render(
        "markdown", validation_document(Validation("nycflights", "sha256:1", False, (), (evidence(*hostile()),)))
    )
    rows = page.partition("### Expectations")[2].strip().splitlines()
    assert [row[:11] for row in rows] == ["- flights: "] * len(HARD)
    assert not set("\x1b\x07\u202e\x00").intersection(page)


def test_terminal_does_not_obey_values_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    many = [*hostile(), *[judgement(shown=ShownValues("1"))] * 30, judgement(FAILED, expectation="[red]x[/red]")]
    print_expectations(caller_results(TableReport("flights", many)))
    printed = capsys.readouterr().out
    assert "[red]x[/red]" in printed
    assert not set("\x1b\x07\u202e\x00").intersection(printed)
    assert f"… and {len(many) - SHOWN_EXPECTATIONS} more; --json has all" in printed
