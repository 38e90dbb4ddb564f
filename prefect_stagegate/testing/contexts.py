"""A check's context for tests: a version that passes every check, with the fields that the test changes.

result = cache_fit(check_context(bytes=0), CacheFit())
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from prefect_stagegate.environment import Environment
from prefect_stagegate.gate import CheckContext, Gpus, Integrity, Machine, Probe, Volume, known_checks
from prefect_stagegate.measures import Balance, ColumnDrift, Duplicates, Overlap, Scan, TableDrift
from prefect_stagegate.model import CredentialLife, Evidence, Identity, Origin, Outcome, Pin, TableResult, Validation
from prefect_stagegate.spec import Spec, load_spec

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


def check_context(*, spec: Spec | None = None, target: str = "production", **changes: Any) -> CheckContext:
    """The context of a version of two files on its way to `production`; `changes` are fields of `CheckContext`."""
    spec = spec or a_spec()
    facts: dict[str, Any] = {
        "dataset": spec.dataset,
        "digest": DIGEST,
        "files": 2,
        "bytes": 300,
        "spec": spec,
        "gate": spec.gate(target),
        "now": NOW,
        "requester": REQUESTER,
        "node": "node-1",
        "environment": ENVIRONMENT,
        "entries": lambda: iter(()),
        "origins": lambda: iter([an_origin(NOW - timedelta(hours=1))]),
        "failed": lambda: (),
        "validation": a_validation,
        "table_time": lambda table: NOW,  # noqa: ARG005 - a check passes the table's name
        "probe_source": lambda position: Probe(spec.sources[position].url, "a.parquet", 4096, 0.01),
        "credential_life": lambda position: CredentialLife("none", "a folder"),  # noqa: ARG005 - as above
        "measures": Figures(),
        "integrity": lambda: Integrity(2, 300),
        "rotten": lambda: (),
        "volume": lambda: VOLUME,
        "view": lambda: None,
        "gpus": Gpus,
        "machine": Machine(),
        "resolvable": lambda digest: digest in (DIGEST, OTHER_DIGEST),
        "file_digests": lambda algorithm: iter(()),  # noqa: ARG005 - a check passes the algorithm's name
        "read_file": lambda entry: b"",  # noqa: ARG005 - a check passes the file's entry
        "signatures": lambda: (),
    }
    return CheckContext(**{**facts, **changes})


T = TypeVar("T")


@dataclass(frozen=True)
class Figures:
    """`Measures` of faultless data; a test gives the answers that differ, each a value or an error to raise."""

    answers: Mapping[str, Any] = field(default_factory=dict)

    def duplicates(self, table: str, keys: Sequence[str]) -> Duplicates:  # noqa: ARG002 - the protocol's
        """Rows without duplicates."""
        return self._answer("duplicates", Duplicates(7, 0))

    def shared_files(self, splits: Mapping[str, str]) -> Overlap:
        """Splits of two files each."""
        return self._answer("shared_files", Overlap(dict.fromkeys(splits, 2), {}))

    def shared_records(self, splits: Mapping[str, str], by: Sequence[str]) -> Overlap:  # noqa: ARG002
        """Splits of seven records each."""
        return self._answer("shared_records", Overlap(dict.fromkeys(splits, 7), {}))

    def balance(self, table: str, column: str) -> Balance:  # noqa: ARG002
        """Two classes of nearly the same size."""
        return self._answer("balance", Balance(100, 0, 2, "b", 49))

    def drift(self, reference: str, ignored: Sequence[str]) -> Mapping[str, TableDrift]:  # noqa: ARG002
        """Columns with hardly any drift."""
        columns = tuple(ColumnDrift("flights", name, 0.01, "wasserstein") for name in ("a", "b"))
        return self._answer("drift", {"flights": TableDrift(5000, 4000, columns)})

    def scan(self, table: str, columns: Sequence[str], ignored: Sequence[str], patterns: Sequence[str]) -> Scan:  # noqa: ARG002
        """A column of text without a hit."""
        return self._answer("scan", Scan(7, ("carrier",), {}, {}))

    def columns(self, digest: str, tables: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Two columns in each table of every version; a test gives `columns` by digest."""
        by_digest: Mapping[str, Mapping[str, Mapping[str, str]]] = self._answer("columns", {})
        return by_digest.get(digest) or {table: {"year": "BIGINT", "carrier": "VARCHAR"} for table in tables}

    def outside_tables(self) -> int:
        """None."""
        return self._answer("outside_tables", 0)

    def _answer(self, name: str, usual: T) -> T:
        answer: T = self.answers.get(name, usual)
        if isinstance(answer, BaseException):
            raise answer
        return answer


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
