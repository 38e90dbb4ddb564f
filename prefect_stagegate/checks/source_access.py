"""Sources.

Checks on the sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from pydantic import Field

from prefect_stagegate import clock
from prefect_stagegate.gate.base import CheckResult, NoParameters, Parameters, from_findings, worst_of
from prefect_stagegate.gate.check_context import CheckContext, Fact
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.jobs.staging.open_sources import open_sources, open_spec_source
from prefect_stagegate.jobs.staging.probe import SourceProbe, probe
from prefect_stagegate.model import CredentialLife, Finding, Outcome, Scope
from prefect_stagegate.sources.selection.object_selection import Selection
from prefect_stagegate.spec import Duration, SourceSpec
from prefect_stagegate.units import age_text, count_text, listed, time_text

LIFE_HOLDS = timedelta(minutes=5)
AMPLE = 2
"""How many runs the credentials should last."""
HOLDS = timedelta(minutes=15)
"""About the shortest life of temporary credentials."""


@Fact
def probe_source(context: CheckContext, position: int) -> SourceProbe:
    """List and read the source at this position in the spec."""
    source, workspace = context.spec.sources[position], context.workspace
    reopen = partial(open_spec_source, source, workspace.settings, workspace.resolve_credentials)
    return probe(source.url, reopen, Selection(source, clock.now()))


@Fact
def life_of_credentials(context: CheckContext, position: int) -> CredentialLife:
    """How long the credentials of the source at this position in the spec last."""
    with open_sources(context.workspace, context.spec, only=position) as sources:
        return sources.groups[0].primary.credential_life()


@Check(
    "read_probe",
    owner="infra",
    scope=Scope.NODE,
    ttl=HOLDS,
    binds=("environment", "sources"),
    renewal=Renewal.CHEAP,
)
def read_probe(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether this process, with the credentials that it has, can list every source and read from it.

    One that is refused or doesn't exist fails. One that does not answer, or has nothing to read, is inconclusive; one
    that `may_be_empty` warns when it has nothing.
    """
    probes = [probe_source(context, position) for position in range(len(context.spec.sources))]
    findings = tuple(filter(None, map(_finding, probes, context.spec.sources)))
    measured = {
        label: {"object": probe.object, "read": probe.read, "seconds": probe.seconds}
        for label, probe in zip(_labels([probe.url for probe in probes]), probes, strict=True)
    }
    worst = worst_of(findings)
    if probes and worst is None:
        slowest = max(probe.seconds for probe in probes)
        summary = f"{count_text(len(probes), 'source')} read, the slowest in {slowest:.2f} s"
        return CheckResult(Outcome.PASS, summary, measured=measured)
    names = listed([finding.subject for finding in findings])
    summary = f"{len(findings)} of {count_text(len(probes), 'source')} can't be read: {names}"
    return CheckResult(worst.outcome if worst else Outcome.INCONCLUSIVE, summary, findings, measured)


class Lifetime(Parameters):
    """How long a run may take is for the user to say: an hour is what AWS gives a role's session by default."""

    run: Duration = Field(
        default=timedelta(hours=1),
        description="How long 19 of 20 runs take at most (p95), from start to end.",
        examples=["3h"],
    )


@Check("credential_life", owner="infra", scope=Scope.NODE, ttl=LIFE_HOLDS, binds=("sources",), renewal=Renewal.CHEAP)
def credential_life(context: CheckContext, parameters: Lifetime) -> CheckResult:
    """Whether the credentials that open the sources outlast a run: seconds left, measured by the run's p95.

    Twice as long passes, as long warns, less fails. Credentials without an end (a static key, a password) and those
    that the client renews (an instance's role, single sign-on) pass; those whose end nobody can tell are inconclusive.
    Not applicable when no source needs any. The end is what they say: AWS' expiration beside a session token, `exp` of
    a JWT, `se` of an Azure signature. Certificates are not looked at.
    """
    labels = _labels([source.url for source in context.spec.sources])
    lives = {label: life_of_credentials(context, position) for position, label in enumerate(labels)}
    needed = {label: life for label, life in lives.items() if life.kind != "none"}
    if not needed:
        return CheckResult(Outcome.NOT_APPLICABLE, "no source needs credentials")
    now, run = context.now.timestamp(), parameters.run.total_seconds()
    left = {label: life.ends - now for label, life in needed.items() if life.ends is not None}
    findings = tuple(
        finding for label, life in needed.items() if (finding := _life_finding(label, life, left.get(label), run))
    )
    measured = {label: {"kind": life.kind, "seconds_left": left.get(label)} for label, life in needed.items()}
    # The pass ends when what is left gets shorter than the runs that it must cover.
    until = datetime.fromtimestamp(now + min(left.values()) - AMPLE * run, UTC) if left and not findings else None
    ends = [life.ends for life in needed.values() if life.ends is not None]
    shortest = f"the first credentials end at {_time_at(min(ends))}" if ends else "the credentials have no end"
    answer = from_findings(f"{count_text(len(needed), 'source')}: {shortest}", findings, measured)
    return replace(answer, until=until)


def _labels(urls: Sequence[str]) -> list[str]:
    """The URLs, told apart where several sources have one: they may have other credentials."""
    return [url if url not in urls[:at] else f"{url} (source {at + 1})" for at, url in enumerate(urls)]


def _life_finding(label: str, life: CredentialLife, left: float | None, run: float) -> Finding | None:
    if left is None:
        fix = "Use a key or a role whose end is known, or set AWS_CREDENTIAL_EXPIRATION beside the session token."
        unknown = Finding(label, f"the end of {life.what} is unknown", fix, Outcome.INCONCLUSIVE)
        return unknown if life.kind in ("unknown", "temporary") else None
    if left >= AMPLE * run:
        return None
    outcome = Outcome.WARN if left >= run else Outcome.FAIL
    fix = "Renew them, then run `stagegate check` again; or let the client renew them by itself (a role, a profile)."
    needed = age_text(timedelta(seconds=AMPLE * run if outcome is Outcome.WARN else run))
    return Finding(
        label, f"{life.what} ends at {_time_at(life.ends or 0.0)}, less than {needed} after the check", fix, outcome
    )


def _time_at(seconds: float) -> str:
    return time_text(datetime.fromtimestamp(seconds, UTC))


def _finding(probe: SourceProbe, source: SourceSpec) -> Finding | None:
    if probe.error is not None:
        # What is worth a retry may pass next time, so it is no verdict on the source.
        outcome = Outcome.INCONCLUSIVE if probe.error.retryable else Outcome.FAIL
        return Finding(probe.url, probe.error.message, probe.error.hint, outcome)
    if probe.read < 1:
        fix = "Check the source's `url`, `include` and `exclude` in the spec."
        # Listing an empty source proves less than reading from it, and no version waits for what it may lack.
        outcome = Outcome.WARN if source.may_be_empty else Outcome.INCONCLUSIVE
        return Finding(probe.url, "it has nothing to read", fix, outcome)
    return None
