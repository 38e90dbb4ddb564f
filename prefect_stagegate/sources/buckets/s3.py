"""S3 and what speaks its protocol."""

from __future__ import annotations

import base64
import binascii
import re

from prefect_stagegate.http import Headers
from prefect_stagegate.model import SourceObject
from prefect_stagegate.objectstore import ListedObject, S3Settings, open_s3, parse_bucket_url
from prefect_stagegate.sources.base import Checksums
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Terms

_MD5 = re.compile(r"[0-9a-f]{32}")
_ENCRYPTION = "x-amz-server-side-encryption"
_ALGORITHMS = ("sha256", "sha1", "crc32c", "crc32")
"""What S3 may keep of the whole object, and is checked here; its CRC64NVME is not."""
_OTHER_ETAG = ("aws:kms", "aws:kms:dsse")
"""Encryptions whose etags look like an MD5 and are none."""


class S3Source(BucketSource):
    """A bucket, a folder or an object on S3.

    A simple etag is also the MD5 of the bytes, which is checked, unless `etag_is_md5: false` says that this server's
    isn't.

    Args:
        url: `s3://bucket/folder/`.
        settings: The translated options.
        terms: How the server is asked.
    """

    def __init__(self, url: str, settings: S3Settings, terms: Terms) -> None:
        place = parse_bucket_url(url)
        super().__init__(url, open_s3(place, settings, idle=terms.idle, allowed=terms.allowed), place.key)
        self._etag_is_md5 = settings.etag_is_md5

    def response_checksums(self, headers: Headers) -> Checksums:
        """The checksum of the whole that the object was put with, and the MD5 that rclone notes for parts."""
        if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
            for name in _ALGORITHMS:
                if digest := _hex(headers.get(f"x-amz-checksum-{name}", "")):
                    return ((name, digest),)
        digest = _hex(headers.get("x-amz-meta-md5chksum", ""))
        return (("md5", digest),) if digest else ()

    def closer_checksums(self, listed: SourceObject) -> Checksums:
        """The same by a HEAD request; nothing where the server refuses it: the read tells why."""
        return self.response_checksums(self._store.headers(self._folder + listed.key))

    def disowns_checksums(self, listed: SourceObject) -> bool:
        """True for an object that is encrypted by KMS or a customer's key: its etag looks like an MD5 and is none."""
        headers = self._store.headers(self._folder + listed.key)
        return headers.get(_ENCRYPTION) in _OTHER_ETAG or f"{_ENCRYPTION}-customer-algorithm" in headers

    def _checksums(self, listed: ListedObject) -> tuple[tuple[str, str], ...]:
        return (("md5", listed.etag),) if self._etag_is_md5 and _MD5.fullmatch(listed.etag) else ()


def _hex(text: str) -> str:
    """A digest in Base64 as lowercase hex; empty where it is none. One of parts ends with their number."""
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
