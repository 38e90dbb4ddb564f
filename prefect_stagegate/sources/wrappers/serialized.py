"""File systems of fsspec that one thread at a time may use: FTP's has one connection, where two answers would mix."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any


class Turns:
    """A file system whose calls take turns; only what a source needs of it.

    Args:
        system: An `AbstractFileSystem`.
    """

    def __init__(self, system: Any) -> None:
        self._system = system
        self._turn = threading.Lock()

    def info(self, path: str) -> Any:
        """What it says of a path."""
        with self._turn:
            return self._system.info(path)

    def cat_file(self, path: str, **bounds: int) -> Any:
        """The bytes of a file, or of a range of it."""
        with self._turn:
            return self._system.cat_file(path, **bounds)

    def walk(self, path: str, **kwargs: Any) -> Iterator[Any]:
        """Folder by folder, each in a turn of its own."""
        folders = iter(self._system.walk(path, **kwargs))
        while True:
            with self._turn:
                found = next(folders, None)
            if found is None:
                return
            yield found
