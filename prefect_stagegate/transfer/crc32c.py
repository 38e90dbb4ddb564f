"""CRC32C by Google's library, which uses the processor's instruction and comes with the extra `gcs`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer

PIECE = 1 << 18
"""Bytes of each call of the library: it takes `bytes` only, and a copy of this size stays in the processor's cache."""


@cache
def library() -> Any:
    """The library; None where it isn't installed, or only in its Python version, which is slower than MD5."""
    try:
        from google_crc32c import cext
    except ImportError:
        return None
    return cext


class Crc32c:
    """The checksum of bytes, given in order, in the manner of hashlib."""

    def __init__(self, value: int = 0) -> None:
        self._extend = library().extend
        self._value = value

    def update(self, data: Buffer) -> None:
        """Add the next bytes."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            self._value = self._extend(self._value, bytes(view[start : start + PIECE]))

    def copy(self) -> Crc32c:
        """A copy of the state that can be updated separately."""
        return Crc32c(self._value)

    def hexdigest(self) -> str:
        """The checksum so far.

        >>> checksum = Crc32c()
        >>> checksum.update(b"123456789")
        >>> checksum.hexdigest()
        'e3069283'
        """
        return f"{self._value:08x}"
