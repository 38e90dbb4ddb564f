"""Hashing an object's bytes in one pass, by BLAKE3 and by the checksums that its source offers.

CRC32C is computed by Google's library, which uses the processor's instruction and comes with the extra `gcs`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from prefect_stagegate.errors import ChecksumMismatch, ObjectChanged
from prefect_stagegate.transport.transfer.job import FetchJob

if TYPE_CHECKING:
    from typing_extensions import Buffer

PIECE = 1 << 18
"""Bytes of each call of the library: it takes `bytes` only, and a copy of this size stays in the processor's cache."""
CHECKSUMS = ("md5", "sha1", "sha256", "sha512", "crc32", "git")
"""Checksums that can always be checked, beside BLAKE3 (`git`: git's own digest of a file); `crc32c` where its library
is installed. Others are ignored, and the proof is then `computed`."""
Offers = tuple[tuple[str, str], ...]


@cache
def crc32c_library() -> Any:
    """The library of CRC32C; None where it isn't installed, or only in its Python version, which is slower than MD5."""
    try:
        from google_crc32c import cext
    except ImportError:
        return None
    return cext


def crc32c(data: Buffer, value: int) -> int:
    """The CRC32C of the bytes so far, whose CRC32C was `value`, and of `data` behind them."""
    extend, view = crc32c_library().extend, memoryview(data)
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


class Hasher:
    """The digests of one object's bytes, given in order."""

    def __init__(self, checksums: Offers, size: int) -> None:
        self._blake3 = blake3()
        self._expected = ""
        """The BLAKE3 digest that the source offers; computed anyway, so it costs nothing."""
        self._offered: list[tuple[str, str, Any]] = []
        self._mismatch: str | None = None
        for name, value in checksums:
            if name == "blake3":
                self._expected = value
            elif _is_checkable(name, checksums):
                self._offered.append((name, value, _new_hasher(name, size)))

    def update(self, data: Buffer) -> None:
        """Add the next bytes."""
        self._blake3.update(data)
        for _, _, hasher in self._offered:
            hasher.update(data)

    def copy(self) -> Hasher:
        """A copy of the state that can be updated separately."""
        copy = Hasher((), 0)
        copy._blake3, copy._expected = self._blake3.copy(), self._expected
        copy._offered = [(name, value, hasher.copy()) for name, value, hasher in self._offered]
        return copy

    def hexdigest(self) -> str:
        """BLAKE3 of all bytes so far."""
        return str(self._blake3.hexdigest())

    def digest(self) -> str:
        """BLAKE3 of all bytes so far, as entries hold it: `blake3:<hex>`."""
        return f"blake3:{self.hexdigest()}"

    def mismatch(self) -> str:
        """The first of the source's checksums that all bytes fail, as a sentence; empty when they pass all."""
        if self._mismatch is None:
            self._mismatch = self._find_mismatch()
        return self._mismatch

    def _find_mismatch(self) -> str:
        for name, value, hasher in self._offered:
            if (actual := hasher.hexdigest()) != value:
                return f"the source says {name} {value}, and the bytes have {actual}"
        if self._expected and (actual := self.hexdigest()) != self._expected:
            return f"the source says blake3 {self._expected}, and the bytes have {actual}"
        return ""

    @property
    def checked(self) -> bool:
        """Whether the source offered a checksum that can be checked."""
        return bool(self._offered or self._expected)


def _is_checkable(name: str, offers: Offers) -> bool:
    """Whether to check a checksum: not MD5 where CRC32C can be, which finds damage at a twentieth of the cost."""
    if name == "crc32c":
        return crc32c_library() is not None
    if name == "md5" and len(offers) > 1:
        return "crc32c" not in dict(offers) or crc32c_library() is None
    return name in CHECKSUMS


def _new_hasher(name: str, size: int) -> Any:
    if name == "md5":
        return hashlib.md5(usedforsecurity=False)  # the usual one: `new` takes longer
    if name in ("crc32", "crc32c"):
        return Crc(crc32c if name == "crc32c" else zlib.crc32)
    hasher = hashlib.new("sha1" if name == "git" else name, usedforsecurity=False)
    if name == "git":
        # git hashes this head before the bytes.
        hasher.update(f"blob {size}\0".encode())
    return hasher


def verify_bytes(job: FetchJob, hasher: Hasher) -> bool:
    """Compare an object's bytes with the source's checksums and the planned digest.

    Returns:
        Whether a checksum of the source's confirms the bytes.

    Raises:
        ChecksumMismatch: The bytes fail a checksum of the source's, or don't have the planned digest.
        ObjectChanged: They don't have the planned digest, because the object was replaced.
    """
    mismatch, planned = hasher.mismatch(), job.planned.digest
    # The source may know that its checksum is none: an S3 etag that only looks like an MD5.
    if mismatch and job.listed and not job.source.disowns_checksums(job.listed):
        hint = "The object is damaged at its source or in transit."
        if job.listed.pin.kind == "etag" and "md5" in mismatch:
            hint += " If this server's etags are no MD5, set `etag_is_md5: false`."
        raise ChecksumMismatch(f"The bytes are wrong: {mismatch}", hint=hint, **_location(job))
    if planned and planned != (actual := hasher.digest()):
        # The object was listed again, or is a mirror's: other bytes are another state of it, not damage.
        if job.restarted or job.member:
            raise ObjectChanged(
                f"The object was replaced: it no longer has the digest {planned}",
                hint="Look for a mirror that still has it.",
                **_location(job),
            )
        raise ChecksumMismatch(
            f"The bytes are wrong: they hash to {actual}, and {planned} was expected", **_location(job)
        )
    return hasher.checked and not mismatch


def _location(job: FetchJob) -> dict[str, str]:
    return {"source": job.source.url, "object": job.planned.path}
