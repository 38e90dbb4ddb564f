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
"""Hexadecimal digits that an abbreviated digest has at least, as many as are printed."""
_STEPS = re.compile(r"[0-9]{0,6}")
LATEST = "latest"
"""The ref that staging moves; every other ref is a target's and moves only by promotion and rollback."""


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
    """A dataset with what picks one of its versions: `nycflights@production`."""

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
        """Whether it picks a version by more than a ref's name: by a digest, or by counting back."""
        return ":" in self.ref or "~" in self.ref

    @property
    def target(self) -> str:
        """The target that the address names, else empty: `latest` is none, nor is a version."""
        return "" if self.is_version or self.ref == LATEST else self.ref

    def complete(self, digests: Iterable[str], place: str, hint: str) -> str:
        """The one of `digests` that begins with the address's abbreviated digest.

        Args:
            digests: The dataset's versions that are known.
            place: Where they are known, for people.
            hint: What to do when none begins so.

        Raises:
            UnknownRef: None begins so, or several do; these are listed.
        """
        # A file that somebody put beside the versions is none of them.
        matching = sorted(one for one in digests if one.startswith(self.ref) and DIGEST.fullmatch(one))
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
        """The address by digest where it counts versions back, which only a catalog's log can tell, else itself."""
        return Address(self.dataset, resolve(self)) if "~" in self.ref else self

    def __str__(self) -> str:
        return f"{self.dataset}@{self.ref}" if self.ref else self.dataset


def _read_digits(text: str, written: str) -> str:
    """Give the digits of a digest, full or abbreviated, without the ellipsis that may end it."""
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
    """What fixes an object at its source, so that a change can't go unseen."""

    kind: str
    """`etag`, `version`, `generation`, `mtime`, … as the source names it."""
    value: str
    strength: Literal["strong", "weak"]
    """Strong: different bytes can't carry the same pin. Weak: they can, though nobody means them to (mtime)."""

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
    """Seconds since the epoch, when the source tells."""
    checksums: tuple[tuple[str, str], ...] = ()
    """What the source offers to check the whole object by: (`md5` | `sha256` | `crc32c` | …, lowercase hex)."""
    state: str = ""
    """What it was listed in, where the source has states as a whole: a commit, a snapshot, a table's version."""
    away: bool = field(default=False, compare=False)
    """Whether its bytes are kept elsewhere and must be brought back before they can be read, as the source tells."""


class Action(StrEnum):
    """What a plan says about one object."""

    REUSE = "reuse"
    """The bytes are in the cache under a digest that this pin is known to have."""
    FETCH = "fetch"


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """What is to happen to one listed object."""

    path: str
    """Where it stands in the dataset."""
    object: SourceObject
    source: int
    """Position of its source in the spec."""
    action: Action
    digest: str = ""
    """What its bytes must hash to, when that is known; a fetch that gives anything else is refused."""
    doubted: bool = False
    """Whether what is remembered of its pin is not believed, so that its bytes are read again."""


@dataclass(frozen=True, slots=True)
class CredentialLife:
    """How long the credentials that open a source last."""

    kind: Literal["none", "static", "renewed", "temporary", "unknown"]
    """None are needed; they have no end; the client renews them by itself; they end; nobody here can tell."""
    what: str
    """What they are, for people: `a session token`. Never anything of them."""
    ends: float | None = None
    """Seconds since the epoch; set for temporary ones."""


# ── transfer and version ────────────────────────────────────────────────────────────────────────────────────────

Proof = Literal["computed", "server", "manifest"]
"""How a digest was proved: hashed from the bytes only, also against a checksum of the source's, or against a
digest that an earlier manifest or memory named."""


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
    """Where one entry came from and how its digest was proved."""

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
    """Where the source stood in the spec: two sources may have one URL, and differ by their options."""
    state: str = ""
    """The state of the whole source that it was listed in: a commit, a snapshot, a table's version; mostly empty."""


WEAKEST = ("size", "mtime")
"""The kinds of pins that hold least, the weakest first."""


@dataclass(frozen=True, slots=True)
class Pins:
    """What fixes a version's entries at their sources, told by the weakest of them."""

    kind: str
    """Of the weakest pin: `mtime`, `etag`, …"""
    strength: Literal["strong", "weak"]
    """Of the weakest pin."""
    weak: int = 0
    """Entries whose pin is weak."""

    @classmethod
    def of(cls, counts: Mapping[tuple[str, str], int]) -> Pins | None:
        """Tell the weakest of some pins; None when there is none.

        Args:
            counts: How many there are of each kind and strength.

        >>> print(Pins.of({("etag", "strong"): 7, ("mtime", "weak"): 2}))
        mtime, weak for 2
        """
        if not counts:
            return None
        kind, strength = min(counts, key=_hold)
        weak = sum(count for (_, each), count in counts.items() if each == "weak")
        return cls(kind, "weak" if strength == "weak" else "strong", weak)

    def __str__(self) -> str:
        return f"{self.kind}, {f'weak for {self.weak}' if self.weak else 'strong'}"


def _hold(pin: tuple[str, str]) -> tuple[bool, int, str]:
    """What orders kinds and strengths of pins, the weakest first."""
    kind, strength = pin
    return strength != "weak", WEAKEST.index(kind) if kind in WEAKEST else len(WEAKEST), kind


@dataclass(frozen=True, slots=True)
class FailedObject:
    """An object that could not be brought into the cache."""

    path: str
    """Where it would have stood in the dataset."""
    source: str
    """The URL of the source that was asked last, free of credentials."""
    error: str
    """The error's type: `ChecksumMismatch`."""
    reason: str
    """What happened, in a sentence."""

    @classmethod
    def of(cls, error: StagegateError) -> FailedObject:
        """The object that an error of a transfer speaks of."""
        return cls(error.object, error.source, type(error).__name__, error.message)


class Receipts(tuple[Receipt, ...]):
    """What came of a transfer: a receipt for each object that is in the cache."""

    failures: tuple[StagegateError, ...] = ()
    """What the others met, which may be left out."""


class Direction(StrEnum):
    """What a change of policy does to versions that want to pass."""

    LOOSENED = "loosened"
    """Versions pass that did not before."""
    TIGHTENED = "tightened"
    """Versions fail that passed before."""
    CHANGED = "changed"
    """It can be either, or nobody can tell."""


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One difference between two policies."""

    subject: str
    """What it concerns: `gate production`, `contract`, `owners`, `job`, `policy`."""
    difference: str
    """What is other, with both values: `freshness: fail 24h → 72h`."""
    direction: Direction

    def __str__(self) -> str:
        return f"{self.subject}: {self.difference} ({self.direction})"


@dataclass(frozen=True, slots=True)
class Version:
    """A version that lies complete and verified in this node's cache."""

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
    """What the spec's `max_failed_objects` let be left out of it."""
    pins: Pins | None = None
    """What its entries are fixed by at their sources."""
    proposed: tuple[PolicyChange, ...] = ()
    """How the policy in its spec differs from the adopted one, which it is judged by."""

    @property
    def address(self) -> str:
        """What commands take: `nycflights@sha256:…`."""
        return f"{self.dataset}@{self.digest}"


# ── evidence ────────────────────────────────────────────────────────────────────────────────────────────────────


class Outcome(StrEnum):
    """What came out of a check. Only `PASS`, `WARN`, `WAIVED` and `NOT_APPLICABLE` let a gate accept."""

    PASS = "pass"  # noqa: S105 - an outcome
    WARN = "warn"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    WAIVED = "waived"
    NOT_APPLICABLE = "not-applicable"


class Severity(StrEnum):
    """What an unfavourable outcome does to the gate: refuse, be reported, or be noted."""

    BLOCKING = "blocking"
    WARNING = "warning"
    INFO = "info"


class Scope(StrEnum):
    """What evidence speaks about, and so whose state can end it."""

    VERSION = "version"
    ENVIRONMENT = "environment"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, precise enough to mend it."""

    subject: str
    """The file, table, column, source or setting concerned."""
    problem: str
    """What is wrong with it, with the figures."""
    fix: str = ""
    """What to do, as a command where there is one."""
    outcome: Outcome = Outcome.FAIL


@dataclass(frozen=True, slots=True)
class Evidence:
    """The recorded answer of one check, bound to what it was asked about."""

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
    """What the answer depends on: `version`, `policy`, `environment`, `target`, `node`, `check_version`."""
    at: str = ""
    """When it was gathered."""
    expires: str = ""
    """When it goes stale; empty when it holds as long as its binding."""
    awaiting: tuple[str, ...] = ()
    """Whose answer it waits for: groups of `owners`, or `anybody`. Empty unless only a person can answer."""
    seconds: float | None = field(default=None, compare=False)
    """How long it took to find out; None where nobody measured it."""
    ruling: Ruling | None = None
    """Set in a decision only, and only where the gate did not take the answer as it came."""

    @property
    def told(self) -> str:
        """The summary, and after it what the gate made of it."""
        return f"{self.summary}; {self.ruling}" if self.ruling else self.summary


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a gate made of an answer that it did not take as it came; what the check itself said is kept here."""

    found: Outcome
    """The check's own outcome."""
    expires: str
    """The end of the check's own answer."""
    waiver: Waiver | None = None
    """What lets a failure through."""
    passes: int = 0
    """How often in a row it passed, where the gate wants more than one pass; else 0."""
    wanted: int = 0
    """How often it has to."""

    def __str__(self) -> str:
        return str(self.waiver) if self.waiver else f"{self.passes} of {self.wanted} passes in a row"


class DecisionOutcome(StrEnum):
    """What a gate decided."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"
    """Nothing failed, but something that must be known is not."""
    WAITING = "waiting"
    """All that is missing is an approval, and the request is recorded."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A gate's answer about one version under one policy."""

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
    """When the first of its evidence goes stale; empty when none does."""
    requester: str = ""
    adopted: str = ""
    """`sha256:<hex>` of the dataset's adopted policy, which the gate is of; empty for a trial, which nothing counts."""
    after: int = 0
    """The number of the target's last move when it was decided; 0 before the first."""

    @property
    def accepted(self) -> bool:
        """Whether the version may go where the gate leads."""
        return self.outcome is DecisionOutcome.ACCEPTED

    @property
    def declined(self) -> str:
        """Who declined the version and why, where nothing else keeps it back; else empty."""
        failed = [one for one in self.checks if (one.outcome, one.severity) == (Outcome.FAIL, Severity.BLOCKING)]
        if [one.check for one in failed] != ["approval"]:
            return ""
        answers = failed[0].measured.get("answers", ())
        said = (f"{one.subject} {one.problem}" for one in failed[0].findings if one.outcome is Outcome.FAIL)
        return "; ".join(said) if any(not one["approved"] for one in answers) else ""


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
    """Whether the contract is of the asker's own spec: then nothing is recorded."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A ref that was moved."""

    dataset: str
    ref: str
    digest: str
    previous: str
    """The digest that the ref named before; empty when it is new."""


def person_key(name: str) -> str:
    """What makes two spellings of a name one person: capitals, spaces and what can't be seen make no second one.

    >>> person_key(" Ines@Example.org\u200b") == person_key("ines@example.org")
    True
    """
    spelled = " ".join(unicodedata.normalize("NFKC", name).split())
    return "".join(one for one in spelled if unicodedata.category(one) not in ("Cc", "Cf")).strip().casefold()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who did something, and how we know: only a signature proves it."""

    name: str
    source: Literal["os-user", "declared", "prefect-form", "prefect-actor", "signature"]
    """`declared` and `prefect-form`: somebody wrote the name into a setting or a flag, or into Prefect's form."""

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"


@dataclass(frozen=True, slots=True)
class Request:
    """A recorded wish to promote a version, which waits for approval."""

    id: str
    dataset: str
    digest: str
    """The version that was asked for, and so the only one that an answer can let through."""
    target: str
    policy: str
    """`sha256:<hex>` of the policy that the version was judged under; an answer ends with it."""
    requester: Identity
    at: str
    after: int | None = None
    """The number of the target's last move then, 0 before the first: once the target moved on to another version,
    answers no longer count. None where it isn't recorded; such answers count wherever the target is."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of a waiver before its time."""

    who: Identity
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiver:
    """Somebody answers for one failure of one check, for one version at one target, for a while."""

    id: str
    dataset: str
    digest: str
    """The only version that it lets through."""
    target: str
    check: str
    parameters: str
    """`sha256:<hex>` of the check's parameters then: other thresholds are another question."""
    reason: str
    approver: Identity
    """Who answers for it; never who asked the gate."""
    requester: str
    """Who had asked the gate when it was granted."""
    at: str
    until: str
    """When it ends, 30 days after `at` at most."""
    revoked: Revocation | None = None

    def __str__(self) -> str:
        return f"waived by {self.approver} until {self.until[:16]}Z: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRevocation:
    """The end of what one check had found out about one version; what is found out after it counts."""

    dataset: str
    digest: str
    check: str
    target: str = ""
    """Only evidence that is bound to this target; empty for all of the check's."""
    reason: str
    who: Identity
    at: str
    ahead: tuple[str, ...] = ()
    """Times after `at` of evidence that was on record by then: the clock of its node was ahead."""

    def __str__(self) -> str:
        return f"revoked by {self.who} {self.at[:16]}Z: {self.reason}"

    @property
    def about(self) -> str:
        """What it ends: `schema of nycflights@sha256:…`."""
        there = f" at {self.target}" if self.target else ""
        return f"{self.check}{there} of {self.dataset}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Wait:
    """A flow run that is suspended until a request is answered."""

    request: str
    """The request's id."""
    flow_run: str
    """The run's id in Prefect."""
    until: str
    """When it gives up."""
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
