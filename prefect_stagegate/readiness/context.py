"""What a check may ask about. Whoever runs checks fills this in; a check only reads it.

Whatever costs something is a function, so that nobody pays for what no check of the gate asks. A function may
raise any `StagegateError`: the check that called it is then inconclusive, with the error's words as the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.environment import UNKNOWN, Environment
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.measures import Measures
from prefect_stagegate.model import (
    Approval,
    CredentialLife,
    Decision,
    Entry,
    EvidenceRevocation,
    FailedObject,
    Finding,
    Identity,
    Origin,
    Pin,
    Request,
    Validation,
    Waiver,
)
from prefect_stagegate.readiness.node.machine import Machine
from prefect_stagegate.readiness.node.nvml import Gpus
from prefect_stagegate.spec import Gate, Spec


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume that holds this node's cache. All figures in bytes."""

    path: Path
    total: int
    free: int
    """What this user may still write."""
    floor: int
    """What the cache leaves free for others."""
    held: int
    """What of this version already lies in the cache."""
    inodes: int = 0
    """How many files it can hold; 0 where the file system makes room for them as needed, as Btrfs does."""
    free_inodes: int = 0
    """How many more this user may create."""


@dataclass(frozen=True, slots=True)
class Integrity:
    """What hashing a version's files on this node again showed."""

    files: int
    bytes: int
    damaged: tuple[Finding, ...] = ()
    """The files that don't hold what the manifest says."""


@dataclass(slots=True)
class Probe:
    """What came of listing one source and reading one range of one object with the identity of this process."""

    url: str
    """The source, free of credentials."""
    object: str = ""
    """The key that was read; empty when the listing had none."""
    read: int = 0
    """Bytes that arrived."""
    seconds: float = 0.0
    """How long listing and reading took."""
    error: StagegateError | None = None
    who: str = ""
    """What kind of credentials opened it; empty when it was not opened."""
    listed: float = 0.0
    """How much of the time went by until the first object was listed."""
    pin: Pin | None = None
    """What fixes the object that was read."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A version that a gate accepted and that its target's ref was moved to."""

    target: str
    digest: str
    at: str
    """When the ref was moved to it."""
    decision: Decision | None = None
    """The decision that the ref's log holds for it."""
    environment: Environment | None = None
    """Where it was decided; None when the attestation does not say."""
    until: str = ""
    """When the ref moved on; empty while it names the version."""


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """One version, on its way to one target, asked about in one environment on one node."""

    dataset: str
    digest: str
    files: int
    bytes: int
    spec: Spec
    gate: Gate
    now: datetime
    """Aware. The same for all checks of one decision."""
    requester: Identity
    """Who asks now."""
    node: str
    """Names this node among those that share the catalog."""
    environment: Environment

    entries: Callable[[], Iterator[Entry]]
    """The version's manifest."""
    origins: Callable[[], Iterator[Origin]]
    """Where its entries came from."""
    failed: Callable[[], tuple[FailedObject, ...]]
    """What could not be staged when the version was made last, and was left out of it."""
    validation: Callable[[], Validation]
    """What the contract found about this version. Runs it at most once, however many checks ask."""
    table_time: Callable[[str], datetime | None]
    """The newest value in the `time` column of a table of the contract, aware; None when it has no rows."""
    probe_source: Callable[[int], Probe]
    """Try the source at this position of the spec's."""
    credential_life: Callable[[int], CredentialLife]
    """How long the credentials of the source at this position of the spec's last."""
    measures: Measures
    """Queries over the version's rows."""
    integrity: Callable[[], Integrity]
    """Hash this node's copy of the version again; a `StagegateError` when there is none."""
    rotten: Callable[[], tuple[str, ...]]
    """Names of what is in this node's quarantine of the version's blobs: it changes when more of them are found."""
    volume: Callable[[], Volume]
    view: Callable[[], Path | None]
    """The folder that holds the version on this node; None where it was not staged."""
    gpus: Callable[[], Gpus]
    """This node's GPUs; none where it has none."""
    machine: Machine
    """Where Linux tells of this node."""
    resolvable: Callable[[str], bool]
    """Whether the catalog still has the manifest of a version of this dataset."""

    allowed_hosts: tuple[str, ...] = ()
    """Hosts that a link may lead to whatever their address is."""
    adopted: str = ""
    """`sha256:<hex>` of the adopted policy that the gate is of; empty for a trial under another one."""
    after: int = 0
    """The number of the target's last move; 0 before the first."""
    below: Accepted | None = None
    """This version, if the gate that this one extends let it in and did not take it back; else what that gate's ref
    names now. None when there is no such gate, or it let no version in."""
    accepted: Accepted | None = None
    """Where a rollback would lead: the newest version that this target accepted, other than the one asked about
    and not withdrawn. None before the second promotion."""
    reference: Accepted | None = None
    """What the columns of tables that declare none are compared with: what this target named before it let this version
    in, or names now. None for the first version."""
    request: Request | None = None
    """The recorded request to promote exactly this version under exactly this policy."""
    approvals: tuple[Approval, ...] = ()
    """The answers to it, the oldest first."""
    waivers: tuple[Waiver, ...] = ()
    """All that were ever granted for this version at this target, also those that ended."""
    revocations: tuple[EvidenceRevocation, ...] = ()
    """Of evidence about this version, the oldest first."""

    @property
    def undeclared_tables(self) -> tuple[str, ...]:
        """The tables that the contract declares no columns of: they are compared with the accepted version's."""
        return tuple(name for name, table in self.spec.contract.tables.items() if not table.columns)

    @property
    def asker(self) -> Identity:
        """Who asks for the promotion: whoever the recorded request names, else who asks now."""
        return self.request.requester if self.request else self.requester

    @property
    def target(self) -> str:
        """Where the version is going."""
        return self.gate.target

    @property
    def address(self) -> str:
        """The version as commands take it: `nycflights@sha256:…`."""
        return f"{self.dataset}@{self.digest}"

    def addresses(self, role: str) -> tuple[str, ...]:
        """Whom `owners` names for a role: one address, or several with commas between them."""
        return addresses_of(self.spec.owners, role)


def addresses_of(owners: Mapping[Any, str], role: str) -> tuple[str, ...]:
    """The addresses that a spec's `owners` give for a role."""
    addresses = next((text for known, text in owners.items() if known == role), "")
    return tuple(address.strip() for address in addresses.split(",") if address.strip())


def _read(ask: Callable[[], str]) -> str:
    """What a record says; one that can't be read must not keep the other checks from being asked."""
    try:
        return ask() or "none"
    except StagegateError:
        return UNKNOWN


BINDINGS: dict[str, Callable[[CheckContext], str]] = {
    "version": lambda context: context.digest,
    "environment": lambda context: context.environment.fingerprint,
    "target": lambda context: context.target,
    "node": lambda context: context.node,
    "rotten": lambda context: _read(lambda: ", ".join(context.rotten())),
    "failed": lambda context: _read(lambda: _digest(context.failed())),
    "policy": lambda context: context.gate.policy,
    "spec": lambda context: context.spec.digest,
    "owners": lambda context: digest_of(dict(context.spec.owners)),
    "license": lambda context: context.spec.license or "none",
    "runbook": lambda context: context.spec.runbook or "none",
    "contract": lambda context: digest_of(context.spec.canonical().get("contract")),
    "sources": lambda context: digest_of(context.spec.canonical()["sources"]),
    "job": lambda context: digest_of(context.spec.canonical().get("job")),
    "below": lambda context: _accepted(context.below),
    "accepted": lambda context: _accepted(context.accepted),
    "reference": lambda context: (
        context.reference.digest if context.reference and context.undeclared_tables else "none"
    ),
    "answers": lambda context: digest_of(
        [asdict(record) for record in (context.request, *context.approvals) if record]
    ),
}
"""What an answer can depend on. When the value changes, the evidence that is bound to it ends, and no other."""


def _digest(failed: tuple[FailedObject, ...]) -> str:
    return digest_of([asdict(failure) for failure in failed]) if failed else ""


def _accepted(accepted: Accepted | None) -> str:
    return f"{accepted.digest} since {accepted.at}" if accepted else "none"
