"""Parity of environments.

Checks that this environment is like the one that the gate below judged in: one question, a group of facts each.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field

from prefect_stagegate.environment import ABSENT, Environment, EnvironmentDifference, Weight, compare
from prefect_stagegate.environment.record import DECLARED
from prefect_stagegate.environment.variables import DECLARED as DECLARED_VARIABLES
from prefect_stagegate.gate.accepted import accepted_below
from prefect_stagegate.gate.base import CheckResult, NoParameters, Parameters
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.units import count_text, listed

OUTCOMES = {
    Weight.BLOCKING: Outcome.FAIL,
    Weight.UNKNOWN: Outcome.INCONCLUSIVE,
    Weight.WARNING: Outcome.WARN,
    Weight.HARMLESS: Outcome.PASS,
}
"""What a difference makes of the answer, the worst first."""


@Check("parity_image", owner="infra", scope=Scope.ENVIRONMENT, binds=("below",), renewal=Renewal.CHEAP)
def parity_image(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether the container image, by its digest and never its tag, is the one that the gate below accepted it in.

    Equal passes, another one fails, and one that nobody told is inconclusive: set STAGEGATE_IMAGE_DIGEST where the
    container is started. Not applicable while the gate below accepted nothing.
    """
    return _parity(context, ("image",), "the image")


@Check("parity_python", owner="ai", scope=Scope.ENVIRONMENT, version=2, binds=("below",), renewal=Renewal.CHEAP)
def parity_python(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether Python and the installed distributions are those that the gate below accepted this version in.

    Equal passes, a difference in the third figure of a version or below warns, and so do distributions that have no
    record of their files. Any other difference fails, also other files under the same version. Not applicable while the
    gate below accepted nothing.
    """
    same = count_text(len(context.environment.python.distributions), "distribution")
    return _parity(context, ("python",), f"Python and {same}")


class ParityCuda(Parameters):
    """A machine without GPUs proves nothing about one with them."""

    absent: Literal["inconclusive", "not_applicable"] = Field(
        default="inconclusive",
        description="The answer where neither environment has a GPU's driver.",
        examples=["not_applicable"],
    )


@Check("parity_cuda", owner="infra", scope=Scope.ENVIRONMENT, binds=("below",), renewal=Renewal.CHEAP)
def parity_cuda(context: CheckContext, parameters: ParityCuda) -> CheckResult:
    """Whether driver, CUDA, cuDNN and NCCL are those that the gate below accepted this version with.

    Another minor release warns, another major release fails, and so does a driver that is too old for the CUDA here:
    older than 450.80.02 for CUDA 11, 525 for 12, 580 for 13. Where neither environment has a driver it is inconclusive,
    or what `absent` says, never a pass. Not applicable while the gate below accepted nothing.
    """
    below = accepted_below(context)
    there = below.environment() if below and below.environment else None
    if there and context.environment.cuda.driver == there.cuda.driver == ABSENT:
        outcome = Outcome.NOT_APPLICABLE if parameters.absent == "not_applicable" else Outcome.INCONCLUSIVE
        return CheckResult(outcome, "neither environment has an NVIDIA driver")
    return _parity(context, ("cuda",), "the CUDA stack")


class ParityEnv(Parameters):
    """These change what is computed; the rest changes how fast, or where it is looked for."""

    declared: tuple[str, ...] = Field(
        default=DECLARED_VARIABLES,
        description="Variables that must be the same, with `*` for any rest.",
        examples=[["NCCL_*", "OMP_NUM_THREADS"]],
    )


@Check("parity_env", owner="infra", scope=Scope.ENVIRONMENT, binds=("below",), renewal=Renewal.CHEAP)
def parity_env(context: CheckContext, parameters: ParityEnv) -> CheckResult:
    """Whether the environment variables that change computations are as the gate below had them.

    Compared are the variables of CUDA, NCCL, OpenMP, MKL, the frameworks, the loader and the locale, and those that
    STAGEGATE_VARIABLES names; of a secret only whether it is set. Equal passes, a difference in one that is not
    `declared` warns, in one that is fails. Not applicable while the gate below accepted nothing.
    """
    return _parity(context, ("variables",), "the variables", variables=parameters.declared)


class ParityHost(Parameters):
    """What jobs that ran elsewhere run into."""

    declared: tuple[str, ...] = Field(
        default=DECLARED,
        description="What must be the same: of architecture, os, kernel, libc, nofile, memlock, nproc, stack, shm, "
        "memory and cpus.",
        examples=[["architecture", "os", "kernel"]],
    )


@Check("parity_host", owner="infra", scope=Scope.ENVIRONMENT, binds=("below",), renewal=Renewal.CHEAP)
def parity_host(context: CheckContext, parameters: ParityHost) -> CheckResult:
    """Whether architecture, operating system and limits are as the gate below had them.

    Equal passes, and so does more of something that is limited. A difference, or less, in what is not `declared` warns,
    in what is fails: by default architecture, os, nofile, memlock, stack and shm. What the system does not tell is
    inconclusive. Not applicable while the gate below accepted nothing.
    """
    return _parity(context, ("host", "limits"), "host and limits", declared=parameters.declared)


def _parity(
    context: CheckContext,
    groups: Collection[str],
    label: str,
    *,
    declared: Collection[str] = DECLARED,
    variables: Collection[str] = DECLARED_VARIABLES,
) -> CheckResult:
    below = accepted_below(context)
    if below is None:
        return CheckResult(Outcome.NOT_APPLICABLE, "the gate below has accepted no version to compare with")
    if below.environment is None:
        return CheckResult(Outcome.INCONCLUSIVE, f"the attestation of {below.target} has no environment")
    there = below.environment()
    compared = compare(there, context.environment, declared=declared, variables=variables)
    differences = [difference for difference in compared if difference.group in groups]
    return _answer(differences, label, below.target, context.environment, there)


def _answer(
    differences: Sequence[EnvironmentDifference], label: str, target: str, here: Environment, there: Environment
) -> CheckResult:
    # The worst first: it decides, and people read it first.
    ranked = sorted(differences, key=lambda difference: list(OUTCOMES).index(difference.weight))
    measured = {
        "environment": here.fingerprint,
        target: there.fingerprint,
        "differences": {
            difference.name: f"{difference.here} here, {difference.there} in {target}" for difference in differences
        },
    }
    findings = tuple(_finding(difference, target) for difference in ranked if difference.weight is not Weight.HARMLESS)
    if not findings:
        more = f", {count_text(len(differences), 'harmless difference')}" if differences else ""
        return CheckResult(Outcome.PASS, f"{label} as in {target}{more}", measured=measured)
    names = listed([finding.subject for finding in findings])
    summary = f"{count_text(len(findings), 'difference')} to {target}: {names}"
    return CheckResult(findings[0].outcome, summary, findings, measured)


def _finding(difference: EnvironmentDifference, target: str) -> Finding:
    problem = f"{difference.here} here, {difference.there} in {target}: {difference.why}"
    return Finding(difference.name, problem, difference.fix, OUTCOMES[difference.weight])
