"""A hash-chained log: numbered records, each with the hash of the one before. Creating the next number appends.

    <prefix>00000001.json  ←  00000002.json  ←  00000003.json
                            before = sha256 of 1   before = sha256 of 2

All reads go through `Log`. It checks that no number is missing, that each entry holds the hash of the one before, and
that the log's own rules (`prove`) accept the entry. The node remembers number and hash of the last entry that was
checked, so a read costs that record and the new ones. A log without the remembered entry is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from prefect_stagegate.catalog.records import Records, decode, encode
from prefect_stagegate.clock import moment
from prefect_stagegate.errors import CorruptRecord, RefConflict
from prefect_stagegate.model import Identity
from prefect_stagegate.model.canonical import sha256_of
from prefect_stagegate.units import count_text

READERS = 8
"""Threads that read a log's entries when many are new to a node: an object store takes 20 ms for each."""

State = Mapping[str, Any]
"""What a log's rules must know about the entries so far; JSON values."""


class LogMemory(Protocol):
    """A node's memory of checked entries. After its loss the next reader checks the whole log again."""

    def note(self, name: str, note: str) -> None:
        """Remember a text under a name."""

    def noted(self, name: str) -> str | None:
        """The text that was remembered under a name; None without one."""


class LogEntry(Protocol):
    """What every entry of a log has."""

    @property
    def seq(self) -> int:
        """The entry's number, from 1, without gaps."""

    @property
    def before(self) -> str:
        """`sha256:<hex>` of the entry before as stored; empty for the first."""

    @property
    def who(self) -> Identity:
        """Who appended it."""

    @property
    def at(self) -> str:
        """When, by the writer's clock."""


E = TypeVar("E", bound=LogEntry)


@dataclass(frozen=True, slots=True)
class Mark:
    """The last entry of a log that was checked, and the rules' state after it."""

    seq: int = 0
    hash: str = ""
    """`sha256:<hex>` of the entry `seq` as stored."""
    state: State = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Log(Generic[E]):
    """One log in a store.

    Whatever reads it raises `CorruptRecord` when the log is damaged, or has lost an entry that this node remembers.

    Args:
        records: The store.
        prefix: The prefix of its entries' keys; ends with a slash.
        kind: The dataclass of its entries.
        name: Its name in messages: `nycflights@production`.
        history: The command that shows it.
        prove: Raises `CorruptRecord` when an entry contradicts those before it, else returns the state after it.
        memory: Where the node remembers which entries it checked; None to check all at each read.
    """

    records: Records
    prefix: str
    kind: type[E]
    name: str
    history: str
    prove: Callable[[E, State], State]
    memory: LogMemory | None

    def head(self) -> E | None:
        """The newest entry, or None when there is none."""
        return self._newest(self._walk())[0]

    def count(self) -> int:
        """How many entries there are."""
        head = self.head()
        return head.seq if head else 0

    @property
    def checked(self) -> int:
        """How many entries this node has checked before."""
        return self._remembered().seq

    def newest(self, keys: Iterable[str] | None = None) -> tuple[E | None, State]:
        """The newest entry, or None when there is none, and the rules' state after it.

        Without `keys` only entries since the last one that this node has checked are listed: it does not notice that an
        earlier one is missing, and costs the same however long the log is.

        Args:
            keys: The keys of all entries, sorted, where the caller has listed them.
        """
        if keys is None and (checked := self.checked) > 1:
            last = [self._key(number) for number in range(1, checked)]
            keys = (*last, *self.records.keys(self.prefix, after=last[-1]))
        return self._newest(self._walk(keys))

    def _newest(self, walked: tuple[list[E], Mark]) -> tuple[E | None, State]:
        entries, mark = walked
        if entries or not mark.seq:
            return (entries[-1] if entries else None), mark.state
        # Nothing is new: the remembered entry is the newest, if it still is what it was.
        entry, digest = self._decoded(mark.seq, self._read(mark.seq))
        self._require_remembered(mark, digest)
        return entry, mark.state

    def before(self, entry: E) -> Iterator[E]:
        """The entries before one, the newest first; each must have the hash that the one after it holds."""
        while entry.seq > 1:
            earlier, digest = self._decoded(entry.seq - 1, self._read(entry.seq - 1))
            if digest != entry.before:
                raise self.corrupt(f"entry {entry.seq} does not follow the one before")
            yield earlier
            entry = earlier

    def entries(self) -> list[E]:
        """All entries, the oldest first."""
        return self.chain()[0]

    def chain(self) -> tuple[list[E], str]:
        """All entries, the oldest first, and the hash of the last one as stored."""
        entries, mark = self._walk(whole=True)
        return entries, mark.hash

    def append(self, entry: E) -> E:
        """Add an entry. Its `seq` must be the number after the head that the caller has seen.

        Raises:
            RefConflict: The number was taken first, or the log's rules refuse the entry; nothing was changed.
        """
        mark = self._walk()[1]
        entry = replace(entry, before=mark.hash)  # type: ignore[type-var]
        hint = f"Look with `{self.history}` and decide again."
        if mark.seq == entry.seq - 1:
            # Before it is written: every reader would refuse the log from this entry on.
            try:
                self.prove(entry, mark.state)
            except CorruptRecord as error:
                raise RefConflict(f"{self.name} can't be changed in this way: {error.message}", hint=hint) from error
            if self.records.create(self._key(entry.seq), encode(entry)):
                return entry
        # Read for the error, which names who was faster.
        winner = self.head()
        raise RefConflict(
            f"{self.name} was changed by {winner.who if winner else 'somebody else'} a moment ago", hint=hint
        )

    def forget(self) -> None:
        """Forget what this node remembers of the log: after the catalog was restored on purpose."""
        if self.memory:
            self.memory.note(self._note, "")

    def corrupt(self, problem: str) -> CorruptRecord:
        """The error for a damaged log."""
        return CorruptRecord(
            f"The log of {self.name} is damaged: {problem}",
            hint=f"Restore {self.prefix} of {self.records.url} from a backup. Until then no entry of it counts.",
        )

    def _walk(self, keys: Iterable[str] | None = None, *, whole: bool = False) -> tuple[list[E], Mark]:
        """Check the entries that are new to this node, or all; returns them, and the mark after the last one."""
        remembered, count = self._remembered(), self._count(keys)
        if remembered.seq > count:
            raise self._contradiction(f"it had {count_text(remembered.seq, 'entry', 'entries')}, and has {count} now")
        entries: list[E] = []
        mark = Mark() if whole else remembered
        for number, data in self._records_of(range(mark.seq + 1, count + 1)):
            entry, digest = self._decoded(number, data)
            if entry.seq != number or entry.before != mark.hash:
                raise self.corrupt(f"entry {number} does not follow the one before")
            try:
                state = self.prove(entry, mark.state)
            except CorruptRecord as error:
                raise self.corrupt(f"entry {number}: {error.message}") from error
            # A walk through the whole log meets the remembered entry again, which must be the same.
            if number == remembered.seq:
                self._require_remembered(remembered, digest)
            entries.append(entry)
            mark = Mark(number, digest, state)
        # Only after all entries were checked: a remembered entry is not checked again.
        if self.memory and mark.seq > remembered.seq:
            self.memory.note(self._note, json.dumps([mark.seq, mark.hash, mark.state]))
        return entries, mark

    def _remembered(self) -> Mark:
        note = self.memory.noted(self._note) if self.memory else None
        return Mark(*json.loads(note)) if note else Mark()

    def _count(self, keys: Iterable[str] | None) -> int:
        """The number of entries, none of which may be missing."""
        listed = self.records.keys(self.prefix) if keys is None else keys
        numbers = [int(key.removeprefix(self.prefix).partition(".")[0]) for key in listed]
        missing = next((number for number, present in enumerate(numbers, start=1) if number != present), 0)
        if missing:
            raise self.corrupt(f"entry {missing} is missing")
        return len(numbers)

    def _records_of(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        # A pool of threads costs more than a few reads.
        if len(numbers) < READERS:
            yield from ((number, self._read(number)) for number in numbers)
            return
        with ThreadPoolExecutor(READERS) as pool:
            yield from zip(numbers, pool.map(self._read, numbers), strict=True)

    def _read(self, number: int) -> bytes:
        data = self.records.read(self._key(number))
        if data is None:
            raise self.corrupt(f"entry {number} is missing")
        return data

    def _decoded(self, number: int, data: bytes) -> tuple[E, str]:
        entry = decode(self.kind, data, self._key(number))
        try:
            moment(entry.at)  # here, or a comparison of times would end the lists of all datasets
        except ValueError as error:
            raise self.corrupt(f"entry {number}: {error}") from error
        return entry, sha256_of(data)

    def _key(self, number: int) -> str:
        return f"{self.prefix}{number:08d}.json"

    @property
    def _note(self) -> str:
        # The URL tells logs of one name in several catalogs apart.
        return f"log {self.records.url} {self.prefix}"

    def _require_remembered(self, mark: Mark, digest: str) -> None:
        if digest != mark.hash:
            raise self._contradiction(f"entry {mark.seq} was {mark.hash[:19]}…, and is {digest[:19]}… now")

    def _contradiction(self, problem: str) -> CorruptRecord:
        return CorruptRecord(
            f"The log of {self.name} contradicts what this node remembers: {problem}",
            hint=f"Somebody changed or replaced it. Restore {self.prefix} in the catalog {self.records.url} from a "
            f"backup. If it was restored or replaced on purpose, run `{self.history} --forget`.",
        )
