"""The check that runs NVIDIA's own diagnostics, `dcgmi diag`, and reads what it writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from pydantic import Field

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.readiness.base import Answer, Renewal, check
from prefect_stagegate.readiness.gpu import OnGpus, no_gpu
from prefect_stagegate.readiness.question import Question
from prefect_stagegate.readiness.wording import count_text
from prefect_stagegate.spec import Duration

HOLDS = timedelta(days=1)
"""Level 1 is what NVIDIA calls a readiness metric: once a day and after each failure."""
TOPS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")
"""What the results stand under: in version 4, and in those before."""
CONFIG = 5
"""The severity (DCGM_ERROR_CONFIG) of errors that are a setting's, as persistence mode is, and not the GPU's."""
OUTCOMES = {
    "PASS": Outcome.PASS,
    "WARN": Outcome.WARN,
    "FAIL": Outcome.FAIL,
    "SKIP": Outcome.NOT_APPLICABLE,
    "SKIPPED": Outcome.NOT_APPLICABLE,
}
RAN = (Outcome.PASS, Outcome.WARN, Outcome.FAIL)
WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.WARN)


class Dcgm(OnGpus):
    """Level 1 takes seconds, 2 about two minutes, 3 about a quarter of an hour; from 2 on the GPUs are loaded."""

    level: int = Field(default=1, ge=1, le=4, description="How thorough the diagnostics are.", examples=[2])
    timeout: Duration = Field(
        default=timedelta(minutes=5),
        gt=timedelta(0),
        le=timedelta(hours=12),
        description="After how long they are stopped; the answer is then inconclusive.",
        examples=["20m"],
    )


@check("dcgm", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def dcgm(question: Question, parameters: Dcgm) -> Answer:
    """What `dcgmi diag -j -r LEVEL` says of this node's GPUs.

    All tests pass: passes. A test that warns, was skipped, or failed by a setting only (persistence mode is off)
    warns; one that failed fails. Inconclusive where it ran no test, did not end within `timeout` (5m), ended with an
    error that no test explains, or isn't installed. Reads what versions 3 and 4 of DCGM write.
    """
    if not question.gpus().gpus:
        return no_gpu(parameters)
    command = ["dcgmi", "diag", "-j", "-r", str(parameters.level)]
    code, output, complaint = _run(command, parameters.timeout.total_seconds())
    results = list(_results(output))
    ran = [one for one in results if _outcome(one[1]) in RAN]
    findings = tuple(finding for one in results if (finding := _finding(*one, " ".join(command))))
    worst = next((one for one in WORST_FIRST if any(finding.outcome is one for finding in findings)), Outcome.PASS)
    if not ran or (code and worst is Outcome.PASS):
        told = str(_top(output).get("runtime_error") or complaint)
        raise StagegateError(
            f"{' '.join(command)} ended with {code} after {count_text(len(ran), 'test')}"
            + (f": {told}" if told else ""),
            hint="Run it by hand; it needs its service: systemctl status nvidia-dcgm",
        )
    measured = {"level": parameters.level, "exit": code, "results": len(results), "version": _version(output)}
    if worst is Outcome.PASS:
        return Answer(worst, f"{count_text(len(ran), 'result')} of level {parameters.level}, all passed", (), measured)
    first = next(finding for finding in findings if finding.outcome is worst)
    return Answer(worst, f"{first.subject}: {first.problem}", findings, measured)


def _run(command: list[str], seconds: float) -> tuple[int, dict[str, Any], str]:
    """Run it: its exit status, the object that it wrote, and what it said beside it."""
    path = shutil.which(command[0])
    if path is None:
        raise StagegateError(
            "dcgmi is not installed", hint="Install DCGM: apt-get install datacenter-gpu-manager-4-core"
        )
    with subprocess.Popen(
        [path, *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            written, said = process.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the group is its own still
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            hint = "Raise `timeout` of dcgm, or look for a GPU that hangs: dmesg | grep -i xid"
            raise StagegateError(f"{' '.join(command)} did not end within {seconds:.0f} s", hint=hint) from error
    text = written.decode(errors="replace")
    return process.returncode, _object(text), _last_line(said.decode(errors="replace") or text)


def _object(text: str) -> dict[str, Any]:
    """The object in what was written; versions before 4 may write warnings before it. Empty where there is none."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text[max(text.find("{"), 0) :])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _top(output: dict[str, Any]) -> dict[str, Any]:
    found = next((output[top] for top in TOPS if top in output), None)
    return found if isinstance(found, dict) else {}


def _version(output: dict[str, Any]) -> str:
    metadata = output.get("metadata")
    return str((metadata if isinstance(metadata, dict) else _top(output)).get("version", "unknown"))


def _results(output: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each result with the name of its test and what was tested."""
    for category in _dicts(_top(output).get("test_categories")):
        for test in _dicts(category.get("tests")):
            for result in _dicts(test.get("results")):
                yield f"{test.get('name', 'unknown')} ({_entity(result)})", result


def _dicts(value: object) -> list[dict[str, Any]]:
    """The objects of a list; versions before 4 may write null between them."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _entity(result: dict[str, Any]) -> str:
    if "entity_id" in result:
        return f"{result.get('entity_group', 'entity')} {result['entity_id']}"
    return f"GPU {result.get('gpu_id', result.get('gpu_ids', 'unknown'))}"


def _outcome(result: dict[str, Any]) -> Outcome:
    return OUTCOMES.get(str(result.get("status")).upper(), Outcome.INCONCLUSIVE)


def _finding(subject: str, result: dict[str, Any], command: str) -> Finding | None:
    outcome = _outcome(result)
    if outcome is Outcome.PASS:
        return None
    warnings = list(_warnings(result.get("warnings")))
    by_setting = outcome is Outcome.FAIL and {severity for _, severity in warnings} == {CONFIG}
    if by_setting or outcome is Outcome.NOT_APPLICABLE:  # what was skipped is not proved
        outcome = Outcome.WARN
    said = ": ".join((str(result.get("status", "no status")), *(text for text, _ in warnings)))
    return Finding(subject, said, f"{command} -v", outcome)


def _warnings(value: object) -> Iterator[tuple[str, Any]]:
    """Texts with severities: version 4 writes objects, those before a text or several."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield str(one.get("warning", "")), one.get("error_severity")
        elif one:
            yield str(one), None
