"""Whether a file is locked, and the process that holds the lock, as far as Linux tells."""

from __future__ import annotations

import fcntl
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_STOPPED = ("T", "t")
"""States of a stopped process (proc(5))."""


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
