"""What a version's standing is at the start of a run, by what is stored and what is cheap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prefect_stagegate.clock import stamp
from prefect_stagegate.gate import CHECKS, CheckContext
from prefect_stagegate.gate.evidence_rules import run_check
from prefect_stagegate.gate.gate import judge
from prefect_stagegate.gate.renewal import Renewed, renew
from prefect_stagegate.jobs.gating.table_facts import recorded_times
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome, Severity
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import NOW, OTHER_DIGEST, VOLUME, a_spec, check_context


def about(*required: Any, **facts: Any) -> CheckContext:
    spec = facts.pop("spec", None) or a_spec(gates={"pilot": {"require": list(required)}})
    return check_context(spec=spec, target="pilot", **facts)


def answers(context: CheckContext, **changes: Any) -> list[Evidence]:
    """What `check` would have stored."""
    return [
        replace(run_check(CHECKS[requirement.check], requirement, context), **changes.get(requirement.check, {}))
        for requirement in context.gate.requirements
    ]


def renewed(context: CheckContext, stored: Iterable[Evidence], accepted: Iterable[Evidence] = ()) -> Renewed:
    return renew(context, stored, replace(judge(context, ()), checks=tuple(accepted)))


def test_what_holds_is_not_asked_again() -> None:
    context = about("schema", "license", "space", "freshness")

    renewal = renewed(context, answers(context))

    assert (renewal.decision.outcome, renewal.rerun) == (DecisionOutcome.ACCEPTED, ())


def test_of_what_ended_the_cheap_is_asked_and_nothing_else() -> None:
    before = about("schema", "license", "space", "freshness")
    context = about("schema", "license", "space", "freshness", now=NOW + timedelta(hours=2))

    renewal = renewed(context, answers(before))

    assert (renewal.decision.outcome, renewal.rerun) == (DecisionOutcome.ACCEPTED, ("space",))


def test_another_node_or_environment_is_asked_for_itself() -> None:
    before = about("space", "read_probe")
    context = about("space", "read_probe", node="node-2")

    assert renewed(context, answers(before)).rerun == ("space", "read_probe")


@pytest.mark.parametrize("check", ["schema", "nonempty", "expectations", "coverage"])
def test_costly_check_without_evidence_is_inconclusive_not_run(check: str) -> None:
    def validate() -> Any:
        raise AssertionError("it runs the contract")

    renewal = renewed(about(check, validation_of=validate), [])

    assert (renewal.decision.outcome, renewal.rerun) == (DecisionOutcome.INCONCLUSIVE, ())
    assert renewal.against_version == (check,)
    (answer,) = renewal.decision.checks
    assert "never ran" in answer.summary
    assert answer.findings[0].fix.startswith("stagegate check nycflights@sha256:")


def test_approval_stands_under_another_policy() -> None:
    approved = Evidence("approval", Outcome.PASS, "approved by ines", "governance")

    renewal = renewed(about("license", "approval"), [], [approved])

    assert renewal.decision.outcome is DecisionOutcome.ACCEPTED
    assert renewal.rerun == ("license",)


def test_an_approval_that_was_never_given_is_missed() -> None:
    renewal = renewed(about("license", "approval"), [])

    assert renewal.decision.outcome is DecisionOutcome.INCONCLUSIVE
    assert (renewal.against_version, renewal.rerun) == (("approval",), ("license",))


def test_what_a_node_lacks_is_told_from_what_a_version_lacks() -> None:
    spec = a_spec(license="CC-BY-NC-4.0", gates={"pilot": {"require": ["license", "space"]}})
    context = about(spec=spec, cache_volume=replace(VOLUME, free=1))

    renewal = renewed(context, [])

    assert (renewal.against_version, renewal.against_node) == (("license",), ("space",))


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_what_does_not_block_is_asked_and_stops_nobody(severity: str) -> None:
    context = about("license", {"space": {"severity": severity}}, "expectations", cache_volume=replace(VOLUME, free=1))
    requirements = (*context.gate.requirements[:2], Requirement("expectations", Severity(severity), {}))
    context = replace(context, gate=replace(context.gate, requirements=requirements))

    renewal = renewed(context, [])

    assert renewal.decision.outcome is DecisionOutcome.ACCEPTED
    assert renewal.against_version == renewal.against_node == ()
    assert [answer.outcome for answer in renewal.decision.checks] == [Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE]


def test_a_cheap_check_that_finds_nothing_out_passes_nobody() -> None:
    renewal = renewed(about("space", cache_volume=replace(VOLUME, total=0)), [])

    assert renewal.against_node == ("space",)


def test_table_s_time_is_kept_for_its_version_and_contract_only() -> None:
    spec = a_spec(
        contract={"tables": {"flights": {"files": "*.parquet", "time": "at"}}},
        gates={"pilot": {"require": ["freshness"]}},
    )
    context = about(spec=spec)
    stored = answers(context)

    assert recorded_times(stored, context) == {"flights": NOW}
    assert recorded_times(stored, about(spec=spec, digest=OTHER_DIGEST)) == {}
    assert recorded_times(stored, about(spec=a_spec(contract={}, gates={"pilot": {"require": ["freshness"]}}))) == {}


def test_an_answer_of_the_acceptance_that_expired_stays_settled() -> None:
    approved = Evidence("approval", Outcome.PASS, "approved", "governance", expires=stamp(NOW - timedelta(days=1)))

    assert renewed(about("license", "approval"), [], [approved]).decision.outcome is DecisionOutcome.ACCEPTED


def test_renewal_decides_about_the_same_version_and_policy() -> None:
    context = about("license")

    decision: Decision = renewed(context, []).decision

    assert (decision.digest, decision.target, decision.policy) == (
        context.digest,
        context.target,
        context.gate.policy,
    )
