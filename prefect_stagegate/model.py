"""The frozen values that one step hands to the next, in the order of the steps.

    SourceObject → PlannedObject → Receipt → Entry, Origin (a Version) → Evidence → Decision → Promotion

Names of versions are in `naming`; what people decide is in `signoff`.

Digests are written with their algorithm: `blake3:<hex>` names an entry's bytes, `sha256:<hex>` names a version,
a spec or a policy. Times are ISO 8601 in UTC. Sizes are bytes.
Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.naming import (
    DIGEST,
    DIGEST_LENGTH,
    LATEST,
    NAME,
    NAME_LENGTH,
    SHORTEST_DIGEST,
    Address,
    check_name,
    is_name,
)
from prefect_stagegate.signoff import (
    Approval,
    ApprovalRequest,
    EvidenceRevocation,
    Identity,
    Revocation,
    Wait,
    Waiver,
    person_key,
)

# The names of `naming` and `signoff` are importable from here too: results that Prefect stored load them so.
__all__ = [
    "DIGEST",
    "DIGEST_LENGTH",
    "LATEST",
    "NAME",
    "NAME_LENGTH",
    "SHORTEST_DIGEST",
    "Address",
    "Approval",
    "ApprovalRequest",
    "EvidenceRevocation",
    "Identity",
    "Revocation",
    "Wait",
    "Waiver",
    "check_name",
    "is_name",
    "person_key",
]


class Verdict:
    """A result that says by a field whether it passed. As any object it would be true whatever the field says."""

    __slots__ = ()
    _asks: ClassVar[str]

    def __init_subclass__(cls, asks: str = "") -> None:
        # A dataclass with slots is made a second time, then without the argument.
        cls._asks = asks or cls._asks

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is neither true nor false: look at its `.{self._asks}`")


# ── sources and plan ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Pin:
    """The value that a source changes when an object's bytes change: an ETag, a version, a modification time."""

    kind: str
    """`etag`, `version`, `generation`, `mtime`, … as the source names it."""
    value: str
    strength: Literal["strong", "weak"]
    """Strong: different bytes can't have the same pin. Weak: they can, though rarely (mtime)."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One object as a source lists it."""

    key: str
    """Path below the source's URL, with forward slashes, never empty."""
    size: int
    pin: Pin
    modified: float | None = None
    """Seconds since the epoch; None when the source doesn't tell."""
    checksums: tuple[tuple[str, str], ...] = ()
    """The source's checksums of the whole object: (`md5` | `sha256` | `crc32c` | …, lowercase hex)."""
    state: str = ""
    """The state of the whole source that it was listed in: a commit, a snapshot, a table's version; mostly empty."""
    away: bool = field(default=False, compare=False)
    """Whether its bytes are on tape or at another site, and must be recalled before they can be read."""


class Action(StrEnum):
    """What a plan does with one object."""

    REUSE = "reuse"
    """The cache has the bytes under the known digest of the pin."""
    FETCH = "fetch"


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """The plan for one listed object."""

    path: str
    """Its path in the dataset."""
    object: SourceObject
    source: int
    """Position of its source in the spec."""
    action: Action
    digest: str = ""
    """The known digest of its bytes, else empty; a fetch of other bytes is refused."""
    doubted: bool = False
    """Whether its bytes are read again although the digest of its pin may be known."""


@dataclass(frozen=True, slots=True)
class CredentialLife:
    """How long the credentials that open a source last."""

    kind: Literal["none", "static", "renewed", "temporary", "unknown"]
    """In this order: none are needed; they don't expire; the client renews them; they expire; it is unknown."""
    what: str
    """Their kind, for people: `a session token`. Never any part of them."""
    ends: float | None = None
    """When they expire, in seconds since the epoch; set for temporary ones."""


# ── transfer and version ────────────────────────────────────────────────────────────────────────────────────────

Proof = Literal["computed", "server", "manifest"]
"""How a digest was proved: only hashed from the bytes; also compared with a checksum of the source; or compared with
the digest of an earlier manifest or of the pin memory."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record of one object whose bytes are in the cache."""

    path: str
    object: SourceObject
    source: int
    digest: str
    proof: Proof
    fetched: int
    """Bytes that came over the wire for it in this run; 0 when the cache had them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a manifest."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of one entry, and how its digest was proved."""

    path: str
    source: str
    """The source's URL, free of credentials."""
    key: str
    size: int
    pin: Pin
    proof: Proof
    digest: str
    modified: float | None = None
    position: int = 0
    """Position of the source in the spec: two sources may have one URL, and differ by their options."""
    state: str = ""
    """The state of the whole source that it was listed in: a commit, a snapshot, a table's version; mostly empty."""


WEAKEST = ("size", "mtime")
"""The weakest kinds of pins, the weakest first."""


@dataclass(frozen=True, slots=True)
class Pins:
    """A summary of the pins of a version's entries: the weakest one, and how many are weak."""

    kind: str
    """The kind of the weakest pin: `mtime`, `etag`, …"""
    strength: Literal["strong", "weak"]
    """The strength of the weakest pin."""
    weak: int = 0
    """Entries whose pin is weak."""

    @classmethod
    def of(cls, counts: Mapping[tuple[str, str], int]) -> Pins | None:
        """Summarize pins; None when there are none.

        Args:
            counts: The number of pins of each kind and strength.

        >>> print(Pins.of({("etag", "strong"): 7, ("mtime", "weak"): 2}))
        mtime, weak for 2
        """
        if not counts:
            return None
        kind, strength = min(counts, key=_strength_key)
        weak = sum(count for (_, each), count in counts.items() if each == "weak")
        return cls(kind, "weak" if strength == "weak" else "strong", weak)

    def __str__(self) -> str:
        return f"{self.kind}, {f'weak for {self.weak}' if self.weak else 'strong'}"


def _strength_key(pin: tuple[str, str]) -> tuple[bool, int, str]:
    """A sort key for kinds and strengths of pins, the weakest first."""
    kind, strength = pin
    return strength != "weak", WEAKEST.index(kind) if kind in WEAKEST else len(WEAKEST), kind


@dataclass(frozen=True, slots=True)
class FailedObject:
    """An object that could not be transferred into the cache."""

    path: str
    """The path that it would have in the dataset."""
    source: str
    """The URL of the source that was tried last, free of credentials."""
    error: str
    """The error's type: `ChecksumMismatch`."""
    reason: str
    """What happened, in a sentence."""

    @classmethod
    def of(cls, error: StagegateError) -> FailedObject:
        """The object that a transfer's error names."""
        return cls(error.object, error.source, type(error).__name__, error.message)


class Direction(StrEnum):
    """What a change of policy does to versions that want to pass."""

    LOOSENED = "loosened"
    """Versions pass that did not before."""
    TIGHTENED = "tightened"
    """Versions fail that passed before."""
    CHANGED = "changed"
    """It can be either, or it is unknown."""


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One difference between two policies."""

    subject: str
    """What it concerns: `gate production`, `contract`, `owners`, `job`, `policy`."""
    difference: str
    """What differs, with both values: `freshness: fail 24h → 72h`."""
    direction: Direction

    def __str__(self) -> str:
        return f"{self.subject}: {self.difference} ({self.direction})"


@dataclass(frozen=True, slots=True)
class PeerTraffic:
    """What another node of the site sent for a version."""

    node: str
    bytes: int
    problem: str = ""
    """Why it was asked no further; empty for a node without a failure."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version that is complete and verified in this node's cache."""

    dataset: str
    digest: str
    path: Path
    files: int
    bytes: int
    bytes_fetched: int = 0
    bytes_reused: int = 0
    new: bool = False
    """Whether the catalog's `latest` had never named the version before."""
    failed: tuple[FailedObject, ...] = ()
    """Objects that are left out of it, as the spec's `max_failed_objects` permits."""
    pins: Pins | None = None
    """The summary of its entries' pins."""
    proposed: tuple[PolicyChange, ...] = ()
    """How the policy in its spec differs from the adopted one, which its gates use."""
    peers: tuple[PeerTraffic, ...] = ()
    """What other nodes of the site sent of it, and which of them failed."""

    @property
    def bytes_from_peers(self) -> int:
        """The fetched bytes that other nodes of the site sent."""
        return sum(peer.bytes for peer in self.peers)

    @property
    def address(self) -> str:
        """What commands take: `nycflights@sha256:…`."""
        return f"{self.dataset}@{self.digest}"


# ── evidence ────────────────────────────────────────────────────────────────────────────────────────────────────


class Outcome(StrEnum):
    """The outcome of a check. Only `PASS`, `WARN`, `WAIVED` and `NOT_APPLICABLE` let a gate accept."""

    PASS = "pass"  # noqa: S105 - an outcome
    WARN = "warn"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    WAIVED = "waived"
    NOT_APPLICABLE = "not-applicable"


class Severity(StrEnum):
    """What an unfavourable outcome does: the gate refuses, reports it, or only notes it."""

    BLOCKING = "blocking"
    WARNING = "warning"
    INFO = "info"


class Scope(StrEnum):
    """What evidence is about; a change of that can end the evidence."""

    VERSION = "version"
    ENVIRONMENT = "environment"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, described precisely enough to repair it."""

    subject: str
    """The file, table, column, source or setting concerned."""
    problem: str
    """What is wrong with it, with the figures."""
    fix: str = ""
    """What to do, as a command where there is one."""
    outcome: Outcome = Outcome.FAIL


@dataclass(frozen=True, slots=True)
class Evidence(Verdict, asks="outcome"):
    """The recorded result of one check, bound to the facts that it depends on."""

    check: str
    outcome: Outcome
    summary: str
    """One line for people, with the figure that decided."""
    owner: str
    """`data`, `ai`, `infra` or `governance`."""
    severity: Severity = Severity.BLOCKING
    scope: Scope = Scope.VERSION
    findings: tuple[Finding, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Figures behind the outcome, JSON values only."""
    binding: Mapping[str, str] = field(default_factory=dict)
    """The facts that the result depends on: `version`, `policy`, `environment`, `target`, `node`, `check_version`."""
    at: str = ""
    """When it was gathered."""
    expires: str = ""
    """When it expires; empty when it is valid as long as its binding."""
    awaiting: tuple[str, ...] = ()
    """Who must answer: groups of `owners`, or `anybody`. Empty unless only a person can answer."""
    seconds: float | None = field(default=None, compare=False)
    """How long the check took; None where it was not measured."""
    ruling: Ruling | None = None
    """Set only in a decision, where the gate did not take the check's result as it came."""
    signatures: tuple[Mapping[str, str], ...] = field(default=(), compare=False)
    """DSSE signatures of the node that gathered it, without their payload."""

    @property
    def full_summary(self) -> str:
        """The summary, followed by the gate's ruling if there is one."""
        return f"{self.summary}; {self.ruling}" if self.ruling else self.summary


@dataclass(frozen=True, slots=True)
class Ruling:
    """A gate's ruling on a result that it did not take as it came. Keeps the check's own result."""

    found: Outcome
    """The check's own outcome."""
    expires: str
    """When the check's own result expires."""
    waiver: Waiver | None = None
    """The waiver that lets a failure pass."""
    passes: int = 0
    """Passes in a row so far, where the gate wants more than one; else 0."""
    wanted: int = 0
    """Passes in a row that the gate wants."""

    def __str__(self) -> str:
        return str(self.waiver) if self.waiver else f"{self.passes} of {self.wanted} passes in a row"


class DecisionOutcome(StrEnum):
    """What a gate decided."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"
    """Nothing failed, but a check that must have a result has none."""
    WAITING = "waiting"
    """Only an approval is missing, and the request is recorded."""


@dataclass(frozen=True, slots=True)
class Decision(Verdict, asks="accepted"):
    """A gate's decision about one version under one policy."""

    dataset: str
    digest: str
    target: str
    outcome: DecisionOutcome
    checks: tuple[Evidence, ...]
    policy: str
    """`sha256:<hex>` of the gate's resolved policy with its contract."""
    environment: str
    """`sha256:<hex>` of the environment's fingerprint."""
    at: str
    expires: str = ""
    """When the first of its evidence expires; empty when none does."""
    requester: str = ""
    adopted: str = ""
    """`sha256:<hex>` of the dataset's adopted policy, which has the gate; empty for a trial, which never counts."""
    after: int = 0
    """The number of the target's last move at the time of the decision; 0 before the first."""

    @property
    def accepted(self) -> bool:
        """Whether the version may be promoted to the target."""
        return self.outcome is DecisionOutcome.ACCEPTED

    @property
    def declined(self) -> str:
        """Who declined the version and why, if nothing else blocks it; else empty."""
        blocking = (Outcome.FAIL, Severity.BLOCKING)
        failed = [evidence for evidence in self.checks if (evidence.outcome, evidence.severity) == blocking]
        if [evidence.check for evidence in failed] != ["approval"]:
            return ""
        answers = failed[0].measured.get("answers", ())
        findings = (finding for finding in failed[0].findings if finding.outcome is Outcome.FAIL)
        reasons = "; ".join(f"{finding.subject} {finding.problem}" for finding in findings)
        return reasons if any(not answer["approved"] for answer in answers) else ""


@dataclass(frozen=True, slots=True)
class ExpectationResult(Verdict, asks="verdict"):
    """What one expectation of a table's suite found."""

    table: str
    expectation: str
    """The suite's own description, or the expectation's type and arguments."""
    column: str
    """The column or columns that it is about; empty when it is about the table."""
    severity: str
    """`critical`, `warning` or `info`."""
    verdict: str
    """`passed`, `failed`, or `errored` when it could not be evaluated."""
    observed: str = ""
    """The figure that decided; empty where rows are judged, and where none is known."""
    rows: int | None = None
    """Rows that were judged one by one; None where none are."""
    refused: int | None = None
    """Rows that it refuses; None where it judges none."""
    examples: tuple[str, ...] = ()
    """Different refused values, five at most; those of personal columns are masked."""
    seconds: float | None = None
    """How long its queries took; of a query for several expectations, its part."""

    @property
    def share(self) -> float | None:
        """Refused rows divided by judged rows, 0.0 to 1.0; None without judged rows."""
        return self.refused / self.rows if self.rows and self.refused is not None else None


@dataclass(frozen=True, slots=True)
class TableResult(Verdict, asks="passed"):
    """What the contract found about one table."""

    name: str
    files: int
    rows: int
    evaluated: int
    """Expectations that were evaluated."""
    failed: int
    passed: bool
    expectations: tuple[ExpectationResult, ...] = ()
    """All expectations of its suite, in the suite's order."""


@dataclass(frozen=True, slots=True)
class Validation(Verdict, asks="passed"):
    """What the contract found about one version."""

    dataset: str
    digest: str
    passed: bool
    tables: tuple[TableResult, ...]
    evidence: tuple[Evidence, ...]
    """Of the contract's checks: `schema`, `nonempty`, `expectations`, `coverage`."""
    seconds: float = 0.0
    """How long running the contract took, without bringing the version to this node."""
    is_trial: bool = False
    """Whether the contract is that of the caller's spec. Then nothing is recorded."""
    policy: str = ""
    """`sha256:<hex>` of the adopted policy that has the contract; empty for a trial, and where none was adopted."""


@dataclass(frozen=True, slots=True)
class Promotion(Verdict, asks="digest"):
    """A ref that was moved."""

    dataset: str
    ref: str
    digest: str
    previous: str
    """The digest that the ref named before; empty when it is new."""
