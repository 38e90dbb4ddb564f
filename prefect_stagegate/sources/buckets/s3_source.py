"""S3, and other stores that speak its protocol."""

from __future__ import annotations

import base64
import binascii
import logging
import re

from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.adapter import Checksums, Source
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Options, Terms
from prefect_stagegate.transport.http import MAX_PAGE, Headers, Response
from prefect_stagegate.transport.objectstore import ListedObject, S3Settings, open_s3, parse_bucket_url, translate
from prefect_stagegate.transport.objectstore.object_requests import NO_BODY, S3Requests

_MD5 = re.compile(r"[0-9a-f]{32}")
_ENCRYPTION = "x-amz-server-side-encryption"
_ALGORITHMS = ("sha256", "sha1", "crc32c", "crc32")
"""Checksums of S3 that are checked here, in this order of preference. Its CRC64NVME is not."""
_OTHER_ETAG = ("aws:kms", "aws:kms:dsse")
"""Encryptions under which the etag looks like an MD5 but is none."""


log = logging.getLogger(__name__)


def open_s3_source(url: str, options: Options, terms: Terms) -> Source:
    """Open a bucket, a folder or an object: through s3fs if an option is one that only s3fs knows.

    Raises:
        UsageError: An option or the URL can't be used.
    """
    settings, unknown = translate(options)
    if not unknown:
        return S3Source(url, settings, terms)
    # s3fs knows more options than this package: reading slowly is better than ignoring an option.
    log.warning("%s is read through s3fs, which is slower: only s3fs knows the option %s", url, ", ".join(unknown))
    from prefect_stagegate.sources.buckets.s3fs_session import NoRedirectSession
    from prefect_stagegate.sources.fsspec.fsspec_source import FsspecSource

    config = {**options.get("config_kwargs", {}), "http_session_cls": NoRedirectSession}
    return FsspecSource(url, {**options, "config_kwargs": config}, terms)


class S3Source(BucketSource):
    """A bucket, a folder or an object on S3.

    The etag of an object that was not uploaded in parts is the MD5 of its bytes, and is checked. The option
    `etag_is_md5: false` says that the server's etags are none.
    """

    def __init__(self, url: str, settings: S3Settings, terms: Terms) -> None:
        place = parse_bucket_url(url)
        super().__init__(url, open_s3(place, settings, idle=terms.idle, allowed=terms.allowed), place.key)
        self._etag_is_md5 = settings.etag_is_md5

    def response_checksums(self, headers: Headers) -> Checksums:
        """The checksum of the whole object from its upload, else the MD5 that rclone stores for uploads in parts."""
        # Checksums of parts can't be compared with one of all bytes.
        if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
            for name in _ALGORITHMS:
                if digest := _hex(headers.get(f"x-amz-checksum-{name}", "")):
                    return ((name, digest),)
        # rclone stores the MD5 of the whole object here, because the etag of an upload in parts is none.
        digest = _hex(headers.get("x-amz-meta-md5chksum", ""))
        return (("md5", digest),) if digest else ()

    def closer_checksums(self, listed: SourceObject) -> Checksums:
        """The same by a HEAD request; none where the server refuses it: the read that follows says why."""
        return self.response_checksums(self._store.headers(self._folder + listed.key))

    def disowns_checksums(self, listed: SourceObject) -> bool:
        """True for an object encrypted by KMS or a customer's key: its etag looks like an MD5 but is none."""
        headers = self._store.headers(self._folder + listed.key)
        return headers.get(_ENCRYPTION) in _OTHER_ETAG or f"{_ENCRYPTION}-customer-algorithm" in headers

    def forward(self, method: str, path: str, query: str, headers: Headers) -> Response:
        """Send another client's request for a path below the bucket, signed anew; `headers` are its conditions.

        Path and query are percent-encoded. The response may have any status, and a body of at most `MAX_PAGE` bytes.

        Raises:
            SourceError: There is no response.
        """
        requests = self._store.requests
        assert isinstance(requests, S3Requests)  # noqa: S101 - `open_s3` made them
        query = "&".join(sorted(query.split("&")))
        return self._store.send(
            lambda: requests.signed(method, path, query, NO_BODY), method=method, more=headers, limit=MAX_PAGE
        )

    def _checksums(self, listed: ListedObject) -> tuple[tuple[str, str], ...]:
        return (("md5", listed.etag),) if self._etag_is_md5 and _MD5.fullmatch(listed.etag) else ()


def _hex(text: str) -> str:
    """A Base64 digest as lowercase hex; empty where the text is none, as a checksum of parts, which ends with `-N`."""
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
