"""The files in a tar layer of another tool, found by its headers, which are read by ranges of the layer."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prefect_stagegate.errors import SourceError

WINDOW = 1 << 20
"""Most bytes that are read at a time: headers of small files come together."""
LEAST = 16 << 10
"""Bytes that are read at a time where headers lie far from one another: else much of large files would be read."""
LONGEST_HEADER = 16 << 20
"""Bytes of one header, with the long names and extended fields that belong to it."""
MOST_FIELDS = 1000
"""Extended fields that hold for all files of an archive: the library copies them for each file."""

ReadRange = Callable[[int, int], bytes]
"""Reads a layer's bytes from a start to an end, which is exclusive."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """One file in a tar layer, or what stands in a file's place."""

    path: str
    offset: int
    """Of its first byte in the layer."""
    size: int
    refusal: str = ""
    """Why it can't be read; empty for a file."""


def tar_members(read: ReadRange, size: int, most: int, source: str) -> Iterator[TarMember]:
    """The files of a tar layer that is not compressed; folders are left out.

    Args:
        read: Reads a range of the layer.
        size: Bytes of the layer.
        most: Files and folders that it may have.
        source: For errors.

    Raises:
        SourceError: It is no tar archive, ends in the middle, or has too many files and folders.
    """
    window = _Window(read, size)
    try:
        with tarfile.open(fileobj=window, mode="r:") as archive:  # type: ignore[call-overload]
            for number, member in enumerate(iter(archive.next, None), 1):
                # The library would keep all of them.
                archive.members.clear()
                window.header_bytes = 0
                if len(archive.pax_headers) > MOST_FIELDS:
                    raise tarfile.ReadError(f"it has more extended fields than {MOST_FIELDS:,}")
                if number > most:
                    raise tarfile.ReadError(f"it has more files and folders than {most:,}")
                if not member.isdir():
                    yield _described(member, size)
            # The library takes a damaged header for the end.
            window.seek(archive.offset)
            if window.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
    except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise SourceError(f"A layer can't be read as a tar archive: {error}", source=source) from error


def _described(member: tarfile.TarInfo, size: int) -> TarMember:
    path = member.name.removeprefix("./")
    if not member.isreg() or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "no plain file"
        return TarMember(path, 0, 0, f"It is {kind} in a tar layer")
    if member.size < 0 or member.offset_data + member.size > size:
        raise tarfile.ReadError(f"{path!r} is longer than the layer")
    return TarMember(path, member.offset_data, member.size)


class _Window:
    """A layer as a file, of which some bytes are in memory."""

    def __init__(self, read: ReadRange, size: int) -> None:
        self._read, self._size = read, size
        self._position = self._start = 0
        self._bytes, self._ahead = b"", WINDOW
        self.header_bytes = 0
        """Bytes that were read since the last file: the library holds a chain of headers in memory at once."""

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, position: int) -> int:
        """Go to a position."""
        self._position = position
        return position

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        self.header_bytes += count
        if self.header_bytes > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header is longer than {LONGEST_HEADER >> 20} MiB")
        start, end = self._position, min(self._position + count, self._size)
        if start >= end:
            return b""
        if start < self._start or end > self._start + len(self._bytes):
            is_far = start > self._start + len(self._bytes) + self._ahead
            self._ahead = LEAST if is_far else min(2 * self._ahead, WINDOW)
            self._start, self._bytes = start, self._read(start, min(max(end, start + self._ahead), self._size))
        self._position = end
        return self._bytes[start - self._start : end - self._start]
