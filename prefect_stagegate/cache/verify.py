"""Proving again that a version's files still hold the bytes that its manifest names."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from prefect_stagegate.model import Entry, Finding

READ = 1 << 20
"""Bytes that are read at a time."""


def verify_view(
    view: Path, entries: Iterable[Entry], *, read: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[Entry, Finding]]:
    """Hash every file of a view and give those that differ from the manifest.

    Args:
        view: The version's folder.
        entries: The version's manifest.
        read: Called with the number of bytes that were read, for progress.
    """
    for entry in entries:
        if problem := file_problem(view / entry.path, entry, read):
            yield entry, Finding(entry.path, problem, "Run `stagegate verify --repair`: it fetches the file again.")


def file_problem(path: Path, entry: Entry, read: Callable[[int], None] = lambda _: None) -> str:
    """Say how a file differs from what a manifest names; empty when it holds exactly the entry's bytes."""
    try:
        status = path.lstat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            return "it is no file of its own"
        if size != entry.size:
            return f"it has {size} bytes, and the manifest says {entry.size}"
        found = _digest(path, read)
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    return "" if found == entry.digest else f"its bytes hash to {found}, and the manifest says {entry.digest}"


def is_blob(path: str, digest: str) -> bool:
    """Whether a file has the bytes of `blake3:<hex>`, and is read-only and no link to elsewhere.

    Raises:
        OSError: It can't be read.
    """
    hasher = blake3()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o222:
            return False
        while chunk := file.read(READ):
            hasher.update(chunk)
    return f"blake3:{hasher.hexdigest()}" == digest


def _digest(path: Path, read: Callable[[int], None]) -> str:
    hasher = blake3()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(READ):
            hasher.update(chunk)
            read(len(chunk))
    return "blake3:" + hasher.hexdigest()
