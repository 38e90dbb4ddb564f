"""Diagnostics of GPUs.

The check that runs NVIDIA's own diagnostics.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.gate.base import CheckResult, from_findings
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.plugins.node.checks.gpu import OnGpus, no_gpu, nvml_gpus
from prefect_stagegate.plugins.node.dcgmi import Diagnosis, diagnose
from prefect_stagegate.spec.fields import Duration, bounded
from prefect_stagegate.units import count_text

HOLDS = timedelta(days=1)
"""Level 1 is what NVIDIA calls a readiness metric: once a day and after each failure."""
RAN = (Outcome.PASS, Outcome.WARN, Outcome.FAIL)
OF_SKIPPED = {Outcome.NOT_APPLICABLE: Outcome.WARN}
"""A test that DCGM skipped proves nothing, so it warns."""


class Dcgm(OnGpus):
    """Level 1 takes seconds, 2 about two minutes, 3 about a quarter of an hour; from 2 on the GPUs are loaded."""

    level: int = Field(default=1, ge=1, le=4, description="How thorough the diagnostics are.", examples=[2])
    timeout: Annotated[Duration, bounded("1s", "12h")] = Field(
        default=timedelta(minutes=5),
        description="After how long they are stopped; the answer is then inconclusive.",
        examples=["20m"],
    )


@Check("dcgm", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def dcgm(context: CheckContext, parameters: Dcgm) -> CheckResult:
    """What `dcgmi diag -j -r LEVEL` says of this node's GPUs.

    A test that warns, was skipped, or failed by a setting only (persistence mode is off) warns; one that failed fails.
    Inconclusive where it ran no test, did not end within `timeout` (5m), ended with an error that no test explains, or
    isn't installed. Reads versions 3 and 4 of DCGM.
    """
    if not nvml_gpus(context).gpus:
        return no_gpu(parameters)
    return evaluate(diagnose(parameters.level, parameters.timeout.total_seconds()), parameters.level)


def evaluate(diagnosis: Diagnosis, level: int) -> CheckResult:
    """Make the answer from a run at a level.

    Raises:
        StagegateError: The run proves nothing: no test ran, or it ended with an error that no test explains.
    """
    command = f"dcgmi diag -j -r {level}"
    ran = sum(result.outcome in RAN for result in diagnosis.results)
    findings = tuple(
        Finding(result.subject, result.message, f"{command} -v", OF_SKIPPED.get(result.outcome, result.outcome))
        for result in diagnosis.results
        if result.outcome is not Outcome.PASS
    )
    # dcgmi also exits with an error when a test fails, so the exit code counts only where no test explains it.
    if not ran or (diagnosis.exit and not findings):
        message = f"{command} exited with {diagnosis.exit} after {count_text(ran, 'test')}: {diagnosis.complaint}"
        hint = "Run the command by hand. It needs the service nvidia-dcgm: systemctl status nvidia-dcgm"
        raise StagegateError(message.removesuffix(": "), hint=hint)
    count = len(diagnosis.results)
    measured = {"level": level, "exit": diagnosis.exit, "results": count, "version": diagnosis.version}
    return from_findings(f"{count_text(ran, 'result')} of level {level}, all passed", findings, measured)
