"""Checks that this environment is the one that the gate below judged in."""

from __future__ import annotations

from collections.abc import Iterator

from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.readiness.base import Answer, NoParameters, Renewal, check
from prefect_stagegate.readiness.environment import Environment
from prefect_stagegate.readiness.question import Question
from prefect_stagegate.readiness.wording import count_text, listed

ABSENT = "absent"


@check("parity_python", owner="ai", scope=Scope.ENVIRONMENT, binds=("below",), renewal=Renewal.CHEAP)
def parity_python(question: Question, parameters: NoParameters) -> Answer:  # noqa: ARG001
    """Whether Python and the installed distributions are those that the gate below accepted this version in.

    Equal passes, a difference in the third figure of a version or below warns, any other fails. Not applicable while
    the gate below has accepted nothing.
    """
    below = question.below
    if below is None:
        return Answer(Outcome.NOT_APPLICABLE, "first: nothing was accepted below to compare with")
    if below.environment is None:
        return Answer(Outcome.INCONCLUSIVE, f"the attestation of {below.target} does not say where it was decided")
    findings = tuple(_differences(question.environment, below.environment, below.target))
    measured = {
        "environment": question.environment.fingerprint,
        below.target: below.environment.fingerprint,
        "differences": {finding.subject: finding.problem for finding in findings},
    }
    if not findings:
        same = count_text(len(question.environment.distributions), "distribution")
        return Answer(Outcome.PASS, f"Python and {same} as in {below.target}", measured=measured)
    worst = Outcome.FAIL if any(finding.outcome is Outcome.FAIL for finding in findings) else Outcome.WARN
    names = [finding.subject for finding in sorted(findings, key=lambda finding: finding.outcome is not Outcome.FAIL)]
    summary = f"{count_text(len(findings), 'difference')} to {below.target}: {listed(names)}"
    return Answer(worst, summary, findings, measured)


def _differences(here: Environment, there: Environment, target: str) -> Iterator[Finding]:
    if here.implementation != there.implementation:
        problem = f"{here.implementation} here, {there.implementation} in {target}"
        yield Finding("implementation", problem, f"Run {there.implementation} here too.")
    if here.python != there.python:
        yield _difference("python", here.python, there.python, target, f"Run Python {there.python} here too.")
    for name in sorted(here.distributions.keys() | there.distributions.keys()):
        ours, theirs = here.distributions.get(name, ABSENT), there.distributions.get(name, ABSENT)
        if ours != theirs:
            yield _difference(name, ours, theirs, target, _pip(name, theirs))


def _difference(name: str, ours: str, theirs: str, target: str, fix: str) -> Finding:
    outcome = Outcome.WARN if ours.split(".")[:2] == theirs.split(".")[:2] else Outcome.FAIL
    return Finding(name, f"{ours} here, {theirs} in {target}", fix, outcome)


def _pip(name: str, version: str) -> str:
    return f"pip uninstall {name}" if version == ABSENT else f"pip install {name}=={version}"
