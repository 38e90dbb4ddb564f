"""The facts that a check may ask for. The caller of the checks fills them in; a check only reads them.

A fact that costs time is a function, so only a check that calls it pays. Such a function may raise any
`StagegateError`: the check that called it is then inconclusive, and the error's message is the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.environment import UNKNOWN, Environment
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.measures import Measures
from prefect_stagegate.model import (
    Approval,
    ApprovalRequest,
    CredentialLife,
    Decision,
    Entry,
    EvidenceRevocation,
    FailedObject,
    Finding,
    Identity,
    Origin,
    Pin,
    Validation,
    Waiver,
)
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.nvml import Gpus
from prefect_stagegate.spec import Gate, Spec
from prefect_stagegate.spec.parameters import PREVIOUS_ROWS, uses

BOUND_SIGNATURES = 20
"""Signatures, the newest first, that an answer is bound to: a further one is always among them."""
Data = bytes
"""Bytes; `CheckContext` has a field of that name."""


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume that holds this node's cache. All figures in bytes."""

    path: Path
    total: int
    free: int
    """What this user can still write."""
    floor: int
    """What the cache leaves free for others."""
    held: int
    """Bytes of this version that are already in the cache."""
    inodes: int = 0
    """How many files it can hold; 0 where the file system makes inodes as needed, as Btrfs does."""
    free_inodes: int = 0
    """How many more files this user can create."""
    quota_left: int | None = None
    """Bytes that the cache's own limit leaves once what nobody needs is collected; None without a limit."""

    @property
    def room(self) -> int:
        """Bytes of this version that the cache has or can take."""
        left = self.free - self.floor
        if self.quota_left is not None:
            left = min(left, self.quota_left)
        return max(left, 0) + self.held


@dataclass(frozen=True, slots=True)
class Integrity:
    """The result of hashing a version's files on this node again."""

    files: int
    bytes: int
    damaged: tuple[Finding, ...] = ()
    """The files whose bytes differ from the manifest."""


@dataclass(slots=True)
class Probe:
    """The result of listing one source and reading one range of one object, with the credentials of this process."""

    url: str
    """The source, without credentials."""
    object: str = ""
    """The key that was read; empty when the listing was empty."""
    read: int = 0
    """Bytes that were received."""
    seconds: float = 0.0
    """Time of listing and reading."""
    error: StagegateError | None = None
    who: str = ""
    """The kind of credentials that opened it; empty when it was not opened."""
    listed: float = 0.0
    """Seconds until the first object was listed; part of `seconds`."""
    pin: Pin | None = None
    """The pin of the object that was read."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A version that a gate accepted, so that its target's ref moved to it."""

    target: str
    digest: str
    at: str
    """When the ref was moved to it."""
    decision: Decision | None = None
    """The decision that the ref's log holds for it."""
    environment: Callable[[], Environment] | None = None
    """Reads the environment of the decision from the catalog, or raises `CorruptRecord`; None without a decision."""
    until: str = ""
    """When the ref moved on; empty while it still names the version."""


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """One version on its way to one target, in one environment, on one node."""

    dataset: str
    digest: str
    files: int
    bytes: int
    spec: Spec
    gate: Gate
    now: datetime
    """Aware. All checks of one decision have the same."""
    requester: Identity
    """Who runs the checks now."""
    node: str
    """This node's name among those that share the catalog."""
    environment: Environment

    entries: Callable[[], Iterator[Entry]]
    """The version's manifest."""
    origins: Callable[[], Iterator[Origin]]
    """Where its entries came from."""
    failed: Callable[[], tuple[FailedObject, ...]]
    """Objects that could not be staged when the version was made last, and that it lacks."""
    validation: Callable[[], Validation]
    """Validate this version by the contract. Runs at most once, however many checks call it."""
    table_time: Callable[[str], datetime | None]
    """The newest value in the `time` column of a table of the contract, aware; None when it has no rows."""
    probe_source: Callable[[int], Probe]
    """List and read the source at this position in the spec."""
    credential_life: Callable[[int], CredentialLife]
    """How long the credentials of the source at this position in the spec last."""
    measures: Measures
    """Queries over the version's rows."""
    integrity: Callable[[], Integrity]
    """Hash this node's copy of the version again. Raises a `StagegateError` when there is none."""
    rotten: Callable[[], tuple[str, ...]]
    """Names of the version's blobs in this node's quarantine. They change when `verify` moves more blobs there."""
    volume: Callable[[], Volume]
    view: Callable[[], Path | None]
    """The version's folder on this node; None where it was not staged."""
    gpus: Callable[[], Gpus]
    """This node's GPUs; none where it has none."""
    machine: Machine
    """The folders where Linux describes this node."""
    resolvable: Callable[[str], bool]
    """Whether the catalog still has the manifest of a version of this dataset."""
    file_digests: Callable[[str], Iterator[tuple[str, str]]]
    """The path and the digest in hex of each file by an algorithm, as `sha256`, sorted by path. Those by `blake3` are
    the manifest's. For others this node's copy is read, and proved by the manifest."""
    read_file: Callable[[Entry], Data]
    """The bytes of one of the version's files, from this node's copy and proved by the manifest."""
    signatures: Callable[[], Iterator[Data]]
    """The signatures of the version's files that the catalog keeps, the newest first, read one by one."""

    allowed_hosts: tuple[str, ...] = ()
    """Hosts that a link may lead to, whatever their address is."""
    adopted: str = ""
    """`sha256:<hex>` of the adopted policy that the gate belongs to; empty for a trial under another policy."""
    after: int = 0
    """The number of the target's last move; 0 before the first."""
    below: Accepted | None = None
    """This version, if the gate below accepted it and did not withdraw it; else the version that the ref of the gate
    below names now. None when this gate extends none, or the gate below accepted no version."""
    accepted: Accepted | None = None
    """The version that a rollback would return to: the newest that this target accepted and did not withdraw, other
    than this one. None before the second promotion."""
    reference: Accepted | None = None
    """The version whose columns are compared with those of tables that declare none: the one that this target named
    before it accepted this one, or names now. None for the first version."""
    request: ApprovalRequest | None = None
    """The recorded request to promote exactly this version under exactly this policy."""
    approvals: tuple[Approval, ...] = ()
    """The answers to it, the oldest first."""
    waivers: tuple[Waiver, ...] = ()
    """The waivers that people who may waive granted for this version at this target, also those that ended."""
    revocations: tuple[EvidenceRevocation, ...] = ()
    """Revocations of evidence about this version by people who may revoke, the oldest first."""

    @property
    def undeclared_tables(self) -> tuple[str, ...]:
        """The tables whose columns the contract does not declare. They are compared with the accepted version's."""
        return tuple(name for name, table in self.spec.contract.tables.items() if not table.columns)

    @property
    def asker(self) -> Identity:
        """Who asks for the promotion: the requester of the recorded request, else who runs the checks now."""
        return self.request.requester if self.request else self.requester

    @property
    def target(self) -> str:
        """The target that the version is to be promoted to."""
        return self.gate.target

    @property
    def address(self) -> str:
        """The version as commands take it: `nycflights@sha256:…`."""
        return f"{self.dataset}@{self.digest}"

    def addresses(self, role: str) -> tuple[str, ...]:
        """The addresses that `owners` gives for a role."""
        return addresses_of(self.spec.owners, role)


def addresses_of(owners: Mapping[Any, str], role: str) -> tuple[str, ...]:
    """The addresses that a spec's `owners` give for a role: one, or several with commas between them."""
    addresses = next((text for known, text in owners.items() if known == role), "")
    return tuple(address.strip() for address in addresses.split(",") if address.strip())


def _or_unknown(read: Callable[[], str]) -> str:
    """The value that `read` returns: `none` for an empty one, `unknown` when it raises a `StagegateError`."""
    try:
        return read() or "none"
    except StagegateError:  # a record that can't be read must not stop the other checks
        return UNKNOWN


def _previous(context: CheckContext) -> str | None:
    """The version whose rows the suites compare with; None where they compare with none."""
    if not uses(context.spec.contract.tables, PREVIOUS_ROWS):
        return None
    return context.reference.digest if context.reference else "none"


BINDINGS: dict[str, Callable[[CheckContext], str | None]] = {
    "version": lambda context: context.digest,
    "environment": lambda context: context.environment.fingerprint,
    "target": lambda context: context.target,
    "node": lambda context: context.node,
    # Each quarantined blob gets a name of its own, so every new find ends the evidence.
    "rotten": lambda context: _or_unknown(lambda: ", ".join(context.rotten())),
    "failed": lambda context: _or_unknown(lambda: _digest(context.failed())),
    "policy": lambda context: context.gate.policy,
    "spec": lambda context: context.spec.digest,
    "owners": lambda context: digest_of(dict(context.spec.owners)),
    "license": lambda context: context.spec.license or "none",
    "runbook": lambda context: context.spec.runbook or "none",
    "documentation": lambda context: digest_of(
        {key: context.spec.canonical().get(key) for key in ("license", "publication", "rai")}
    ),
    "contract": lambda context: digest_of(context.spec.canonical().get("contract")),
    "sources": lambda context: digest_of(context.spec.canonical()["sources"]),
    "job": lambda context: digest_of(context.spec.canonical().get("job")),
    "below": lambda context: _accepted(context.below),
    "accepted": lambda context: _accepted(context.accepted),
    # Declared columns are compared with the contract, so only a table without any depends on the reference.
    "reference": lambda context: (
        context.reference.digest if context.reference and context.undeclared_tables else "none"
    ),
    "previous": _previous,
    "signatures": lambda context: _or_unknown(
        lambda: ", ".join(sha256(data).hexdigest() for data in islice(context.signatures(), BOUND_SIGNATURES))
    ),
    "answers": lambda context: digest_of(
        [*([context.request.signed()] if context.request else []), *map(asdict, context.approvals)]
    ),
}
"""What an answer can depend on. When a value changes, exactly the evidence that is bound to it ends.
None where the answer does not depend on it."""


def _digest(failed: tuple[FailedObject, ...]) -> str:
    return digest_of([asdict(failure) for failure in failed]) if failed else ""


def _accepted(accepted: Accepted | None) -> str:
    return f"{accepted.digest} since {accepted.at}" if accepted else "none"
