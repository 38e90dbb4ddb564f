"""Files that are kept on tape, as who reads them sees it: each read stands still until the file is brought back.

Linux asks whoever watches a file by fanotify before it lets anybody read it, which is how its tape systems work. It
takes root.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTENT, _CLOSE_ON_EXEC = 0x4, 0x1
_ADD, _REMOVE = 0x1, 0x2
_ACCESS_PERM, _HERE, _ALLOW = 0x20000, -100, 1
_EVENT = struct.Struct("=IBBHQii")
_LOOK_SECONDS = 0.05


class Tape:
    """Files of holes only, of which nobody reads a byte until they are brought back."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.fanotify_init(_CONTENT | _CLOSE_ON_EXEC, os.O_RDONLY | os.O_LARGEFILE)
        if self._watch < 0:
            raise OSError(ctypes.get_errno(), "files can't be watched: it takes root")
        self._changed = threading.Condition()
        self._held: dict[Path, bytes] = {}
        self._waiting: list[tuple[Path, int]] = []
        self._ended = False
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def put(self, path: Path, data: bytes) -> None:
        """Have a file that is away."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(len(data))
        self._held[path.resolve()] = data
        self._mark(_ADD, path)

    def wait(self, count: int, seconds: float = 30.0) -> list[str]:
        """The names of the files that are waited for, in the order of asking, once there are so many."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiting) >= count, seconds):
                raise TimeoutError(f"{len(self._waiting)} files are waited for, not {count}")
            return [path.name for path, _ in self._waiting]

    def bring(self, name: str) -> None:
        """Bring a file back as it was, with its time, and let those read on who wait for it."""
        path = next(path for path in self._held if path.name == name)
        times = path.stat()
        with path.open("r+b") as file:
            file.write(self._held[path])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        self._mark(_REMOVE, path)
        with self._changed:
            answered = [(file, question) for file, question in self._waiting if file == path]
            self._waiting = [(file, question) for file, question in self._waiting if file != path]
        for _, question in answered:
            self._answer(question)

    def close(self) -> None:
        """Let everybody read on, and end."""
        self._ended = True
        self._listening.join()
        os.close(self._watch)
        for _, file in self._waiting:
            os.close(file)

    def _mark(self, what: int, path: Path) -> None:
        if self._libc.fanotify_mark(self._watch, what, ctypes.c_uint64(_ACCESS_PERM), _HERE, os.fsencode(path)):
            raise OSError(ctypes.get_errno(), f"{path} can't be watched")

    def _listen(self) -> None:
        while not self._ended:
            if not select.select([self._watch], [], [], _LOOK_SECONDS)[0]:
                continue
            data = os.read(self._watch, 65536)
            files = [_EVENT.unpack_from(data, start)[5] for start in range(0, len(data), _EVENT.size)]
            with self._changed:
                self._waiting += [(Path(f"/proc/self/fd/{file}").readlink(), file) for file in files]
                self._changed.notify_all()

    def _answer(self, file: int) -> None:
        os.write(self._watch, struct.pack("=iI", file, _ALLOW))
        os.close(file)


@contextmanager
def tape() -> Iterator[Tape]:
    """A tape for the time of the block; who waits at its end reads on.

    Raises:
        OSError: This user may not watch files.
    """
    made = Tape()
    try:
        yield made
    finally:
        made.close()
