"""Run NVIDIA's `dcgmi diag` with a time limit, and parse the output of its versions 3 and 4."""

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
"""The key of the results: in version 4, and in older versions."""
CONFIG = 5
"""The severity (DCGM_ERROR_CONFIG) of errors of a setting, as persistence mode, and not of the GPU."""
OUTCOMES = {
    "PASS": Outcome.PASS,
    "WARN": Outcome.WARN,
    "FAIL": Outcome.FAIL,
    "SKIP": Outcome.NOT_APPLICABLE,
    "SKIPPED": Outcome.NOT_APPLICABLE,
}
"""Any other status is unknown."""
LONGEST = 300
"""Characters of a line that is shown to people."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one test on one GPU, or on several at once."""

    subject: str
    """`memory (GPU 1)`."""
    outcome: Outcome
    """Not applicable where the test was skipped, inconclusive where its status is unknown."""
    message: str
    """The status of the test, and its warnings."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The parsed output of one run."""

    exit: int
    results: tuple[Result, ...]
    version: str
    """DCGM's version; `unknown` where the output has none."""
    complaint: str
    """The run's own error, else its last line of output."""


def diagnose(level: int, seconds: float) -> Diagnosis:
    """Run `dcgmi diag -j -r LEVEL`; kill it and its children after `seconds`.

    Raises:
        StagegateError: It isn't installed, or did not end in time.
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
        start_new_session=True,  # a process group of its own, so that its children can be killed with it
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so no other process has its number
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            hint = "Raise `timeout` of dcgm, or look for a GPU that hangs: dmesg | grep -i xid"
            raise StagegateError(f"dcgmi diag -j -r {level} did not end within {seconds:.0f} s", hint=hint) from error
    return parse_diagnosis(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def parse_diagnosis(code: int, output: str, errors: str) -> Diagnosis:
    """Parse the exit code and the two output streams of a run."""
    document = _object(output)
    top = _mapping(next((document[top] for top in TOPS if top in document), None))
    # Version 4 writes it beside the results, older ones among them.
    version = (_mapping(document.get("metadata")) or top).get("version", "unknown")
    complaint = str(top.get("runtime_error") or _last_line(errors or output))
    return Diagnosis(code, tuple(_results(top)), str(version), complaint)


def _object(text: str) -> Mapping[str, Any]:
    """The JSON object in a text; empty without one. Versions before 4 may write lines before it."""
    begins = re.search(r"^\s*\{", text, re.MULTILINE)
    try:
        return _mapping(json.JSONDecoder().raw_decode(text, begins.end() - 1)[0]) if begins else {}
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    """The JSON objects of a list. Versions before 4 may write null between them."""
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
    # An error of a setting says nothing of the GPU.
    if outcome is Outcome.FAIL and warnings and all(severity == CONFIG for _, severity in warnings):
        outcome = Outcome.WARN
    return Result(f"{test} ({_entity(result)})", outcome, ": ".join((status, *(text for text, _ in warnings))))


def _entity(result: Mapping[str, Any]) -> str:
    if "entity_id" in result:
        return f"{result.get('entity_group', 'entity')} {result['entity_id']}"
    return f"GPU {result.get('gpu_id', result.get('gpu_ids', 'unknown'))}"


def _warnings(value: object) -> Iterator[tuple[str, Any]]:
    """Each warning with its severity. Version 4 writes objects, older versions one text or several."""
    for warning in value if isinstance(value, list) else [value]:
        if isinstance(warning, dict):
            yield str(warning.get("warning", ""))[:LONGEST], warning.get("error_severity")
        elif warning:
            yield str(warning)[:LONGEST], None
