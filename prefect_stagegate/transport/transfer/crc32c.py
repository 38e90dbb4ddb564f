"""CRC32C by Google's library, which uses the processor's instruction and comes with the extra `gcs`."""

from __future__ import annotations

from collections.abc import Callable
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


def crc32c(data: Buffer, value: int) -> int:
    """The CRC32C of the bytes so far, whose CRC32C was `value`, and of `data` behind them."""
    extend, view = library().extend, memoryview(data)
    for start in range(0, len(view), PIECE):
        value = extend(value, bytes(view[start : start + PIECE]))
    return value


class Crc:
    """A CRC of bytes, given in order, in the manner of hashlib.

    `extend` is `crc32c` or `zlib.crc32`.
    """

    def __init__(self, extend: Callable[[Buffer, int], int], value: int = 0) -> None:
        self._extend, self._value = extend, value

    def update(self, data: Buffer) -> None:
        """Add the next bytes."""
        self._value = self._extend(data, self._value)

    def copy(self) -> Crc:
        """A copy of the state that can be updated separately."""
        return Crc(self._extend, self._value)

    def hexdigest(self) -> str:
        """The checksum so far.

        >>> checksum = Crc(crc32c)
        >>> checksum.update(b"123456789")
        >>> checksum.hexdigest()
        'e3069283'
        """
        return f"{self._value:08x}"
