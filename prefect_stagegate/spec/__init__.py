"""The spec: one YAML file that says what a dataset is, what it promises, and what its targets require."""

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
