"""What a staging passes on: objects as a source lists them, as planned, received and kept, and their version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar, dataclass_transform

from prefect_stagegate.errors import StagegateError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make a dataclass of fields that never change: type checkers refuse an assignment.

    Python itself does not: a frozen one takes 2.5 times as long to make, and a staging makes 14 for each object.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@value
class Pin:
    """The value that a source changes when an object's bytes change: an ETag, a version, a modification time."""

    kind: str
    """`etag`, `version`, `generation`, `mtime`, … as the source names it."""
    value: str
    strength: Literal["strong", "weak"]
    """Strong: different bytes can't have the same pin. Weak: they can, though rarely (mtime)."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@value
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


@value
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


Rehash = Literal["always", "when_weak", "never"]
"""Which objects a staging reads again although it remembers their pin."""


def dataset_path(into: str, key: str) -> str:
    """An object's path in the dataset.

    >>> dataset_path("flights/", "2013-01.parquet"), dataset_path("", "planes.csv")
    ('flights/2013-01.parquet', 'planes.csv')
    """
    return f"{into.rstrip('/')}/{key}" if into else key


def plan_object(
    listed: SourceObject, path: str, source: int, remembered: str | None, *, held: bool, rehash: Rehash = "never"
) -> PlannedObject:
    """Plan one object.

    Args:
        listed: The object as its source lists it.
        path: Its path in the dataset, which `check_objects` accepted.
        source: Position of its source in the spec.
        remembered: The known digest of its pin, if any.
        held: Whether the cache holds a blob of that digest.
        rehash: Its source's setting.
    """
    # Such an object is read again even if the digest of its pin is known.
    if rehash == "always" or (rehash == "when_weak" and listed.pin.strength == "weak"):
        return PlannedObject(path, listed, source, Action.FETCH, doubted=True)
    action = Action.REUSE if remembered and held else Action.FETCH
    return PlannedObject(path, listed, source, action, remembered or "")


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


@value
class Receipt:
    """The record of one object whose bytes are in the cache."""

    path: str
    object: SourceObject
    source: int
    digest: str
    proof: Proof
    fetched: int
    """Bytes that came over the wire for it in this run; 0 when the cache had them."""


@value
class Entry:
    """One row of a manifest."""

    path: str
    size: int
    digest: str


@value
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
