"""Readiness: checks, the evidence that they give, the gate that decides by it, and the attestation of the decision.

A check is one decorated function in a module that `registry.MODULES` lists.
"""

from prefect_stagegate.readiness.base import Answer, CheckDefinition, Parameters, Renewal
from prefect_stagegate.readiness.checks.data import recorded_times
from prefect_stagegate.readiness.context import Accepted, Integrity, Probe, Question, Volume
from prefect_stagegate.readiness.gate import PlannedCheck, State, decide, judge, plan_checks
from prefect_stagegate.readiness.node.machine import Machine
from prefect_stagegate.readiness.node.nvml import Gpu, Gpus, find_gpus
from prefect_stagegate.readiness.records.attest import attest, decision_of, environment_of, statement_digest, verify
from prefect_stagegate.readiness.registry import CHECKS, check, import_checks, known_checks
from prefect_stagegate.readiness.renewal import Renewed, renew
from prefect_stagegate.readiness.run import is_current, run_check

__all__ = [
    "CHECKS",
    "Accepted",
    "Answer",
    "CheckDefinition",
    "Gpu",
    "Gpus",
    "Integrity",
    "Machine",
    "Parameters",
    "PlannedCheck",
    "Probe",
    "Question",
    "Renewal",
    "Renewed",
    "State",
    "Volume",
    "attest",
    "check",
    "decide",
    "decision_of",
    "environment_of",
    "find_gpus",
    "is_current",
    "judge",
    "known_checks",
    "plan_checks",
    "recorded_times",
    "renew",
    "run_check",
    "statement_digest",
    "verify",
]

import_checks()
