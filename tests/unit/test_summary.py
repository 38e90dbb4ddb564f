"""The decision on one screen."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Finding, Outcome, Promotion
from prefect_stagegate.show import Report, build_report, promotion_document, render
from prefect_stagegate.testing.contexts import DIGEST, a_spec
from tests.support.renderings import to_summary

WAITS = Evidence(
    "approval",
    Outcome.INCONCLUSIVE,
    "0 of 1 approval",
    "governance",
    findings=(Finding("approval", "waits", "stagegate approve nycflights --to production", Outcome.INCONCLUSIVE),),
    awaiting=("infra",),
)


def a_report(outcome: DecisionOutcome, *checks: Evidence, runbook: str = "https://wiki.example.org/nyc") -> Report:
    decision = Decision(
        "nycflights", DIGEST, "production", outcome, checks, "sha256:p", "sha256:e", "2026-03-01T03:00:00.000000Z"
    )
    return build_report(decision, a_spec(runbook=runbook))


def failing(number: int, fix: str = "Mend it.") -> Evidence:
    findings = tuple(Finding(f"file-{each}", "is broken " * 40, f"{fix} {number} {each}") for each in range(9))
    return Evidence(f"check_{number:02}_with_a_long_name", Outcome.FAIL, "broken " * 60, "data", findings=findings)


def test_summary_has_decision_turn_and_steps_in_order() -> None:
    written = to_summary(a_report(DecisionOutcome.WAITING, WAITS), {"Page": "https://ci.example.org/r.html"})

    parts = (
        "## ⏳ nycflights waits for approval to go to production",
        "Only an approval is missing. 0 of 1 check fine.",
        "- **approval**: 0 of 1 approval",
        "**Whose turn:** infra (platform@example.org, oncall@example.org)",
        "1. `stagegate approve nycflights --to production`",
        f"2. `stagegate check nycflights@{DIGEST} --gate production`",
        "Decided 2026-03-01 03:00 UTC. · [Page](https://ci.example.org/r.html)",
    )
    assert [written.count(part) for part in parts] == [1] * len(parts)
    assert sorted(parts, key=written.index) == list(parts)


@pytest.mark.parametrize("outcome", DecisionOutcome)
@pytest.mark.parametrize("checks", [1, 40])
def test_it_has_few_short_lines_however_many_checks_there_are(outcome: DecisionOutcome, checks: int) -> None:
    report = a_report(outcome, *map(failing, range(checks)))

    lines = [line for line in to_summary(report, {"Page": "https://ci.example.org/r.html"}).splitlines() if line]

    assert len(lines) <= 15
    assert all(len(line) < 250 for line in lines)
    if outcome is DecisionOutcome.REFUSED:
        assert lines[-4:-2] == [
            "4. Stage the repaired data or spec with `stagegate stage SPEC`.",
            "5. `stagegate check nycflights@latest --gate production`",
        ]


def test_who_asked_is_not_among_those_whose_turn_it_is() -> None:
    waits = replace(WAITS, awaiting=("anybody",))

    written = to_summary(replace(a_report(DecisionOutcome.WAITING, waits), requester="ada@example.org"))

    assert "**Whose turn:** anybody, except ada@example.org, who asked\n" in written


@pytest.mark.parametrize(
    ("previous", "sentence"),
    [
        ("", "Its gate accepted this version. Before, it named nothing."),
        (f"sha256:{'b' * 64}", "Its gate accepted this version. Before, it named `sha256:bbbbbbbbbbbb`."),
        (DIGEST, "It already named this version."),
    ],
)
def test_moved_ref_is_nobody_s_turn_and_names_the_rollback(previous: str, sentence: str) -> None:
    written = render("markdown", promotion_document(Promotion("nycflights", "production", DIGEST, previous)))

    assert written.startswith(
        f"## ✅ nycflights@production names {DIGEST[:19]}\n\n{sentence}\n\n**Whose turn:** nobody\n"
    )
    back = "stagegate rollback nycflights@production --reason TEXT" in written
    assert back == (previous not in ("", DIGEST))


def test_moved_ref_is_followed_by_the_decision_that_allowed_it() -> None:
    report = a_report(DecisionOutcome.ACCEPTED, Evidence("schema", Outcome.PASS, "12 columns", "data"))
    moved = Promotion("nycflights", "production", DIGEST, "")

    written = render("markdown", promotion_document(moved, report))

    assert written.startswith(render("markdown", promotion_document(moved)))
    assert "## The decision that accepted it" in written
    assert "<summary>1 check: 1 pass</summary><ul><li>schema: pass" in written
    assert "whoever promotes" not in written


def test_the_first_file_is_named_with_how_many_more_there_are() -> None:
    written = to_summary(a_report(DecisionOutcome.REFUSED, failing(1)))

    assert re.search(r"- \*\*check_01_with_a_long_name\*\*: broken .* \(`file-0` and 8 more\)", written)


def test_a_command_is_never_cut() -> None:
    fix = f"stagegate promote {'x' * 300} --to pilot"
    digest = Evidence("digest", Outcome.FAIL, "not accepted", "data", findings=(Finding("version", "no", fix),))

    assert f"`{fix}`" in to_summary(a_report(DecisionOutcome.REFUSED, digest))


@pytest.mark.parametrize(
    "name",
    ["<img src=x>", "[x](javascript:alert(1))", "![p](http://evil.example/p.png)", "two\nlines\n# three", "\x1b[2J"],
)
def test_nothing_that_data_name_acts_on_it(name: str) -> None:
    hostile = Evidence("schema", Outcome.FAIL, name, "data", findings=(Finding(name, name, name),))
    plain = Evidence("schema", Outcome.FAIL, "x", "data", findings=(Finding("x", "x", "x"),))

    written = to_summary(
        a_report(DecisionOutcome.REFUSED, hostile, runbook=name if name.isprintable() else "x"), {"Page": name}
    )

    outside = re.sub(r"`[^`]*`", "", written)  # code spans show what they hold
    assert not re.search(r"(?<!\\)<\w|(?<!\\)!\[|(?<!\\)\]\(|\x1b", outside)
    expected = to_summary(a_report(DecisionOutcome.REFUSED, plain, runbook="x"), {"Page": "x"})
    assert written.count("\n") == expected.count("\n")
