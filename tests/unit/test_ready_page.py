"""What a run is told when it asks whether a version is ready."""

from __future__ import annotations

from typing import Any

from prefect_stagegate.model import Address, Decision, DecisionOutcome, Evidence, Finding, Outcome
from prefect_stagegate.show import Candidate, Readiness, build_report, ready_document, ready_text, render
from prefect_stagegate.testing.contexts import DIGEST, OTHER_DIGEST, a_spec


def ready_page(readiness: Readiness) -> str:
    return render("markdown", ready_document(readiness))


PRODUCTION = Address("nycflights", "production")
GOOD = Evidence("license", Outcome.PASS, "CC0-1.0 is allowed", "governance")
OLD = Evidence(
    "freshness", Outcome.FAIL, "30 h old", "data", findings=(Finding("flights\x1b[2J", "30 h | old", "Ask for more."),)
)
FULL = Evidence("space", Outcome.FAIL, "99% used", "infra", findings=(Finding("/cache", "99%", "Run `stagegate gc`."),))


def candidate(*checks: Evidence, digest: str = DIGEST, version: Any = (), node: Any = ()) -> Candidate:
    outcome = DecisionOutcome.REFUSED if version or node else DecisionOutcome.ACCEPTED
    decision = Decision(
        "nycflights", digest, "production", outcome, checks, "sha256:p", "sha256:e", "2026-03-02T03:00Z"
    )
    report = build_report(decision, a_spec())
    return Candidate(report, "2026-03-01T03:00:00.000000Z", "ada (declared)", ("freshness",), version, node)


def test_a_ready_version_takes_four_lines() -> None:
    page = ready_page(Readiness(PRODUCTION, (candidate(GOOD),), falls_back=False))

    assert [line for line in page.splitlines() if line] == [
        "## ✅ nycflights@production is ready",
        "**Whose turn:** nobody: the run goes on",
        f"This run uses `{DIGEST}`, accepted 2026-03-01 03:00 UTC by ada (declared).",
        "Ran again: `freshness`.",
    ]


def test_a_held_version_says_why_whose_turn_it_is_and_what_to_do() -> None:
    held = Readiness(PRODUCTION, (candidate(OLD, GOOD, version=("freshness",)),), falls_back=False)

    assert held.chosen is None
    text = ready_text(held)
    assert text.splitlines()[0] == "nycflights@production is not ready"
    assert "fail          freshness       30 h old  [data (data-eng@example.org)]" in text
    assert "flights\\x1b[2J: 30 h | old" in text
    assert "license" not in text
    page = ready_page(held)
    assert page.startswith("## ❌ nycflights@production is not ready\n")
    assert "**Whose turn:** data (data-eng@example.org)" in page
    assert ": Ask for more.\n" in page
    assert "\x1b" not in page + text


def test_page_of_a_fallback_names_both_versions_and_whose_turn() -> None:
    newer = candidate(OLD, version=("freshness",))
    fell = Readiness(PRODUCTION, (newer, candidate(GOOD, digest=OTHER_DIGEST)), falls_back=True)

    assert fell.fell_back
    page = ready_page(fell)
    assert page.startswith("## ⚠️ nycflights@production fell back: ")
    assert page.index(f"This run uses `{OTHER_DIGEST}`") < page.index(f"Not used: `{DIGEST}`")
    assert "**Whose turn:** data (data-eng@example.org)" in page


def test_node_s_trouble_is_not_put_on_the_version() -> None:
    node = Readiness(PRODUCTION, (candidate(FULL, node=("space",)),), falls_back=True)

    assert node.headline == "nycflights@production can't be used on this node"
    assert node.turn == "infra (platform@example.org, oncall@example.org)"
    assert node.steps == ("/cache: Run `stagegate gc`.", "Run it again, here or on another node.")


def test_version_that_only_this_node_fails_makes_it_infra_s_turn() -> None:
    tried = (candidate(OLD, version=("freshness",)), candidate(FULL, digest=OTHER_DIGEST, node=("space",)))

    node = Readiness(PRODUCTION, tried, falls_back=True)

    assert node.chosen is None
    assert node.headline == "nycflights@production can't be used on this node"
    assert node.turn.startswith("infra")


def test_nothing_left_names_every_version() -> None:
    tried = tuple(candidate(OLD, digest=digest, version=("freshness",)) for digest in (DIGEST, OTHER_DIGEST))

    left = Readiness(PRODUCTION, tried, falls_back=True)

    assert ready_text(left).startswith("nycflights@production is not ready, and no earlier version is ready either\n")
    for page in (ready_text(left), ready_page(left)):
        assert page.index(DIGEST) < page.index(OTHER_DIGEST)


def test_what_was_never_accepted_is_told_with_a_command() -> None:
    never = Readiness(PRODUCTION, (), falls_back=False)

    assert ready_text(never).splitlines() == [
        "No version of nycflights was accepted for production",
        "  Whose turn: whoever promotes: the gate was not passed yet",
        "  What to do: stagegate check nycflights --gate production",
    ]
    assert ready_page(never).startswith("## ❌ No version of nycflights was accepted for production\n")
