"""Tar layers of many small files, whose layout follows from the version's rows alone. Pure: no I/O.

Each file lies behind a header in pax's form with constant times, owners and modes, as ModelPack asks for reproducible
layers. So whoever has the rows knows the offset of each file, and reads it by a range of the layer.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prefect_stagegate.model import Entry

SHARD_BYTES = 256 << 20
"""Most bytes of the files in a tar layer."""
SHARD_FILES = 10_000
"""Most files in a tar layer."""
LARGE_FILE = 64 << 20
"""Files of so many bytes get a layer of their own."""
END = bytes(2 * tarfile.BLOCKSIZE)
"""What a tar archive ends with."""


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """The files of one layer."""

    entries: tuple[Entry, ...]
    is_shard: bool

    @property
    def size(self) -> int:
        """Bytes of the layer."""
        return list(offsets(self.entries))[-1] if self.is_shard else self.entries[0].size


def layers_of(entries: Iterable[Entry], *, by_shard: bool) -> Iterator[LayerFiles]:
    """Divide sorted entries into layers: one for each file, or, by shard, tar layers for all but the large files."""
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        if not by_shard or entry.size >= LARGE_FILE:
            yield LayerFiles((entry,), is_shard=False)
            continue
        if shard and (size + entry.size > SHARD_BYTES or len(shard) == SHARD_FILES):
            yield LayerFiles(tuple(shard), is_shard=True)
            shard, size = [], 0
        shard.append(entry)
        size += entry.size
    if shard:
        yield LayerFiles(tuple(shard), is_shard=True)


def header_of(entry: Entry) -> bytes:
    """The blocks before a file's bytes."""
    info = tarfile.TarInfo(entry.path)
    info.size, info.mode = entry.size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padding_of(entry: Entry) -> bytes:
    """The zeros after a file's bytes."""
    return bytes(-entry.size % tarfile.BLOCKSIZE)


def offsets(entries: Iterable[Entry]) -> Iterator[int]:
    """The offset of each file's first byte, in order; at the end, the layer's size."""
    position = 0
    for entry in entries:
        position += len(header_of(entry))
        yield position
        position += entry.size + len(padding_of(entry))
    yield position + len(END)
