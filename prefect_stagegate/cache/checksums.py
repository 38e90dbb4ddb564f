"""Hashing a view's files by other algorithms than the cache's own, which is how other tools name bytes."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

from blake3 import blake3

from prefect_stagegate.cache.blob_verification import ADVICE, READ, Read, open_regular_file
from prefect_stagegate.errors import CacheError, Cancelled
from prefect_stagegate.model import Entry

READERS = 4
"""Files that are read at a time: hashing one takes a core."""
AHEAD = 64
"""Files whose digests may wait for those before them."""


def checksums(view: Path, entries: Iterable[Entry], algorithm: str, read: Read) -> Iterator[tuple[str, str]]:
    """Hash the files of a view; yields the path and the digest in hex of each, in the order of its entries.

    The bytes that are hashed are proved by the manifest's digest in the same pass.

    Args:
        view: The version's folder.
        entries: Its manifest.
        algorithm: A name that hashlib knows, as `sha256`.
        read: Called with the size of every piece that was read, by one thread at a time. May wait, or raise.

    Raises:
        CacheError: A file can't be read, or its bytes are not the manifest's.
    """
    lock, stopped = Lock(), Event()

    def counted(size: int) -> None:
        if stopped.is_set():  # large files are not read to their end for nobody
            raise Cancelled("The hashing was stopped")
        with lock:
            read(size)

    waiting: deque[tuple[str, Future[str]]] = deque()
    with ThreadPoolExecutor(READERS, "stagegate-checksums") as pool:
        try:
            for entry in entries:
                waiting.append((entry.path, pool.submit(_checksum, view / entry.path, entry, algorithm, counted)))
                if len(waiting) > AHEAD:
                    path, digest = waiting.popleft()
                    yield path, digest.result()
            for path, digest in waiting:
                yield path, digest.result()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def proved_bytes(view: Path, entry: Entry) -> bytes:
    """The bytes of one file of a view. The caller has looked at its size.

    Raises:
        CacheError: The file can't be read, or its bytes are not the manifest's.
    """
    return b"".join(proved_pieces(view / entry.path, entry))


def _checksum(path: Path, entry: Entry, algorithm: str, read: Read) -> str:
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    for piece in proved_pieces(path, entry):
        hasher.update(piece)
        read(len(piece))
    return hasher.hexdigest()


def proved_pieces(path: Path, entry: Entry) -> Iterator[bytes]:
    """A file's bytes in pieces. Raises at the end when they are not the manifest's, and before more than those."""
    proof, left = blake3(), entry.size
    try:
        with os.fdopen(open_regular_file(os.fspath(path)), "rb", buffering=0) as file:
            while left >= 0 and (piece := file.read(READ)):
                left -= len(piece)
                proof.update(piece)
                yield piece
    except OSError as error:
        raise CacheError(f"The file can't be read: {error.strerror}", hint=ADVICE, object=entry.path) from error
    if left or f"blake3:{proof.hexdigest()}" != entry.digest:
        raise CacheError("The file's bytes are not the manifest's", hint=ADVICE, object=entry.path)
