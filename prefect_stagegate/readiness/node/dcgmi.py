"""NVIDIA's command `dcgmi diag`: run within a time, and what versions 3 and 4 of it write made into results."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Outcome

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
"""Any other status is one that we don't know."""
LONGEST = 300
"""Characters of a line that is repeated to people."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one test found out about one GPU, or about several at once."""

    subject: str
    """`memory (GPU 1)`."""
    outcome: Outcome
    """Not applicable where the test was skipped, inconclusive where its status is unknown."""
    message: str
    """Its status, and its warnings."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that a run of it told."""

    exit: int
    results: tuple[Result, ...]
    version: str
    """DCGM's, `unknown` where it doesn't tell."""
    complaint: str
    """What it said about itself."""


def diagnose(level: int, seconds: float) -> Diagnosis:
    """Run `dcgmi diag -j -r LEVEL`, and stop it with all that it started after some seconds.

    Raises:
        StagegateError: It isn't installed, or was stopped.
    """
    path = shutil.which("dcgmi")
    if path is None:
        hint = "Install DCGM: apt-get install datacenter-gpu-manager-4-core"
        raise StagegateError("dcgmi is not installed", hint=hint)
    with subprocess.Popen(
        [path, "diag", "-j", "-r", str(level)],
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
            raise StagegateError(f"dcgmi diag -j -r {level} did not end within {seconds:.0f} s", hint=hint) from error
    return parse_diagnosis(process.returncode, written.decode(errors="replace"), said.decode(errors="replace"))


def parse_diagnosis(code: int, written: str, said: str) -> Diagnosis:
    """Make results of what a run wrote to its two outputs."""
    output = _object(written)
    top = _mapping(next((output[top] for top in TOPS if top in output), None))
    version = (_mapping(output.get("metadata")) or top).get("version", "unknown")
    complaint = str(top.get("runtime_error") or _last_line(said or written))
    return Diagnosis(code, tuple(_results(top)), str(version), complaint)


def _object(text: str) -> Mapping[str, Any]:
    """The object in a text; versions before 4 may write lines before it. Empty where there is none."""
    begins = re.search(r"^\s*\{", text, re.MULTILINE)
    try:
        return _mapping(json.JSONDecoder().raw_decode(text, begins.end() - 1)[0]) if begins else {}
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; versions before 4 may write null between them."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:LONGEST] if lines else ""


def _results(top: Mapping[str, Any]) -> Iterator[Result]:
    for category in _mappings(top.get("test_categories")):
        for test in _mappings(category.get("tests")):
            for result in _mappings(test.get("results")):
                yield _result(str(test.get("name", "unknown")), result)


def _result(test: str, result: Mapping[str, Any]) -> Result:
    status = str(result.get("status", "no status"))
    outcome = OUTCOMES.get(status.upper(), Outcome.INCONCLUSIVE)
    warnings = list(_warnings(result.get("warnings")))
    if outcome is Outcome.FAIL and warnings and all(severity == CONFIG for _, severity in warnings):
        outcome = Outcome.WARN
    return Result(f"{test} ({_entity(result)})", outcome, ": ".join((status, *(text for text, _ in warnings))))


def _entity(result: Mapping[str, Any]) -> str:
    if "entity_id" in result:
        return f"{result.get('entity_group', 'entity')} {result['entity_id']}"
    return f"GPU {result.get('gpu_id', result.get('gpu_ids', 'unknown'))}"


def _warnings(value: object) -> Iterator[tuple[str, Any]]:
    """Texts with severities: version 4 writes objects, those before a text or several."""
    for warning in value if isinstance(value, list) else [value]:
        if isinstance(warning, dict):
            yield str(warning.get("warning", ""))[:LONGEST], warning.get("error_severity")
        elif warning:
            yield str(warning)[:LONGEST], None
