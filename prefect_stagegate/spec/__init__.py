"""The spec: one YAML file that says what a dataset is, what it promises, and what its targets require.

The names are imported when they are used: modules with keys of plugins import `fields`, and are imported by `models`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_stagegate.spec.fields import ByteSize, Duration, Glob
    from prefect_stagegate.spec.load import load_spec
    from prefect_stagegate.spec.models import (
        HOLD,
        ContractSpec,
        FilesSpec,
        Gate,
        GateSpec,
        JobSpec,
        OnWithdrawal,
        ProbeSpec,
        Requirement,
        RequirementSpec,
        Spec,
        TableSpec,
    )
    from prefect_stagegate.spec.requirements import KnownCheck, KnownChecks
    from prefect_stagegate.spec.schema import json_schema
    from prefect_stagegate.spec.source_specs import MirrorSpec, SourceSpec
    from prefect_stagegate.spec.suites import ExpectationSpec, SuiteSpec, doubtful_columns

__all__ = [
    "HOLD",
    "ByteSize",
    "ContractSpec",
    "Duration",
    "ExpectationSpec",
    "FilesSpec",
    "Gate",
    "GateSpec",
    "Glob",
    "JobSpec",
    "KnownCheck",
    "KnownChecks",
    "MirrorSpec",
    "OnWithdrawal",
    "ProbeSpec",
    "Requirement",
    "RequirementSpec",
    "SourceSpec",
    "Spec",
    "SuiteSpec",
    "TableSpec",
    "doubtful_columns",
    "json_schema",
    "load_spec",
]


def __getattr__(name: str) -> Any:
    modules = ("fields", "models", "source_specs", "suites", "requirements", "schema", "load")
    for module in modules if name in __all__ else ():
        found = getattr(import_module(f"{__name__}.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
