"""The rubric counts what checks said, and changes no decision."""

from __future__ import annotations

import pytest

from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome
from prefect_stagegate.readiness import CHECKS
from prefect_stagegate.report import Report, build_report, rubric_lines, rubric_of, to_html, to_markdown
from prefect_stagegate.report.rubric import LEVELS, STAGES
from prefect_stagegate.testing.contexts import DIGEST, a_spec

PASS, WARN, FAIL = Outcome.PASS, Outcome.WARN, Outcome.FAIL


def a_report(**outcomes: Outcome) -> Report:
    answers = tuple(Evidence(name, outcome, "looked", CHECKS[name].owner) for name, outcome in outcomes.items())
    decision = Decision("nycflights", DIGEST, "pilot", DecisionOutcome.REFUSED, answers, "sha256:a", "sha256:b", "")
    return build_report(decision, a_spec())


def test_score_is_the_weakest_section() -> None:
    report = a_report(
        schema=PASS, freshness=WARN, space=FAIL, cache_fit=PASS, license=Outcome.WAIVED, digest=Outcome.NOT_APPLICABLE
    )
    rubric = rubric_of(report)
    assert [(section.name, section.points, section.checks) for section in rubric.sections] == [
        ("data", 1.5, 2),
        ("infra", 1.0, 2),
        ("governance", 0.5, 1),
    ]
    assert rubric.weakest is rubric.sections[1]
    assert "Score: 50%, that of the weakest section, infra" in "\n".join(rubric_lines(report))


@pytest.mark.parametrize(
    ("outcomes", "level", "stage"),
    [
        ({}, "raw", "ingest"),
        ({"schema": PASS}, "cleaned", "ingest"),
        ({"schema": PASS, "nonempty": FAIL}, "raw", "ingest"),
        ({"schema": PASS, "nonempty": WARN}, "cleaned", "transform"),
        ({"schema": PASS, "nonempty": PASS, "digest": PASS, "drift": PASS}, "cleaned", "structure"),
        ({"schema": Outcome.INCONCLUSIVE, "nonempty": PASS}, "raw", "preprocess"),
    ],
)
def test_a_level_and_a_stage_are_reached_step_by_step(outcomes: dict[str, Outcome], level: str, stage: str) -> None:
    rubric = rubric_of(a_report(**outcomes))
    assert (rubric.level, rubric.stage) == (level, stage)


def test_ladders_name_checks_that_exist() -> None:
    assert {check for ladder in (LEVELS, STAGES) for checks in ladder.values() for check in checks} <= CHECKS.keys()


def test_reports_show_it_with_its_sources() -> None:
    report = a_report(schema=PASS, space=FAIL)
    for written in (to_html(report), to_markdown(report)):
        assert "weakest" in written
        assert "2507.23018" in written
        assert "Breck" in written


def test_without_checks_there_is_no_score() -> None:
    assert rubric_of(a_report()).weakest is None
    assert "No check applied" in "\n".join(rubric_lines(a_report()))
