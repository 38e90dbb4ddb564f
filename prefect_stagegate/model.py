"""The frozen values that one step hands to the next, in the order of the steps.

    SourceObject → PlannedObject → Receipt → Entry, Origin (a Version) → Evidence → Decision → Promotion

Digests are written with their algorithm: `blake3:<hex>` names an entry's bytes, `sha256:<hex>` names a version,
a spec or a policy. Times are ISO 8601 in UTC. Sizes are bytes.
Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from prefect_stagegate.errors import StagegateError, UnknownRef, UsageError

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NAME_LENGTH = 63
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGITS = re.compile(r"[0-9a-f]*")
DIGEST_LENGTH = 64
"""Hexadecimal digits of a version's digest."""
SHORTEST_DIGEST = 12
"""The fewest hexadecimal digits of an abbreviated digest; as many are printed."""
_STEPS = re.compile(r"[0-9]{0,6}")
LATEST = "latest"
"""The ref that staging moves. Every other ref is a target's, and moves only by promotion and rollback."""


def is_name(name: str) -> bool:
    """Whether `name` may name a dataset or ref."""
    return len(name) <= NAME_LENGTH and NAME.fullmatch(name) is not None


def check_name(kind: str, name: str) -> str:
    """Return `name` when it may name a dataset or ref, else raise `UsageError`."""
    if not is_name(name):
        raise UsageError(
            f"{name!r} is not a {kind}'s name",
            hint=f"Use lowercase letters and digits, joined by single dashes, at most {NAME_LENGTH} characters.",
        )
    return name


@dataclass(frozen=True, slots=True)
class Address:
    """A dataset, and the ref or digest that picks one of its versions: `nycflights@production`."""

    dataset: str
    ref: str = ""
    """A ref's name; the name and how many versions back (`production~1`); a digest, `sha256:` and all of its digits or
    the first 12 at least; or empty when the user named none."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `DATASET`, `DATASET@REF`, `DATASET@REF~1`, `DATASET@sha256:<hex>` or `DATASET@sha256-<hex>`.

        A digest may be abbreviated, with or without an ellipsis at its end.

        Raises:
            UsageError: The dataset, ref or digest is not well formed.
        """
        dataset, at, ref = text.partition("@")
        check_name("dataset", dataset)
        if not at:
            return cls(dataset)
        if ref.startswith(("sha256:", "sha256-")):
            return cls(dataset, f"sha256:{_read_digits(text, ref[7:])}")
        name, tilde, steps = ref.partition("~")
        check_name("ref", name)
        if not _STEPS.fullmatch(steps):
            raise UsageError(
                f"{text!r} names no version",
                hint=f"`{dataset}@{name}~2` is what `{name}` named two versions before; write 6 digits at most.",
            )
        back = int(steps or 1) if tilde else 0
        return cls(dataset, f"{name}~{back}" if back else name)

    @property
    def digest(self) -> str:
        """The digest when the address has one in full, else empty."""
        return self.ref if DIGEST.fullmatch(self.ref) else ""

    @property
    def abbreviation(self) -> str:
        """The digest when the address has one that is not in full, else empty."""
        return self.ref if self.ref.startswith("sha256:") and not self.digest else ""

    @property
    def steps(self) -> tuple[str, int]:
        """The ref's name, and how many versions back from what it names now; for addresses without a digest."""
        name, _, back = self.ref.partition("~")
        return name, int(back or 0)

    @property
    def is_version(self) -> bool:
        """Whether it picks a version by a digest or by counting back, not only by a ref's name."""
        return ":" in self.ref or "~" in self.ref

    @property
    def target(self) -> str:
        """The target that the address names; empty for `latest` and for versions."""
        return "" if self.is_version or self.ref == LATEST else self.ref

    def complete(self, digests: Iterable[str], place: str, hint: str) -> str:
        """The digest that begins with the address's abbreviated digest.

        Args:
            digests: The digests of the dataset's known versions.
            place: Where they are known, for people.
            hint: What to do when none matches.

        Raises:
            UnknownRef: None matches, or several do; the error lists these.
        """
        # Somebody may have put other files beside the versions.
        matching = sorted(digest for digest in digests if digest.startswith(self.ref) and DIGEST.fullmatch(digest))
        if not matching:
            raise UnknownRef(f"{place} has no version {self.ref}… of {self.dataset}", hint=hint, dataset=self.dataset)
        if len(matching) > 1:
            candidates = ", ".join(matching)
            raise UnknownRef(
                f"{self.ref}… is ambiguous: it names two or more versions of {self.dataset}",
                hint=f"Write more digits. It could be: {candidates}.",
                dataset=self.dataset,
            )
        return matching[0]

    def counted(self, resolve: Callable[[Address], str]) -> Address:
        """The address by digest, if it counts versions back, which takes the catalog's log; else the address itself."""
        return Address(self.dataset, resolve(self)) if "~" in self.ref else self

    def __str__(self) -> str:
        return f"{self.dataset}@{self.ref}" if self.ref else self.dataset


def _read_digits(text: str, written: str) -> str:
    """The digits of a digest, full or abbreviated, without the ellipsis that may end it."""
    digits = written.removesuffix("…").removesuffix("...")
    if not _DIGITS.fullmatch(digits) or len(digits) > DIGEST_LENGTH:
        raise UsageError(
            f"{text!r} names no version", hint=f"A digest is sha256: and {DIGEST_LENGTH} hexadecimal digits."
        )
    if len(digits) < SHORTEST_DIGEST:
        raise UsageError(
            f"The digest in {text!r} is too short",
            hint=f"Write {SHORTEST_DIGEST} hexadecimal digits at least: fewer may soon name another version too.",
        )
    return digits


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


class Receipts(tuple[Receipt, ...]):
    """The result of a transfer: a receipt for each object that is in the cache."""

    failures: tuple[StagegateError, ...] = ()
    """The errors of the other objects, which may be left out."""


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
class Evidence:
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
class Decision:
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
class ExpectationResult:
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
class TableResult:
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
class Validation:
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


@dataclass(frozen=True, slots=True)
class Promotion:
    """A ref that was moved."""

    dataset: str
    ref: str
    digest: str
    previous: str
    """The digest that the ref named before; empty when it is new."""


def person_key(name: str) -> str:
    """A key that is equal for all spellings of a person's name: it ignores case, spaces and invisible characters.

    >>> person_key(" Ines@Example.org\u200b") == person_key("ines@example.org")
    True
    """
    spelled = " ".join(unicodedata.normalize("NFKC", name).split())
    return "".join(letter for letter in spelled if unicodedata.category(letter) not in ("Cc", "Cf")).strip().casefold()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who did something, and the source of the name: only a signature proves it."""

    name: str
    source: Literal["os-user", "declared", "prefect-form", "prefect-actor", "signature"]
    """`declared` and `prefect-form`: somebody wrote the name into a setting or a flag, or into Prefect's form."""

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A recorded request to promote a version, which waits for approval."""

    id: str
    dataset: str
    digest: str
    """The requested version: an answer approves no other."""
    target: str
    policy: str
    """`sha256:<hex>` of the policy of the decision. An answer is valid only under that policy."""
    requester: Identity
    at: str
    after: int | None = None
    """The number of the target's last move then, 0 before the first. Once the target moves to another version, answers
    no longer count. None where it isn't recorded: then answers count wherever the target is."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of a waiver before its time."""

    who: Identity
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiver:
    """A person's temporary acceptance of one check's failure, for one version at one target."""

    id: str
    dataset: str
    digest: str
    """The only version that it is valid for."""
    target: str
    check: str
    parameters: str
    """`sha256:<hex>` of the check's parameters then. It is not valid for other thresholds."""
    reason: str
    approver: Identity
    """Who is responsible for it; never the requester."""
    requester: str
    """Who had requested the gate's decision when it was granted."""
    at: str
    until: str
    """When it ends, 30 days after `at` at most."""
    revoked: Revocation | None = None

    def __str__(self) -> str:
        return f"waived by {self.approver} until {self.until[:16]}Z: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRevocation:
    """The end of one check's evidence about one version. Later evidence counts."""

    dataset: str
    digest: str
    check: str
    target: str = ""
    """Ends only evidence that is bound to this target; empty for all of the check's evidence."""
    reason: str
    who: Identity
    at: str
    ahead: tuple[str, ...] = ()
    """Times after `at` of evidence that was on record before: its node's clock was ahead."""

    def __str__(self) -> str:
        return f"revoked by {self.who} {self.at[:16]}Z: {self.reason}"

    @property
    def about(self) -> str:
        """The evidence that it ends: `schema of nycflights@sha256:…`."""
        target = f" at {self.target}" if self.target else ""
        return f"{self.check}{target} of {self.dataset}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Wait:
    """A flow run that is suspended until a request is answered."""

    request: str
    """The request's id."""
    flow_run: str
    """The run's id in Prefect."""
    until: str
    """When the run gives up."""
    at: str


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's answer to a request."""

    request: str
    """The request's id."""
    approver: Identity
    approved: bool
    """False when the version was declined."""
    reason: str
    at: str
    envelope: Mapping[str, Any] = field(default_factory=dict)
    """The DSSE envelope around the answer, when it is signed."""
