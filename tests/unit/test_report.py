from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Finding, Outcome, Severity
from prefect_stagegate.model.manifest import Seal
from prefect_stagegate.show import Report, Section, build_report, proposal_document, render
from prefect_stagegate.show.next_steps import STEPS
from prefect_stagegate.show.rows import Standing
from prefect_stagegate.show.text import FINDINGS
from prefect_stagegate.testing.contexts import DIGEST, OTHER_DIGEST, a_spec
from tests.support.renderings import to_json, to_markdown, to_rich, to_text

HOSTILE = (
    "a<script>alert(1)</script>.parquet",
    '"><img src=http://evil.example/x onerror=alert(1)>',
    "pipe|and\nnewline.parquet",
    "![pixel](http://evil.example/p.png) `code` [x](javascript:alert(1))",
    "\x1b[2Jcleared\x07.parquet",
    "\u202egpj.exe",
    "[red]rich[/red]",
    "{{ 7 * 7 }}",
)


def answer(check: str, outcome: Outcome, *findings: Finding, severity: Severity = Severity.BLOCKING) -> Evidence:
    return Evidence(check, outcome, f"{check} looked", "data", severity, findings=findings)


MISSING = Finding("flights/03.parquet", "column dep_delay is missing", "Rename it back.")
DENIED = Finding("s3://lake", "access denied", "pip install numpy==2.1.0")
WAITS = Evidence("approval", Outcome.INCONCLUSIVE, "0 of 1 approval", "governance", awaiting=("infra",))
ALL = (
    answer("license", Outcome.PASS),
    answer("freshness", Outcome.WARN),
    answer("schema", Outcome.FAIL, MISSING),
    Evidence("space", Outcome.INCONCLUSIVE, "no answer", "infra", findings=(DENIED,)),
    answer("owner", Outcome.WAIVED),
    answer("rollback", Outcome.NOT_APPLICABLE),
    answer("parity_python", Outcome.FAIL, severity=Severity.WARNING),
    WAITS,
)
WRITERS = {"markdown": to_markdown, "text": to_text, "json": to_json}


def a_decision(*checks: Evidence, outcome: DecisionOutcome) -> Decision:
    return Decision(
        dataset="nycflights",
        digest=DIGEST,
        target="production",
        outcome=outcome,
        checks=checks,
        policy="sha256:" + "a" * 64,
        environment="sha256:" + "b" * 64,
        at="2026-03-01T03:00:00.000000Z",
        requester="ana",
    )


def a_report(
    *checks: Evidence, outcome: DecisionOutcome = DecisionOutcome.REFUSED, serves: str | None = None
) -> Report:
    return build_report(a_decision(*checks, outcome=outcome), a_spec(), serves=serves)


def terminal(report: Report, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(to_rich(report), crop=False)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


# ── the model ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_blocking_checks_are_grouped_by_owner_with_a_fix() -> None:
    other = Evidence("freshness", Outcome.FAIL, "old", "data", findings=(Finding("newest", "old", "Ask for more."),))
    node = Evidence("space", Outcome.FAIL, "full", "infra", findings=(Finding("/cache", "full", "stagegate gc"),))
    report = a_report(answer("schema", Outcome.FAIL, MISSING), node, other, answer("license", Outcome.WARN))
    assert [(str(turn), turn.fixes) for turn in report.turns] == [
        (
            "data (data-eng@example.org): schema, freshness",
            ("flights/03.parquet: Rename it back.", "newest: Ask for more."),
        ),
        ("infra (platform@example.org, oncall@example.org): space", ("stagegate gc",)),
    ]
    for written in (to_text(report), terminal(report, 200)):
        assert "data (data-eng@example.org): schema, freshness" in written
    assert "  - newest: Ask for more." in to_markdown(report)
    assert a_report(WAITS, outcome=DecisionOutcome.WAITING).turns[0].person.role == "infra"
    assert a_report(answer("schema", Outcome.PASS), outcome=DecisionOutcome.ACCEPTED).turns == ()


def test_what_decided_comes_first() -> None:
    rows = a_report(*ALL).rows
    assert [row.standing for row in rows] == sorted(row.standing for row in rows)
    assert [row.check for row in rows[:3]] == ["schema", "space", "approval"]
    assert {row.check for row in rows if row.standing is Standing.NOTED} == {"freshness", "parity_python", "owner"}


@pytest.mark.parametrize(
    ("outcome", "turn", "last_step"),
    [
        (DecisionOutcome.ACCEPTED, "whoever promotes", f"promote nycflights@{DIGEST} --to production"),
        (DecisionOutcome.REFUSED, "data (data-eng@example.org)", "check nycflights@latest --gate production"),
        (
            DecisionOutcome.INCONCLUSIVE,
            "infra (platform@example.org, oncall@example.org)",
            f"check nycflights@{DIGEST} --gate production",
        ),
        (
            DecisionOutcome.WAITING,
            "infra (platform@example.org, oncall@example.org)",
            f"check nycflights@{DIGEST} --gate production",
        ),
    ],
)
def test_report_says_whose_turn_it_is_and_what_to_do(outcome: DecisionOutcome, turn: str, last_step: str) -> None:
    report = a_report(*ALL, outcome=outcome)
    assert report.whose_turn == turn
    assert report.steps[-1] == f"stagegate {last_step}"


def test_steps_name_the_files_that_a_fix_is_for() -> None:
    torn = tuple(Finding(f"{number}.parquet", "cut short", "Write it again.") for number in range(5))
    step = "0.parquet, 1.parquet, 2.parquet and 2 more: Write it again."
    report = a_report(answer("coverage", Outcome.FAIL, *torn))
    assert report.steps[0] == report.turns[0].fixes[0] == step
    for written in (to_text(report), terminal(report, 120)):
        assert step in written


@pytest.mark.parametrize(
    ("serves", "outcome", "sentence"),
    [
        ("", DecisionOutcome.REFUSED, "no version"),
        (DIGEST, DecisionOutcome.WAITING, "this version"),
        (OTHER_DIGEST, DecisionOutcome.REFUSED, "production still serves"),
        (OTHER_DIGEST, DecisionOutcome.ACCEPTED, "sha256:e07ae07ae07a"),
    ],
)
@pytest.mark.parametrize("writer", ["markdown", "text"])
def test_top_tells_version_policy_and_what_is_served(
    writer: str, serves: str, outcome: DecisionOutcome, sentence: str
) -> None:
    written = WRITERS[writer](a_report(*ALL, outcome=outcome, serves=serves))
    top = written[: written.index("hose turn")].replace("`", "")
    for part in ("nycflights@sha256:4f9c4f9c4f9c", "sha256:aaaaaaaaaaaa", "serves", sentence):
        assert part in top
    assert ("still" in top) == ("still" in sentence)


def test_terminal_and_form_show_what_plugins_say_at_once() -> None:
    decision = a_decision(WAITS, outcome=DecisionOutcome.WAITING)
    section = Section("Row changes", brief="trips: 3 added")
    report = build_report(decision, a_spec(), serves=OTHER_DIGEST, sections=(section,))
    form = proposal_document(report, decision, Seal(DIGEST, 1, 8), until=decision.at)
    for written in (to_text(report), terminal(report), to_markdown(report), render("markdown", form)):
        assert re.search(r"row changes\W+trips: 3 added", written)


def test_what_production_serves_already_is_nobodys_turn() -> None:
    report = a_report(*ALL[:1], outcome=DecisionOutcome.ACCEPTED, serves=DIGEST)
    assert (report.whose_turn, report.steps) == ("nobody: production serves it", ("Nothing.",))


def test_gate_that_had_nothing_to_ask_is_its_askers_turn() -> None:
    nothing = a_report(ALL[5], outcome=DecisionOutcome.INCONCLUSIVE)
    assert nothing.whose_turn == "whoever asked (ana)"


def test_declined_version_is_its_askers_turn_and_ended() -> None:
    said = Finding("ines (declared)", "declined: March looks wrong")
    answers = [{"name": "ines", "approved": False, "at": ""}]
    declined = Evidence(
        "approval", Outcome.FAIL, "declined by ines", "governance", findings=(said,), measured={"answers": answers}
    )
    report = a_report(answer("schema", Outcome.PASS), declined)
    assert report.reason == "ines (declared) declined: March looks wrong."
    assert report.whose_turn == "whoever asked (ana)"
    assert report.steps[0].startswith("This version was declined. Stage a new one")


def test_failure_that_a_command_fixes_needs_no_new_staging() -> None:
    promote = Finding("version", "pilot has accepted no version yet", "stagegate promote things --to pilot")
    steps = a_report(answer("digest", Outcome.FAIL, promote)).steps
    assert [step for step in steps if "stage SPEC" in step] == []
    assert "@sha256:" in steps[-1]


def test_steps_begin_with_the_fixes_of_what_decided_and_stay_few() -> None:
    assert a_report(*ALL).steps[0] == "flights/03.parquet: Rename it back."
    many = tuple(Finding(f"f{number}", "broken", f"Mend f{number}.") for number in range(STEPS + 3))
    steps = a_report(answer("schema", Outcome.FAIL, *many, many[0])).steps
    assert steps[STEPS - 1] == f"Mend f{STEPS - 1}."
    assert steps[STEPS] == "Apply the other 3 fixes, listed with their findings."


def test_severity_is_told_where_it_changes_what_an_outcome_means() -> None:
    verdicts = {row.check: row.verdict for row in a_report(*ALL).rows}
    assert verdicts["parity_python"] == "fail (warning)"
    assert (verdicts["schema"], verdicts["approval"], verdicts["rollback"]) == ("fail", "waiting", "not applicable")


# ── every writer ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("outcome", DecisionOutcome)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_shows_every_check_and_decision(writer: str, outcome: DecisionOutcome) -> None:
    written = WRITERS[writer](a_report(*ALL, outcome=outcome))
    for row in a_report(*ALL).rows:
        assert row.check in written
    assert outcome.value in written.lower() or "can't be decided" in written


@pytest.mark.parametrize("writer", WRITERS)
def test_every_defect_is_shown_with_file_problem_owner_and_fix(writer: str) -> None:
    written = WRITERS[writer](a_report(*ALL))
    for part in (MISSING.subject, MISSING.problem, MISSING.fix, "data-eng@example.org"):
        assert part in written


def test_decision_without_any_check_is_shown() -> None:
    for writer in WRITERS.values():
        assert "nycflights" in writer(a_report(outcome=DecisionOutcome.INCONCLUSIVE))


@pytest.mark.parametrize("writer", ["markdown", "text"])
@pytest.mark.parametrize("name", HOSTILE)
def test_terminal_escapes_and_direction_marks_are_removed(writer: str, name: str) -> None:
    written = WRITERS[writer](a_report(answer("schema", Outcome.FAIL, Finding(name, name, name))))
    assert not set("\x1b\x07\u202e").intersection(written)


# ── Markdown ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_lines_of_hostile_names_stay_whole(name: str) -> None:
    hostile, harmless = (
        to_markdown(a_report(answer("schema", Outcome.FAIL, Finding(text, text, text)))) for text in (name, "harmless")
    )
    assert [line[:2] for line in hostile.splitlines()] == [line[:2] for line in harmless.splitlines()]


def test_markdown_renders_no_tag_image_or_link_of_the_data() -> None:
    findings = (Finding(name, name, name) for name in HOSTILE)
    written = to_markdown(a_report(answer("schema", Outcome.FAIL, *findings)))
    ours = re.sub(r"</?(details|summary|ul|li)>", "", written)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", ours.replace("\\`", ""))  # code spans show what they hold
    assert not re.search(r"(?<!\\)<\w|(?<!\\)!\[|(?<!\\)\[[^\]]*(?<!\\)\]\(", outside)


def test_markdown_keeps_commands_and_code_copyable() -> None:
    fix = Finding("space", "full", "Run `stagegate gc`, or give it more room.")
    written = to_markdown(a_report(answer("space", Outcome.FAIL, fix)))
    assert "Run `stagegate gc`, or give it more room." in written
    assert "`stagegate check nycflights@latest --gate production`" in written


# ── JSON and terminals ──────────────────────────────────────────────────────────────────────────────────────────────


def test_json_keeps_names_exactly() -> None:
    findings = tuple(Finding(name, "broken") for name in (*HOSTILE, "half\ud800"))
    read = json.loads(to_json(a_report(answer("schema", Outcome.FAIL, *findings))))
    assert [finding["subject"] for finding in read["rows"][0]["findings"]] == [*HOSTILE, "half\ud800"]
    assert (read["accepted"], read["outcome"], read["rows"][0]["standing"]) == (False, "refused", "refuses")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_breaks_no_heading_and_no_verdict(width: int) -> None:
    long = Finding("flights/2013-01-01.parquet", "has no column dep_delay, and " * 6, "Write it again. " * 6)
    shown = terminal(a_report(answer("duplicates_of_rows", Outcome.FAIL, long), *ALL[3:], WAITS), width)
    for word in ("outcome", "inconclusive", "applicable", "waiting"):
        assert re.search(rf"\b{word}\b", shown)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_shows_every_finding_in_full_at_any_width(width: int) -> None:
    shown = terminal(a_report(*ALL), width)
    last_column = "".join(
        line[next(line for line in shown.splitlines() if "what was found" in line).index("what was found") :]
        for line in shown.splitlines()
    )
    for part in (MISSING.subject, MISSING.problem, MISSING.fix):
        assert "".join(part.split()) in "".join(last_column.split())


def test_terminal_shows_a_fix_once_for_the_files_it_is_for() -> None:
    torn = tuple(Finding(f"{number}.parquet", "cut short", "Write it again.") for number in range(5))
    shown = terminal(a_report(answer("coverage", Outcome.FAIL, *torn)), 120)
    assert shown.count("→ Write it again.") == 1


def test_terminal_does_not_obey_names() -> None:
    findings = (Finding(name, name, name) for name in HOSTILE)
    shown = terminal(a_report(answer("schema", Outcome.FAIL, *findings)), 200)
    assert "[red]rich[/red]" in shown
    assert r"\x1b[2Jcleared" in shown
    assert not set("\x1b\x07\u202e").intersection(shown)


def test_command_is_not_broken_into_lines() -> None:
    assert f"stagegate promote nycflights@{DIGEST} --to production" in terminal(
        a_report(*ALL[:1], outcome=DecisionOutcome.ACCEPTED)
    )


def test_terminal_shows_the_first_findings_and_counts_the_rest() -> None:
    many = tuple(Finding(f"file-{number:03}", "broken") for number in range(FINDINGS + 7))
    report = a_report(answer("schema", Outcome.FAIL, *many))
    for shown in (terminal(report), to_text(report)):
        assert f"file-{FINDINGS - 1:03}" in shown
        assert f"file-{FINDINGS:03}" not in shown
        assert "7 more" in shown
