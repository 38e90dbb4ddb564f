"""S3 and what speaks its protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prefect_stagegate.model import SourceObject
from prefect_stagegate.objects import Listed, S3Settings, open_s3, s3_place
from prefect_stagegate.sources.buckets import BucketSource
from prefect_stagegate.sources.signed import SignedReads

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MD5 = re.compile(r"[0-9a-f]{32}")
_ENCRYPTION = "x-amz-server-side-encryption"
_OTHER_ETAG = ("aws:kms", "aws:kms:dsse")
"""Encryptions whose etags look like an MD5 and are none."""


class S3Source(BucketSource):
    """A bucket, a folder or an object on S3.

    A simple etag is also the MD5 of the bytes, which is checked, unless `etag_is_md5: false` says that this server's
    isn't.

    Args:
        url: `s3://bucket/folder/`.
        settings: The translated options.
        idle: Seconds without a byte after which a read is given up.
    """

    def __init__(self, url: str, settings: S3Settings, *, idle: float) -> None:
        place = s3_place(url)
        super().__init__(url, open_s3(place, settings, idle=idle), place.key)
        self._etag_is_md5 = settings.etag_is_md5
        self._signed = SignedReads(self._store, idle=idle)

    def close(self) -> None:
        """Let the connections go."""
        super().close()
        self._signed.close()

    def ask_ahead(self, soon: Sequence[SourceObject]) -> bool:
        """Ask for whole objects that are read soon."""
        return self._signed.ask_ahead([(self._folder + one.key, one) for one in soon])

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """One GET with a range and If-Match. Of an empty object, which has no ranges, only the pin is asked."""
        by_obstore = partial(super().read, listed, start, end)
        if start == end:
            return by_obstore()
        return self._signed.read(self._folder + listed.key, listed, start, end, by_obstore)

    def fill(self, listed: SourceObject, start: int, end: int, buffer: memoryview) -> Iterator[int]:
        """One GET with a range and If-Match, from the connection into the buffer."""
        by_obstore = partial(super().fill, listed, start, end, buffer)
        return self._signed.fill(self._folder + listed.key, listed, start, end, buffer, by_obstore)

    def disowns_checksums(self, listed: SourceObject) -> bool:
        """True for an object that is encrypted by KMS or a customer's key: its etag looks like an MD5 and is none."""
        headers = self._store.headers(self._folder + listed.key)
        return headers.get(_ENCRYPTION) in _OTHER_ETAG or f"{_ENCRYPTION}-customer-algorithm" in headers

    def _checksums(self, listed: Listed) -> tuple[tuple[str, str], ...]:
        return (("md5", listed.etag),) if self._etag_is_md5 and _MD5.fullmatch(listed.etag) else ()
