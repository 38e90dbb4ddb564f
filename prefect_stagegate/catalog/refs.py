"""The log of a ref: numbered entries, each holding the hash of the one before. Creating the next moves the ref."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prefect_stagegate.catalog.codec import decode, encode
from prefect_stagegate.catalog.records import Records
from prefect_stagegate.errors import CorruptRecord, RefConflict
from prefect_stagegate.model import Identity


class RefAction(StrEnum):
    """Why a ref was moved."""

    STAGE = "stage"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    WITHDRAW = "withdraw"
    """Nothing moves: a version that the ref names, or named, is taken back."""


@dataclass(frozen=True, slots=True)
class RefEntry:
    """One move of a ref."""

    seq: int
    """Counts from 1, without gaps."""
    dataset: str
    ref: str
    digest: str
    """The version that the ref names from here on."""
    action: RefAction
    who: Identity
    at: str
    reason: str = ""
    withdrawn: str = ""
    """A version that this entry takes back: it isn't promoted again by a schedule."""
    attestation: Mapping[str, Any] = field(default_factory=dict)
    """The in-toto Statement that allowed the move, or that took the version back; empty for `latest`."""
    before: str = ""
    """`sha256:<hex>` of the entry before as stored; empty for the first."""


def withdrawn(entries: Sequence[RefEntry]) -> dict[str, RefEntry]:
    """The versions that a log took back and did not let in again, each with the entry that took it back."""
    taken: dict[str, RefEntry] = {}
    for entry in entries:
        if entry.action is not RefAction.WITHDRAW:
            taken.pop(entry.digest, None)
        if entry.withdrawn:
            taken[entry.withdrawn] = entry
    return taken


def moves(entries: Sequence[RefEntry]) -> list[RefEntry]:
    """The entries that moved the ref, and so let their version in."""
    return [entry for entry in entries if entry.action is not RefAction.WITHDRAW]


class RefLog:
    """One ref's log in the store."""

    def __init__(self, records: Records, dataset: str, ref: str) -> None:
        self._records = records
        self.dataset = dataset
        self.ref = ref
        self._prefix = f"datasets/{dataset}/refs/{ref}/"

    def head(self) -> RefEntry | None:
        """The newest entry, or None when the ref was never moved."""
        keys = list(self._records.keys(self._prefix))
        return self._load(keys[-1])[0] if keys else None

    def entries(self) -> list[RefEntry]:
        """All entries, the oldest first, with the chain of hashes checked.

        Raises:
            CorruptRecord: An entry is unreadable, missing, or was changed after it was written.
        """
        return self.chain()[0]

    def chain(self) -> tuple[list[RefEntry], str]:
        """All entries as `entries` gives them, and the hash of the last one as stored.

        Raises:
            CorruptRecord: As for `entries`.
        """
        entries: list[RefEntry] = []
        before = ""
        for number, key in enumerate(self._records.keys(self._prefix), start=1):
            entry, digest = self._load(key)
            if entry.seq != number or entry.before != before:
                raise self._corrupt(f"entry {number} of the log does not follow the one before")
            entries.append(entry)
            before = digest
        return entries, before

    def append(self, entry: RefEntry) -> RefEntry:
        """Move the ref. `entry.seq` must be one more than the head's that the caller decided on.

        Raises:
            RefConflict: Somebody else wrote that number first; nothing was changed.
        """
        before = self._load(self._key(entry.seq - 1))[1] if entry.seq > 1 else ""
        entry = RefEntry(**{name: getattr(entry, name) for name in RefEntry.__slots__} | {"before": before})
        if not self._records.create(self._key(entry.seq), encode(entry)):
            winner = self.head()
            raise RefConflict(
                f"{self.dataset}@{self.ref} was moved by {winner.who if winner else 'somebody else'} a moment ago",
                hint=f"Look with `stagegate history {self.dataset}@{self.ref}` and decide again.",
                dataset=self.dataset,
            )
        return entry

    def _key(self, seq: int) -> str:
        return f"{self._prefix}{seq:08d}.json"

    def _load(self, key: str) -> tuple[RefEntry, str]:
        data = self._records.read(key)
        if data is None:
            raise self._corrupt(f"{key} is missing")
        return decode(RefEntry, data, key), "sha256:" + hashlib.sha256(data).hexdigest()

    def _corrupt(self, what: str) -> CorruptRecord:
        return CorruptRecord(
            f"The log of {self.dataset}@{self.ref} is damaged: {what}",
            hint="Restore the catalog's refs from a backup; no ref is believed until then.",
            dataset=self.dataset,
        )
