"""Readiness: checks, their evidence, the gate that decides by it, and the attestation of the decision.

A check is one decorated function in a module that `registry.MODULES` lists.
"""

import warnings

from prefect_stagegate.gate.base import CheckDefinition, CheckResult, Parameters, Renewal
from prefect_stagegate.gate.checks.data import recorded_times
from prefect_stagegate.gate.context import Accepted, CheckContext, Integrity, Probe, Volume
from prefect_stagegate.gate.gate import PlannedCheck, State, decide, judge, plan_checks
from prefect_stagegate.gate.records.attest import attest, decision_of, statement_digest
from prefect_stagegate.gate.registry import CHECKS, check, import_checks, known_check, known_checks
from prefect_stagegate.gate.renewal import renew
from prefect_stagegate.gate.run import run_check
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.nvml import Gpu, Gpus, find_gpus

__all__ = [
    "CHECKS",
    "Accepted",
    "CheckContext",
    "CheckDefinition",
    "CheckResult",
    "Gpu",
    "Gpus",
    "Integrity",
    "Machine",
    "Parameters",
    "PlannedCheck",
    "Probe",
    "Renewal",
    "State",
    "Volume",
    "attest",
    "check",
    "decide",
    "decision_of",
    "find_gpus",
    "judge",
    "known_check",
    "known_checks",
    "plan_checks",
    "recorded_times",
    "renew",
    "run_check",
    "statement_digest",
]

# Here, so that whoever imports the package finds all checks.
import_checks()

_RENAMED = {"Answer": CheckResult, "Question": CheckContext}


def __getattr__(name: str) -> type:
    """Return a class by its former name, with a warning."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is {_RENAMED[name].__name__} now", DeprecationWarning, stacklevel=2)
    return _RENAMED[name]
