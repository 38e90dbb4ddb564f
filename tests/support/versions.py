"""What tests read and write of versions, policies and environments in a catalog: only this file names the modules."""

from __future__ import annotations

from prefect_stagegate.catalog.environments import put_environment, whole_statement
from prefect_stagegate.catalog.policies import adopt_policy, policy_log
from prefect_stagegate.catalog.version_records import (
    dataset_names,
    has_version,
    put_spec,
    put_version,
    read_failed,
    read_manifest,
    read_origins,
    read_pins,
    read_seal,
    staged_spec,
    version_digests,
)

__all__ = [
    "adopt_policy",
    "dataset_names",
    "has_version",
    "policy_log",
    "put_environment",
    "put_spec",
    "put_version",
    "read_failed",
    "read_manifest",
    "read_origins",
    "read_pins",
    "read_seal",
    "staged_spec",
    "version_digests",
    "whole_statement",
]
