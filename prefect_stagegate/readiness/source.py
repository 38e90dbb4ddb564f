"""Checks on the sources."""

from __future__ import annotations

from datetime import timedelta

from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.readiness.base import Answer, NoParameters, Renewal, check
from prefect_stagegate.readiness.question import Probe, Question
from prefect_stagegate.readiness.wording import count_text, listed

HOLDS = timedelta(minutes=15)
"""About the shortest life of temporary credentials."""


@check(
    "read_probe",
    owner="infra",
    scope=Scope.NODE,
    ttl=HOLDS,
    binds=("environment", "sources"),
    renewal=Renewal.CHEAP,
)
def read_probe(question: Question, parameters: NoParameters) -> Answer:  # noqa: ARG001
    """Whether this process, with the credentials that it has, can list every source and read from it.

    All of them pass; one that is refused or doesn't exist fails. One that does not answer, or has nothing to read, is
    inconclusive.
    """
    probes = [question.probe_source(position) for position in range(len(question.spec.sources))]
    findings = tuple(finding for probe in probes if (finding := _finding(probe)))
    measured = {probe.url: {"object": probe.object, "read": probe.read, "seconds": probe.seconds} for probe in probes}
    if not findings and probes:
        slowest = max(probe.seconds for probe in probes)
        summary = f"{count_text(len(probes), 'source')} read, the slowest in {slowest:.2f} s"
        return Answer(Outcome.PASS, summary, measured=measured)
    failed = any(finding.outcome is Outcome.FAIL for finding in findings)
    summary = f"{len(findings)} of {count_text(len(probes), 'source')} can't be read: {listed(_subjects(findings))}"
    return Answer(Outcome.FAIL if failed else Outcome.INCONCLUSIVE, summary, findings, measured)


def _finding(probe: Probe) -> Finding | None:
    if probe.error is not None:
        # What is worth a retry may pass next time, so it is no verdict on the source.
        outcome = Outcome.INCONCLUSIVE if probe.error.retryable else Outcome.FAIL
        return Finding(probe.url, probe.error.message, probe.error.hint, outcome)
    if probe.read < 1:
        fix = "Check the source's `url`, `include` and `exclude` in the spec."
        return Finding(probe.url, "it has nothing to read", fix, Outcome.INCONCLUSIVE)
    return None


def _subjects(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.subject for finding in findings]
