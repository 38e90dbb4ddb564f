"""fsspec file systems that only one thread at a time may use: FTP's has one connection, where responses would mix."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any


class SerializedFileSystem:
    """A file system behind a lock: one call at a time. Has only the methods that `FsspecSource` calls.

    Args:
        system: An `AbstractFileSystem`.
    """

    def __init__(self, system: Any) -> None:
        self._system = system
        self._lock = threading.Lock()

    def info(self, path: str) -> Any:
        """The file system's entry for a path."""
        with self._lock:
            return self._system.info(path)

    def cat_file(self, path: str, **bounds: int) -> Any:
        """The bytes of a file, or of a range of it."""
        with self._lock:
            return self._system.cat_file(path, **bounds)

    def walk(self, path: str, **kwargs: Any) -> Iterator[Any]:
        """Folder by folder. The lock is free between two folders."""
        folders = iter(self._system.walk(path, **kwargs))
        while True:
            with self._lock:
                folder = next(folders, None)
            if folder is None:
                return
            yield folder
