"""Readiness: checks, the evidence that they give, the gate that decides by it, and the attestation of the decision.

A check is one decorated function in a module that is imported here.
"""

from prefect_stagegate.readiness import (
    approval,
    catalogue,
    data,
    dcgm,
    drift,
    governance,
    gpu,
    job,
    lineage,
    locality,
    parity,
    pii,
    pools,
    promotion,
    schedules,
    source,
    storage,
    tables,
)
from prefect_stagegate.readiness.attest import attest, decision_of, environment_of, statement_digest, verify
from prefect_stagegate.readiness.base import CHECKS, Answer, CheckDefinition, Parameters, Renewal, check, known_checks
from prefect_stagegate.readiness.data import recorded_times
from prefect_stagegate.readiness.gate import PlannedCheck, State, decide, judge, plan_checks
from prefect_stagegate.readiness.machine import Machine
from prefect_stagegate.readiness.nvml import Gpu, Gpus, find_gpus
from prefect_stagegate.readiness.question import Accepted, Integrity, Probe, Question, Volume
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
    "approval",
    "attest",
    "catalogue",
    "check",
    "data",
    "dcgm",
    "decide",
    "decision_of",
    "drift",
    "environment_of",
    "find_gpus",
    "governance",
    "gpu",
    "is_current",
    "job",
    "judge",
    "known_checks",
    "lineage",
    "locality",
    "parity",
    "pii",
    "plan_checks",
    "pools",
    "promotion",
    "recorded_times",
    "renew",
    "run_check",
    "schedules",
    "source",
    "statement_digest",
    "storage",
    "tables",
    "verify",
]
