"""Bytes on their way into the cache: one file an object, claimed by flock, and a journal for objects of many parts.

    ingest/<claim>          0600 while it is written, 0444 from its commit until the claim is dropped
    ingest/<claim>.parts    `part-size size time`: when the first part was asked for, in seconds since the epoch; then
                            one line for each part that is on the file: `upto index blake3`, the digest of all bytes
                            from the first to this part's last, or `part index blake3`, of it alone

A claim ends with its holder, whatever kills the holder. The next one to take it resumes the file: recorded parts are
read back and checked against their digest before they count. `upto` costs nothing, because a part that comes in its
turn is hashed anyway; `part` is for parts that came too early. Where flock does nothing, two stagers may write one file
at once: then they write the same bytes, or their digests are wrong and nothing is committed.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.cache.layout import PRIVATE_FILE, cache_error
from prefect_stagegate.cache.leases import is_locked

PARTS = ".parts"
"""The suffix of journals' names."""
_TRIES = 3
"""How often taking a claim is tried while it changes hands."""
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class _MovedOn(Exception):
    """Another file is at a claim's path by now."""


class Claim:
    """A claimed file in the ingest folder. `take` one; `drop` or `keep` it at the end.

    Paths are plain strings here: every object has a claim, and `Path` would cost as much as the system calls.

    Attributes:
        path: The file's path.
        file: Its descriptor, open for reading and writing.
        size: Bytes that an interrupted run left in the file.
        journaled: Whether a journal stands beside it.
    """

    __slots__ = ("file", "journaled", "path", "size")

    def __init__(self, path: str, file: int, size: int) -> None:
        self.path = path
        self.file = file
        self.size = size
        # Only a claim with a journal keeps its bytes for the next holder.
        self.journaled = size > 0

    @classmethod
    def take(cls, path: str) -> Claim | None:
        """Claim `path`, and make it when it is absent; None while somebody else has it.

        Raises:
            OSError: The volume refuses.
        """
        # Between two system calls the file may be made, dropped or committed by others, so it is tried again.
        for _ in range(_TRIES):
            try:
                return cls._locked(path, os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
            except FileExistsError:
                pass  # somebody made it before, and may be dead
            except _MovedOn:
                continue
            with suppress(_MovedOn):
                return cls._taken_over(path)
        return None

    @classmethod
    def _taken_over(cls, path: str) -> Claim | None:
        """Claim a file that somebody else made; None when its maker lives."""
        file = cls._reopen(path)
        claim = None if file is None else cls._locked(path, file)
        # Its holder may have dropped or committed it between the open and the lock.
        if claim and not _is_current(path, claim.file):
            os.close(claim.file)
            raise _MovedOn
        return claim

    @classmethod
    def _reopen(cls, path: str) -> int | None:
        try:
            return os.open(path, _OPEN)
        except FileNotFoundError:
            raise _MovedOn from None
        except PermissionError:
            # A committed blob, whose claim was not dropped yet, or a file of another user of a shared cache.
            if cls.is_taken(path):
                return None
            # Nobody uses it: with its name free, the next try makes a new file.
            _unlink(path)
            _unlink(path + PARTS)
            raise _MovedOn from None

    @classmethod
    def _locked(cls, path: str, file: int) -> Claim | None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        status = os.fstat(file)
        # Its holder dropped it between the open and the lock.
        if not status.st_nlink:
            os.close(file)
            raise _MovedOn
        return cls(path, file, status.st_size)

    @staticmethod
    def is_taken(path: str) -> bool:
        """Whether a live process claims `path`.

        Raises:
            FileNotFoundError: There is no such file.
        """
        try:
            return is_locked(path)
        except PermissionError:
            return True  # another user of a shared cache is making it

    def drop(self) -> None:
        """Remove the claim and its journal. A blob that is linked to its file stays.

        Raises:
            CacheError: They can't be removed. The claim has ended all the same.
        """
        try:
            # The journal first: one without its file would be taken for that of the next file of this name.
            if self.journaled:
                _unlink(self.journal)
            _unlink(self.path)
        except OSError as error:
            raise cache_error(error, "remove a claim", Path(self.path)) from error
        finally:
            os.close(self.file)

    def keep(self) -> None:
        """Give up the claim, and leave the written bytes for the next holder. Without a journal they are removed."""
        if self.journaled:
            os.close(self.file)
        else:
            self.drop()

    @property
    def journal(self) -> str:
        """The path of the journal of verified parts."""
        return self.path + PARTS


def _unlink(path: str) -> None:
    try:  # noqa: SIM105 - `suppress` would cost as much again, and this is done for each object
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass


def _is_current(path: str, file: int) -> bool:
    """Whether the locked file is still the one at `path`, and no blob. A claim on a blob is removed."""
    locked = os.fstat(file)
    try:
        current = os.lstat(path)
    except FileNotFoundError:
        return False
    if (current.st_dev, current.st_ino) != (locked.st_dev, locked.st_ino):
        return False
    # A committed blob is never written to again; its name here is all that is left of the claim.
    if not locked.st_mode & stat.S_IWUSR or locked.st_nlink > 1:
        _unlink(path)
        return False
    return True


UPTO, PART = "upto", "part"


@dataclass(frozen=True, slots=True)
class Note:
    """A journal's line about one part."""

    kind: str
    """UPTO or PART: which bytes the digest covers."""
    digest: str
    """BLAKE3, hex."""


class Journal:
    """The record of the parts of one claimed file that were written and hashed.

    Args:
        claim: The claim on the file.
        size: Bytes of the whole object.
        part: Bytes of one part.
        believed: Tells whether parts that were requested since a time, in seconds since the epoch, are of the object as
            it is now. If not, the recorded parts are dropped.
    """

    def __init__(self, claim: Claim, size: int, part: int, believed: Callable[[float], bool]) -> None:
        self._path = claim.journal
        claim.journaled = True
        self._file = os.open(self._path, _OPEN | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        whole = self._whole_lines()
        head, began = f"{part} {size} ".encode(), _began(whole)
        # Parts of another size, or of an earlier state of the object, are of no use.
        usable = whole.startswith(head) and began is not None and believed(began)
        self.parts = _parts(whole) if usable else {}
        """The recorded parts by their index."""
        # Cut off half a line of a killed writer, which the next line would be appended to.
        os.ftruncate(self._file, len(whole) if self.parts else 0)
        if not self.parts:
            os.write(self._file, head + f"{time.time()!r}\n".encode())

    def record(self, index: int, note: Note) -> None:
        """Record that a part is in the file."""
        # One write, so that a killed process leaves whole lines.
        os.write(self._file, f"{note.kind} {index} {note.digest}\n".encode())

    def close(self) -> None:
        """Close the journal's file."""
        os.close(self._file)

    def _whole_lines(self) -> bytes:
        text = os.pread(self._file, os.fstat(self._file).st_size, 0)
        return text[: text.rfind(b"\n") + 1]


def _began(lines: bytes) -> float | None:
    """The time when the first part was requested, by a journal's first line; None when it doesn't say."""
    words = lines.partition(b"\n")[0].split(b" ")
    with suppress(ValueError, IndexError):
        return float(words[2])
    return None


def _parts(lines: bytes) -> dict[int, Note]:
    rows = (line.decode("ascii", "replace").split(" ") for line in lines.splitlines()[1:])
    return {
        int(row[1]): Note(row[0], row[2])
        for row in rows
        if len(row) == 3 and row[0] in (UPTO, PART) and row[1].isdigit()  # noqa: PLR2004
    }


def write_all(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    while len(data) > (written := os.pwrite(descriptor, data, offset)):
        data, offset = memoryview(data)[written:], offset + written
