"""Leases: who uses this cache now. A lease is a file that its holder keeps locked, so it ends with the holder.

    leases/<id>     {"kind": "reader", "dataset": …, "digest": …, "what": …, "pid": …, "since": …, "reserved": …}

A writer's progress may lie beside it (`job_progress.py`).

A pin is a lease without a holder: it stays until somebody removes it, and a version has one at most. Making leases and
collecting garbage exclude each other by a lock on the folder itself, so that the collector never sees a lease that is
half made.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from operator import attrgetter
from pathlib import Path

from prefect_stagegate.cache.job_progress import remove_progress
from prefect_stagegate.cache.layout import GROUP_FILE, PRIVATE_FILE, SMALL_FILE, TAG, Layout, explained
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.durable import read_file, sync_folder
from prefect_stagegate.errors import CacheError, CorruptRecord
from prefect_stagegate.model import DIGEST
from prefect_stagegate.mounts import NETWORK, mount_of
from prefect_stagegate.unreadable import UnreadableRecords, skipping

_STOPPED = ("T", "t")
"""States of a stopped process (proc(5))."""
_NAME = re.compile(r"[0-9a-f]{32}")
"""Names of leases' files. Files with other names are not the cache's own."""
_TEXTS = ("dataset", "digest", "what", "since")
_DIGITS = 20
"""Digits of a reservation in the file."""
NEEDS_LOCAL = "Collecting garbage needs a local volume. Choose one with --cache or STAGEGATE_CACHE."


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock."""

    pid: int
    """0 where it is unknown: the process is in another container, or on another host."""
    user: str
    """The process's user, else the owner of the file; empty where neither is known."""
    stopped: bool = False
    """Whether it is stopped, as by SIGSTOP or in a debugger."""

    def __str__(self) -> str:
        """As people read it: `pid 71 (alice, stopped)`."""
        facts = ", ".join(filter(None, (self.user, "stopped" if self.stopped else "")))
        name = f"pid {self.pid}" if self.pid else "a process of another container or host"
        return f"{name} ({facts})" if facts else name


def is_locked(path: Path | str) -> bool:
    """Whether a process has the exclusive lock on a file or folder.

    Raises:
        OSError: It can't be opened, or is a link.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # A shared lock, so that two processes that look at once don't take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder_of(path: str) -> Holder | None:
    """The holder of the lock on a file; None when the file is gone.

    Raises:
        OSError: The file can't be looked at.
    """
    try:
        status = os.stat(path, follow_symlinks=False)  # noqa: PTH116
    except FileNotFoundError:
        return None
    pid = _locker(status)
    with suppress(OSError):
        if pid:
            # The program's name before the state is in parentheses, and may have some itself.
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return Holder(pid, _user(os.stat(f"/proc/{pid}").st_uid), state in _STOPPED)  # noqa: PTH116
    return Holder(0, _user(status.st_uid))


def _locker(status: os.stat_result) -> int:
    """The process that has the exclusive lock on a file, by /proc/locks; 0 where that doesn't tell."""
    # Some file systems show another device there than in stat(2), so the inode alone has to do.
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and words[5].rpartition(":")[2] == str(status.st_ino):
                return max(int(words[4]), 0)
    return 0


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class LeaseKind(StrEnum):
    """What a lease's holder does with the cache."""

    READER = "reader"
    WRITER = "writer"
    PIN = "pin"


@dataclass(frozen=True, slots=True)
class Lease:
    """One claim, as `stagegate ls` shows it."""

    id: str
    kind: LeaseKind
    dataset: str
    digest: str
    """The version that is read or pinned; empty for a writer, whose version is not known yet."""
    what: str
    """What the holder does, for people."""
    pid: int
    """The holder's process; 0 for a pin, which outlives whoever made it."""
    since: str
    reserved: int = 0
    """Bytes that this lease reserves on the volume for its writer."""

    def keeps(self, dataset: str, digest: str) -> bool:
        """Whether it keeps a version from being collected. A writer keeps all versions of its dataset."""
        return self.dataset == dataset and (self.kind is LeaseKind.WRITER or self.digest == digest)

    def __str__(self) -> str:
        """As people read it: `reader open_dataset (pid 71) since 2026-03-01T03:00:00Z`."""
        process = f" (pid {self.pid})" if self.pid else ""
        return f"{self.kind} {self.what or self.id}{process} since {self.since[:19]}Z"


class Leases:
    """The claims on one cache."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @contextmanager
    def hold(
        self, kind: LeaseKind, dataset: str, digest: str = "", purpose: str = "", *, inherited: bool = False
    ) -> Iterator[Lease]:
        """Hold a lease for as long as the block, or this process, lives.

        `digest` is empty for a writer. With `inherited`, the program that this process becomes by `exec`, and its
        children, hold the lease too.

        Raises:
            CacheError: The lease can't be written.
        """
        with explained("write a lease", self._layout.leases):
            self._layout.restore()
            # Shared: many may make leases at once, but none while a collection has the exclusive lock.
            with locked(self._layout.leases, fcntl.LOCK_SH):
                lease, descriptor = self._write(kind, dataset, digest, purpose)
        os.set_inheritable(descriptor, inherited)
        try:
            yield lease
        finally:
            if os.getpid() == lease.pid:  # a forked child that ends doesn't end its parent's reading
                with suppress(OSError):  # without its lock the file is no lease, and a collection removes it
                    (self._layout.leases / lease.id).unlink()
            os.close(descriptor)

    def pin(self, dataset: str, digest: str, purpose: str = "") -> Lease:
        """Keep a version until it is unpinned. The pin survives a power cut.

        Returns:
            The version's pin, which may have been there before.

        Raises:
            CacheError: The pin can't be written; there is none.
        """
        with explained("write a pin", self._layout.leases):
            self._layout.restore()
            # Exclusive, so that two that pin one version at once make one pin.
            with locked(self._layout.leases):
                if pins := self._pins_of(dataset, digest):
                    return pins[0]
                lease, descriptor = self._write(LeaseKind.PIN, dataset, digest, purpose)
            # After the lock, which others wait for: a sync may take long.
            with os.fdopen(descriptor, "wb"):
                # The caller is told of a pin only when a power cut can't take it any more.
                try:
                    os.fsync(descriptor)
                    sync_folder(self._layout.leases)
                except OSError:
                    (self._layout.leases / lease.id).unlink(missing_ok=True)
                    raise
        return lease

    def unpin(self, dataset: str, digest: str) -> int:
        """Remove a version's pins and return how many there were.

        Raises:
            CacheError: They can't be read or removed.
        """
        pins = self._pins_of(dataset, digest)
        with explained("remove a pin", self._layout.leases):
            for lease in pins:
                (self._layout.leases / lease.id).unlink(missing_ok=True)
            # So that no pin comes back after a power cut.
            sync_folder(self._layout.leases)
        return len(pins)

    def live(self, unreadable: UnreadableRecords | None = None, *, remove_dead: bool = False) -> list[Lease]:
        """The leases whose holders live, and the pins; the oldest first.

        Args:
            unreadable: Collects the leases that can't be read, which are left out: nobody knows what they keep. With
                None, the first of them raises.
            remove_dead: Whether to remove the leases of dead holders; the caller has locked out new ones.

        Raises:
            CacheError: They can't be listed, or one can't be read.
            CorruptRecord: One is damaged.
        """
        leases: list[Lease] = []
        with explained("read the leases", self._layout.leases):
            entries = list(self._layout.entries(self._layout.leases))
        paths = [path for path in entries if _NAME.fullmatch(path.name)]
        if remove_dead:
            # One whose job could not remove it, or wrote it too late.
            for lease_id in {path.stem for path in entries} - {path.name for path in paths}:
                remove_progress(self._layout, lease_id)
        for path in paths:
            with skipping(unreadable, ""), explained("read the lease", path):
                lease = _read(path)
                if lease and _alive(path, lease):
                    leases.append(lease)
                elif remove_dead:
                    # The lease goes last: without it, nobody would look for its progress.
                    remove_progress(self._layout, path.name)
                    path.unlink(missing_ok=True)
        return sorted(leases, key=attrgetter("since"))

    @contextmanager
    def frozen(self, unreadable: UnreadableRecords | None = None) -> Iterator[list[Lease]]:
        """Lock out new leases during the block, and give the live ones. Removes the leases of dead holders.

        Args:
            unreadable: As for `live`. Unreadable leases are not removed.
        """
        with locked(self._layout.leases):
            yield self.live(unreadable, remove_dead=True)

    def _pins_of(self, dataset: str, digest: str) -> list[Lease]:
        pins = (lease for lease in self.live() if lease.kind is LeaseKind.PIN)
        return [lease for lease in pins if (lease.dataset, lease.digest) == (dataset, digest)]

    def _write(self, kind: LeaseKind, dataset: str, digest: str, purpose: str) -> tuple[Lease, int]:
        """Write a lease, and lock it. The caller has the lock of the folder."""
        pid = 0 if kind is LeaseKind.PIN else os.getpid()
        lease = Lease(uuid.uuid4().hex, kind, dataset, digest, purpose, pid, stamp(now()))
        path = self._layout.leases / lease.id
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, PRIVATE_FILE)
        self._layout.share(descriptor, GROUP_FILE)
        try:
            # Locked before it has a text: an unlocked lease is one of a dead holder.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, _text(lease))
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return lease, descriptor


@contextmanager
def locked(folder: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock on a folder for the time of the block; wait for it while others have it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        # This releases the lock.
        os.close(descriptor)


def write_reserved(path: Path, lease: Lease, size: int) -> None:
    """Write a lease again with another reservation. The caller has the lock of the folder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    # In place: a new file would not have the holder's lock.
    try:
        os.pwrite(descriptor, _text(replace(lease, reserved=size)), 0)
    finally:
        os.close(descriptor)


def _text(lease: Lease) -> bytes:
    """A lease as JSON. Every reservation gives the same length, so that it can be written again in place."""
    return json.dumps(asdict(lease) | {"reserved": f"{lease.reserved:0{_DIGITS}}"}).encode()


def _read(path: Path) -> Lease | None:
    """A lease; None when it was released meanwhile, or its writer was killed while writing it.

    Raises:
        CorruptRecord: It is damaged. It may be a pin, so it can't be ignored.
    """
    try:
        text = read_file(path, SMALL_FILE)
    except FileNotFoundError:
        return None
    if not text.rstrip(b"\0").endswith(b"}"):  # its writer was killed before the last byte, and never used it
        return None
    try:
        return _parse(text, path.name)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise CorruptRecord(
            f"The lease {path} can't be read, so the version that it keeps is unknown: {error}",
            hint="Remove the file, then pin again what it may have pinned. Until then every version stays here.",
        ) from error


def _parse(text: bytes, name: str) -> Lease:
    fields = json.loads(text)
    kind = LeaseKind(fields["kind"])
    pid = 0 if kind is LeaseKind.PIN else fields["pid"]  # earlier releases wrote who made the pin
    lease = Lease(**fields | {"kind": kind, "pid": pid, "reserved": int(fields["reserved"])})
    texts = all(isinstance(getattr(lease, field), str) for field in _TEXTS)
    if lease.id != name or not texts or not isinstance(lease.pid, int):
        raise ValueError("its fields are not those of a lease")
    if lease.digest and not DIGEST.fullmatch(lease.digest):
        raise ValueError("it names no version")
    return lease


def _alive(path: Path, lease: Lease) -> bool:
    """Whether a process holds the lease's lock. A pin is alive without one."""
    if lease.kind is LeaseKind.PIN:
        return True
    try:
        return is_locked(path)
    except FileNotFoundError:
        return False


def require_locks(root: Path, folder: Path) -> None:
    """Require a volume where flock shows who uses the cache at `root`; try a lock on `folder`.

    Raises:
        CacheError: The volume is a network file system, or locks do nothing on it.
    """
    kind, _ = mount_of(root)
    if kind in NETWORK:
        raise CacheError(
            f"{root} is on {kind}, where this node may not see the locks of other machines", hint=NEEDS_LOCAL
        )
    # A second lock on a locked folder must be refused, else locks do nothing here.
    with locked(folder):
        locks_work = is_locked(folder)
    if not locks_work:
        raise CacheError(
            f"File locks have no effect on the volume of {root}, so it is unknown who uses it", hint=NEEDS_LOCAL
        )


def takes_links(folder: Path) -> bool:
    """Whether a folder's volume takes hard links."""
    file, link = (folder / f"link-{uuid.uuid4().hex}" for _ in range(2))
    try:
        file.touch()
        link.hardlink_to(file)
    except OSError:
        return False
    finally:
        file.unlink(missing_ok=True)
        link.unlink(missing_ok=True)
    return True


def folds_case(root: Path) -> bool:
    """Whether the volume of the cache at `root` ignores case in names (ext4's casefold, SMB)."""
    try:
        # The tag's name is in upper case: in lower case it is found only where case doesn't count.
        return (root / TAG).samefile(root / TAG.lower())
    except OSError:
        return False
