"""Promotion.

Checks on the step itself: whether the version has stood long enough, and whether there is a way back.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from prefect_stagegate.catalog.version_records import has_version
from prefect_stagegate.clock import moment, stamp
from prefect_stagegate.gate.accepted import accepted_below, last_accepted
from prefect_stagegate.gate.base import CheckResult, Parameters, one_finding
from prefect_stagegate.gate.check_context import CheckContext, Fact
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Outcome
from prefect_stagegate.spec import Duration
from prefect_stagegate.units import age_text, digest_text, time_text


@Fact
def is_in_catalog(context: CheckContext, digest: str) -> bool:
    """Whether the catalog still has the manifest of a version of this dataset."""
    return has_version(context.workspace.catalog, context.dataset, digest)


class Rollback(Parameters):
    """Beyond 30 days few remember that a version works."""

    warn: Duration = Field(
        default=timedelta(days=30),
        description="The age of the version that one would return to, above which it warns.",
        examples=["30d"],
    )


@Check("rollback", owner="infra", ttl=timedelta(hours=1), binds=("target", "accepted"), renewal=Renewal.CHEAP)
def rollback(context: CheckContext, parameters: Rollback) -> CheckResult:
    """Whether there is a way back: the catalog still has the version that the target would return to.

    Accepted at most `warn` (30d) ago passes, longer ago warns, gone from the catalog fails. Not applicable at the
    first promotion.
    """
    accepted = last_accepted(context)
    if accepted is None:
        return CheckResult(Outcome.NOT_APPLICABLE, f"{context.target} has no earlier version to return to")
    # A rollback moves the ref again, so the time of the move is not that of the acceptance.
    accepted_at = accepted.decision.at if accepted.decision is not None else accepted.at
    age = context.now - moment(accepted_at)
    measured = {"version": accepted.digest, "accepted_at": accepted_at, "age_seconds": age.total_seconds()}
    name = digest_text(accepted.digest)
    # However young: a version whose manifest is lost can't be returned to.
    if not is_in_catalog(context, accepted.digest):
        fix, summary = f"stagegate history {context.dataset}@{context.target}", f"{name} can't be returned to"
        problem = "the catalog has lost its manifest: restore it from a backup"
        return one_finding(Outcome.FAIL, name, problem, fix, measured, summary=summary)
    summary = f"{name}, accepted at {time_text(moment(accepted_at))}"
    if age <= parameters.warn:
        return CheckResult(Outcome.PASS, summary, measured=measured)
    fix = f"Rehearse it: stagegate stage {context.dataset}@{accepted.digest}"
    limit = age_text(parameters.warn)
    problem = f"it was accepted at {time_text(moment(accepted_at))}, more than {limit} before the check"
    return one_finding(Outcome.WARN, name, problem, fix, measured, summary=summary)


class Soak(Parameters):
    """A day is long enough for each daily job to have run on it once. The idea is Kargo's soak time."""

    period: Duration = Field(
        default=timedelta(hours=24),
        alias="for",
        description="How long the version must have stood at the gate below, without a break.",
        examples=["24h"],
    )


@Check("soak", owner="infra", binds=("target", "below"), renewal=Renewal.CHEAP)
def soak(context: CheckContext, parameters: Soak) -> CheckResult:
    """Whether the version has stood at the gate below for long enough: `for` (24h) passes, a shorter time fails.

    Counted while the ref of the gate below named it. Not applicable to a gate that extends none.
    """
    extends, below = context.gate.extends, accepted_below(context)
    if extends is None:
        return CheckResult(Outcome.NOT_APPLICABLE, "this gate extends no other")
    if below is None or below.digest != context.digest:
        fix = f"stagegate promote {context.address} --to {extends}"
        return one_finding(Outcome.FAIL, extends, f"{extends} does not name this version", fix)
    since, until = moment(below.at), moment(below.until) if below.until else context.now
    stood = until - since
    measured = {"since": below.at, "until": below.until, "stood_seconds": stood.total_seconds()}
    summary = f"stands at {extends} since {time_text(since)}"
    if below.until:
        summary = f"stood at {extends} for {age_text(stood)}, until {time_text(until)}"
    if stood >= parameters.period:
        return CheckResult(Outcome.PASS, summary, measured=measured)
    wanted = age_text(parameters.period)
    if below.until:
        fix = f"Let it stand there again: stagegate promote {context.address} --to {extends}"
        problem = f"the ref moved on after {age_text(stood)}; {wanted} are required"
        return one_finding(Outcome.FAIL, extends, problem, fix, measured, summary=summary)
    # Time alone turns this failure into a pass, so the answer ends then.
    ends = since + parameters.period
    fix = f"Wait until {stamp(ends)[:16]}Z, then check again."
    problem = f"the version stands there since {time_text(since)}; {wanted} are required"
    return one_finding(Outcome.FAIL, extends, problem, fix, measured, summary=summary, until=ends)
