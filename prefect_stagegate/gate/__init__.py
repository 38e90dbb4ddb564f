"""The gate: checks, their evidence, the decision by it, and the attestation of the decision.

A check is a decorated function; `registry` says where it is declared.
"""

from prefect_stagegate.gate.base import CheckResult, Parameters, one_finding
from prefect_stagegate.gate.check_context import Binding, CheckContext, Fact, FreshFact
from prefect_stagegate.gate.registry import CHECKS, Check, Renewal, known_check, known_checks

check = Check

__all__ = [
    "CHECKS",
    "Binding",
    "Check",
    "CheckContext",
    "CheckResult",
    "Fact",
    "FreshFact",
    "Parameters",
    "Renewal",
    "check",
    "known_check",
    "known_checks",
    "one_finding",
]
