"""Schedules, limits and alerts.

Checks on when Prefect begins runs: by a schedule, under limits, with somebody told when it goes wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pydantic import Field

from prefect_stagegate.gate import prefect_state
from prefect_stagegate.gate.base import CheckResult, Parameters, from_findings, one_finding
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.plugins.node.checks.pools import HOLDS, look_up, missing_parameter
from prefect_stagegate.spec import Duration
from prefect_stagegate.units import age_text, count_text, listed, time_text

TEST = "prefect event emit stagegate.gate.failed --resource-id stagegate.alert-test"
"""Makes the automation of deployments/automations.yaml send a message."""


class Schedule(Parameters):
    """Which deployment is to run by the clock is for the user to say."""

    deployment: str = Field(
        default="", description="The deployment, as FLOW/DEPLOYMENT.", examples=["refresh/nycflights"]
    )


@Check("schedule", owner="infra", scope=Scope.ENVIRONMENT, ttl=HOLDS, renewal=Renewal.CHEAP)
def schedule(context: CheckContext, parameters: Schedule) -> CheckResult:  # noqa: ARG001
    """Whether the deployment runs by the clock: a schedule of it is active, and its next run is planned.

    Active without a planned run warns, for the scheduler plans within a minute; no deployment, one that is paused and
    one without an active schedule fail.
    """
    name = parameters.deployment
    if not name:
        return missing_parameter("schedule", "deployment", "prefect deployment ls")
    deployment, problem = look_up(lambda: prefect_state.deployment(name))
    if deployment is None:
        return one_finding(Outcome.FAIL, name, problem, "prefect deploy")
    measured = {
        "schedules": deployment.schedules,
        "active": deployment.active,
        "next": deployment.next and deployment.next.isoformat(),
    }
    if deployment.paused or not deployment.active:
        problem = "it is paused" if deployment.paused else "no schedule of it is active"
        resume = f"prefect deployment schedule ls {name}, then prefect deployment schedule resume {name} SCHEDULE_ID"
        fix = resume if deployment.schedules else "Give it a schedule and deploy it: prefect deploy"
        return one_finding(Outcome.FAIL, name, problem, fix, measured)
    if deployment.next is None:
        problem = "no run is planned"
        fix = "See whether the server's scheduler runs: prefect server services ls"
        return one_finding(Outcome.WARN, name, problem, fix, measured)
    return CheckResult(Outcome.PASS, f"its next run is due at {time_text(deployment.next)}", measured=measured)


class Concurrency(Parameters):
    """Which limits count is for the user to say: `stagegate limits` sets those of nodes and sources."""

    limits: tuple[str, ...] = Field(
        default=(), description="Names of global concurrency limits.", examples=[["stagegate-node-gpu-1"]]
    )


@Check("concurrency", owner="infra", scope=Scope.ENVIRONMENT, ttl=HOLDS, renewal=Renewal.CHEAP)
def concurrency(context: CheckContext, parameters: Concurrency) -> CheckResult:  # noqa: ARG001
    """Whether the concurrency limits let a run begin: each is there, in force, and has a free slot.

    One whose slots are all in use, or that is disabled, warns. One that is missing or has no slots fails.
    """
    if not parameters.limits:
        return missing_parameter("concurrency", "limits", "prefect gcl ls")
    measured: dict[str, object] = {}
    findings = tuple(finding for name in parameters.limits for finding in _limit(name, measured))
    return from_findings(f"free slots in {listed(parameters.limits)}", findings, measured)


def _limit(name: str, measured: dict[str, object]) -> Iterator[Finding]:
    limit, problem = look_up(lambda: prefect_state.limit(name))
    if limit is None:
        yield Finding(name, problem, f"prefect gcl create {name} --limit 1")
        return
    measured[name] = {"slots": limit.slots, "used": limit.used, "active": limit.active}
    if not limit.slots:
        yield Finding(name, "it has no slots, so no run can begin", f"prefect gcl update {name} --limit 1")
    elif not limit.active:
        yield Finding(name, "it is disabled", f"prefect gcl update {name} --enable", Outcome.WARN)
    elif limit.used >= limit.slots:
        fix = f"Wait, or raise it: prefect gcl update {name} --limit {limit.slots + 1}"
        yield Finding(name, f"all of its {count_text(limit.slots, 'slot')} are in use", fix, Outcome.WARN)


class Alert(Parameters):
    """A week is how long Prefect's server keeps events by default."""

    automation: str = Field(
        default="stagegate: gate failed",
        description="The automation that calls people; by default the one of deployments/automations.yaml.",
        examples=["page the data team"],
    )
    warn: Duration = Field(
        default=timedelta(days=7), description="The age of the last message above which it warns.", examples=["7d"]
    )


@Check("alert", owner="infra", scope=Scope.ENVIRONMENT, ttl=timedelta(hours=1), renewal=Renewal.CHEAP)
def alert(context: CheckContext, parameters: Alert) -> CheckResult:
    """Whether people are told when something goes wrong: the last message that the automation really sent.

    Up to `warn` (7d) ago passes, longer ago warns; never, failed the last time, disabled or missing fails. What counts
    is that Prefect's server executed the action. A server that forgets its events after 7 days
    (PREFECT_SERVER_EVENTS_RETENTION_PERIOD) says never where it means longer ago.
    """
    name = parameters.automation
    delivery, problem = look_up(lambda: prefect_state.last_delivery(name, context.now - prefect_state.MOST_DAYS))
    if problem:  # here None alone does not mean that it is missing: it may never have acted
        fix = "Make it, or enable it: see the part on alerts in deployments/README.md."
        return one_finding(Outcome.FAIL, name, problem, fix)
    if delivery is None:
        return one_finding(Outcome.FAIL, name, "the server has no record of a message from it", TEST)
    # The server's clock may be ahead.
    age = max(context.now - delivery.at, timedelta(0))
    measured = {"at": delivery.at.isoformat(), "executed": delivery.executed}
    if not delivery.executed:
        reason = delivery.reason or "no reason is given"
        problem = f"its last message, at {time_text(delivery.at)}, could not be sent: {reason}"
        fix = f"Check its notification block, then: {TEST}"
        return one_finding(Outcome.FAIL, name, problem, fix, measured)
    summary = f"a message was sent at {time_text(delivery.at)}"
    if age <= parameters.warn:
        return CheckResult(Outcome.PASS, summary, measured=measured, until=delivery.at + parameters.warn)
    limit = age_text(parameters.warn)
    problem = f"its last message was at {time_text(delivery.at)}, more than {limit} before the check"
    return one_finding(Outcome.WARN, name, problem, TEST, measured, summary=summary)
