"""The bytes of an artifact's layers, read from a version's folder in pieces, and their SHA-256 digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from prefect_stagegate.cache.blob_verification import READ
from prefect_stagegate.cache.checksums import proved_pieces
from prefect_stagegate.cache.memory import PinMemory
from prefect_stagegate.model.manifest import row
from prefect_stagegate.plugins.exchange.oci.shards import END, LayerFiles, header_of, padding_of


class LayerBody:
    """One layer's bytes, as the HTTP client and oras read a body that is too long for memory.

    Args:
        folder: Of the version.
        files: Those of the layer.
        moved: Called with each piece's length, as it is sent.
    """

    def __init__(self, folder: Path, files: LayerFiles, moved: Callable[[int], None]) -> None:
        self._folder, self._files, self._moved = folder, files, moved
        self.rewind()

    def __len__(self) -> int:
        return self._files.size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(READ), b"")

    def rewind(self) -> None:
        """Begin again."""
        # A piece may be empty: the padding of a file that fills its last block.
        self._pieces = filter(None, pieces(self._folder, self._files))
        self._rest = next(self._pieces, b"")

    def read(self, size: int = READ) -> bytes:
        """The next bytes, at most `size`; empty at the end."""
        piece, self._rest = self._rest[:size], self._rest[size:]
        # Before the last bytes are sent, after which nobody reads: a damaged file must not be left to the registry.
        self._rest = self._rest or next(self._pieces, b"")
        self._moved(len(piece))
        return piece


def pieces(folder: Path, files: LayerFiles) -> Iterator[bytes]:
    """A layer's bytes, in pieces. Each file is compared with its digest in the manifest, at its end.

    Raises:
        CacheError: A file can't be read, or is damaged.
    """
    for entry in files.entries:
        if files.is_shard:
            yield header_of(entry)
        yield from proved_pieces(folder / entry.path, entry)
        if files.is_shard:
            yield padding_of(entry)
    if files.is_shard:
        yield END


def layer_digest(memory: PinMemory, folder: Path, files: LayerFiles, check: Callable[[], None]) -> str:
    """`sha256:<hex>` of a layer. Each file is compared with its digest, and the node notes the layer's digest.

    Manifests hold BLAKE3 digests, and registries ask for SHA-256: so the first push of a version reads its files.
    `check` is called for each piece, and may raise to stop.

    Raises:
        CacheError: A file can't be read, or is damaged.
    """
    rows = hashlib.sha256(b"".join(map(row, files.entries))).hexdigest()
    name = f"sha256 of the tar layer {rows}" if files.is_shard else f"sha256 of {files.entries[0].digest}"
    if (known := memory.noted(name)) is not None:
        return known
    sha256 = hashlib.sha256()
    for piece in pieces(folder, files):
        check()
        sha256.update(piece)
    digest = f"sha256:{sha256.hexdigest()}"
    memory.note(name, digest)
    return digest
