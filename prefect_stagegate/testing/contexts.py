"""A check's context for tests: a version that passes every check, with the fields that the test changes.

result = cache_fit(check_context(bytes=0), CacheFit())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from prefect_stagegate.checks.contract import failed_objects
from prefect_stagegate.checks.promotion import is_in_catalog
from prefect_stagegate.checks.source_access import life_of_credentials, probe_source
from prefect_stagegate.checks.storage import Integrity, Volume, cache_volume, copy_integrity, rotten_blobs
from prefect_stagegate.environment import Environment
from prefect_stagegate.gate import CheckContext, known_checks
from prefect_stagegate.gate.accepted import accepted_below, last_accepted, reference
from prefect_stagegate.gate.check_context import Fact, local_view, origins
from prefect_stagegate.jobs.gating.table_facts import table_columns, table_time
from prefect_stagegate.jobs.gating.validate import validation_of
from prefect_stagegate.jobs.staging.probe import SourceProbe
from prefect_stagegate.model import (
    CredentialLife,
    Entry,
    Evidence,
    Identity,
    Origin,
    Outcome,
    Pin,
    TableResult,
    Validation,
)
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.workspace import ResolvedVersion, Workspace

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
DIGEST = "sha256:" + "4f9c" * 16
OTHER_DIGEST = "sha256:" + "e07a" * 16
REQUESTER = Identity("ana@example.org", "declared")
ENVIRONMENT = Environment.from_json(
    {
        "image": "sha256:" + "1a" * 32,
        "python": {
            "version": "3.12.4",
            "implementation": "CPython",
            "distributions": {
                "numpy": {"version": "2.1.0", "files": "sha256:" + "2b" * 32},
                "pandas": {"version": "3.0.1", "files": "sha256:" + "3c" * 32},
            },
        },
        "cuda": {"driver": "550.54.15", "cuda": "12.4.127", "cudnn": "9.1.0.70", "nccl": "2.21.5"},
        "gpus": {"NVIDIA H100 80GB HBM3": 8},
        "host": {"architecture": "x86_64", "os": "debian 12", "kernel": "Linux 6.8.0", "libc": "glibc 2.36"},
        "limits": {
            "nofile": 1048576,
            "memlock": "unlimited",
            "nproc": "unlimited",
            "stack": 8388608,
            "shm": 68719476736,
            "memory": "unlimited",
            "cpus": 16,
        },
        "variables": {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "8"},
        "volume": {"file_system": "xfs", "medium": "nvme", "size_class": 1099511627776, "device": "/dev/nvme0n1p1"},
    }
)
VOLUME = Volume(Path("/cache"), total=1000, free=500, floor=50, held=0)
SPEC: Mapping[str, Any] = {
    "stagegate": 1,
    "dataset": "nycflights",
    "owners": {
        "data": "data-eng@example.org",
        "ai": "ml@example.org",
        "infra": "platform@example.org, oncall@example.org",
        "governance": "legal@example.org",
    },
    "license": "CC0-1.0",
    "publication": {
        "description": "On-time data of flights from New York in 2013.",
        "url": "https://example.org/nycflights",
        "creators": [{"name": "Example Institute"}],
        "published": "2026-01-31",
    },
    "rai": {
        "data_limitations": ["One year only."],
        "data_biases": ["Three airports only."],
        "personal_sensitive_information": ["None."],
        "data_use_cases": ["Training of delay forecasts."],
        "data_social_impact": "None is known.",
        "has_synthetic_data": False,
        "was_derived_from": ["https://example.org/raw"],
        "was_generated_by": ["Monthly files were joined."],
    },
    "runbook": "https://wiki.example.org/nycflights",
    "sources": [{"url": "s3://lake/flights/", "into": "flights/"}, {"url": "file:///mnt/nas/", "into": "reference/"}],
    "contract": {"tables": {"flights": {"files": "flights/*.parquet"}}},
    "gates": {
        "pilot": {"require": ["schema", "nonempty"]},
        "production": {"extends": "pilot", "require": ["digest", {"approval": {"from": ["infra"]}}]},
    },
}


def a_spec(**changes: Any) -> Spec:
    """`SPEC` with some keys changed; None removes a key."""
    values = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    return load_spec(values, known_checks=known_checks())


SETTINGS = Settings.from_environment({"STAGEGATE_NODE": "node-1"})
FACTS: dict[Fact[Any, Any], Any] = {
    accepted_below: None,
    cache_volume: VOLUME,
    copy_integrity: Integrity(2, 300),
    failed_objects: (),
    is_in_catalog: lambda digest: digest in (DIGEST, OTHER_DIGEST),
    last_accepted: None,
    life_of_credentials: lambda position: CredentialLife("none", "a folder"),  # noqa: ARG005 - as above
    local_view: None,
    origins: lambda: iter([an_origin(NOW - timedelta(hours=1))]),
    reference: None,
    rotten_blobs: (),
    table_columns: lambda _, tables: {table: {"year": "BIGINT", "carrier": "VARCHAR"} for table in tables},
    table_time: lambda table: NOW,  # noqa: ARG005 - a check passes the table's name
    validation_of: lambda: a_validation(),  # noqa: PLW0108 - defined below
}
"""Facts of a version that passes: a value, or a function of the fact's arguments."""


def check_context(
    facts: Mapping[Fact[Any, Any], Any] | None = None,
    /,
    *,
    spec: Spec | None = None,
    target: str = "production",
    digest: str = DIGEST,
    files: int = 2,
    bytes: int = 300,  # noqa: A002 - the context's word
    entries: Sequence[Entry] = (),
    **changes: Any,
) -> CheckContext:
    """The context of a version of two files on its way to `production`.

    A fact is given by a value, or by a function of the fact's arguments that returns it or raises.

    Args:
        facts: Facts of other packages.
        spec: The spec; by default that of `a_spec`.
        target: The target of the gate.
        digest: The version's digest.
        files: How many files it has.
        bytes: Their size.
        entries: Its manifest.
        changes: Facts of `FACTS` by name, fields of `CheckContext`, `requester`, and `node` and `allowed_hosts` of the
            settings.
    """
    spec = spec or a_spec()
    given = {**FACTS, probe_source: lambda position: SourceProbe(spec.sources[position].url, "a.parquet", 4096, 0.01)}
    given |= {fact: changes.pop(fact.__name__) for fact in given if fact.__name__ in changes}
    settings = {name: changes.pop(name) for name in ("node", "allowed_hosts") if name in changes}
    fields = {
        "version": ResolvedVersion(spec.dataset, digest, spec),
        "manifest": Manifest(spec.dataset, digest, files, bytes, lambda: iter(entries)),
        "gate": spec.gate(target),
        "now": NOW,
        "workspace": Workspace(
            # No fact opens them here.
            cache=cast(Any, None),
            catalog=cast(Any, None),
            identity=changes.pop("requester", REQUESTER),
            settings=replace(SETTINGS, **settings),
        ),
        "environment": ENVIRONMENT,
        "facts": {fact: _function(value) for fact, value in {**given, **(facts or {})}.items()},
    }
    return CheckContext(**{**fields, **changes})


def _function(value: Any) -> Callable[..., Any]:
    return value if callable(value) else lambda *_: value


def a_validation(digest: str = DIGEST, outcome: Outcome = Outcome.PASS) -> Validation:
    """The validation of a contract with one table, with the same outcome for each check."""
    names = ("schema", "nonempty", "expectations", "coverage")
    evidence = tuple(Evidence(name, outcome, f"{name} looked", "data", measured={"rows": 7}) for name in names)
    table = TableResult("flights", files=2, rows=7, evaluated=3, failed=0, passed=outcome is Outcome.PASS)
    return Validation("nycflights", digest, outcome is Outcome.PASS, (table,), evidence)


def an_origin(modified: datetime | None) -> Origin:
    """The origin of one entry, with the given modification time."""
    pin = Pin("etag", '"1"', "strong")
    seconds = modified.timestamp() if modified else None
    return Origin("flights/a.parquet", "s3://lake/flights/", "a.parquet", 300, pin, "computed", "blake3:0", seconds)
