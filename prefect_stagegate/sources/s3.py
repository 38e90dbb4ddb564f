"""S3 and what speaks its protocol, read through obstore."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.manifest import path_problem
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.objects import Listed, S3Settings, open_s3, s3_place
from prefect_stagegate.sources.base import BaseSource, Wanted, everything

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MD5 = re.compile(r"[0-9a-f]{32}")
_ENCRYPTION = "x-amz-server-side-encryption"
_OTHER_ETAG = ("aws:kms", "aws:kms:dsse")
"""Encryptions whose etags look like an MD5 and are none."""


class S3Source(BaseSource):
    """A bucket, a folder of it (with or without the slash at its end) or one object.

    The pin is the etag, and each read carries it as If-Match. A simple etag is also the MD5 of the bytes, which is
    checked, unless `etag_is_md5: false` says that this server's isn't.

    Args:
        url: `s3://bucket/folder/`.
        settings: The translated options.
        idle: Seconds without a byte after which a read is given up.
    """

    def __init__(self, url: str, settings: S3Settings, *, idle: float) -> None:
        place = s3_place(url)
        self.url = url
        self._store = open_s3(place, settings, idle=idle)
        self._named = place.key
        self._etag_is_md5 = settings.etag_is_md5
        self.endpoint = self._store.endpoint
        self.identity = f"{self.endpoint} {url}"

    def credential_life(self) -> CredentialLife:
        """What the environment, the AWS files or the block say of the credentials."""
        return self._store.life

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object below the URL; the object itself when the URL names one."""
        if self._single:
            listed = self._object(self._single)
            return iter([listed] if wanted(listed.key) else [])
        return self._list(wanted)

    def find(self, key: str) -> SourceObject:
        """The object as it is now, by one HEAD request."""
        found = self._store.find(self._folder + key)
        if found is None:
            raise ObjectVanished("The object is gone", source=self.url, object=key)
        return self._object(found)

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """One GET with a range and If-Match. Of an empty object, which has no ranges, only the pin is asked."""
        if start == end:
            if self.find(listed.key).pin != listed.pin:
                raise ObjectChanged("The object changed while it was read", source=self.url, object=listed.key)
            return
        etag = listed.pin.value if listed.pin.kind == "etag" else ""
        try:
            yield from self._store.read(self._folder + listed.key, start, end, etag=etag)
        except SourceError as error:
            error.object = listed.key
            raise

    def disowns_checksums(self, listed: SourceObject) -> bool:
        """True for an object that is encrypted by KMS or a customer's key: its etag looks like an MD5 and is none."""
        headers = self._store.headers(self._folder + listed.key)
        return headers.get(_ENCRYPTION) in _OTHER_ETAG or f"{_ENCRYPTION}-customer-algorithm" in headers

    @cached_property
    def _single(self) -> Listed | None:
        """The object that the URL names; None when it names a folder."""
        if not self._named or self._named.endswith("/"):
            return None
        return self._store.find(self._named)

    @cached_property
    def _folder(self) -> str:
        """What stands before the keys: empty, or with a slash at its end."""
        if self._single:
            return self._named[: self._named.rfind("/") + 1]
        return self._named if not self._named or self._named.endswith("/") else self._named + "/"

    def _list(self, wanted: Wanted) -> Iterator[SourceObject]:
        empty = True
        for listed in self._store.listing(self._folder):
            empty = False
            if wanted(listed.key.removeprefix(self._folder)) and not self._is_folder_marker(listed):
                yield self._object(listed)
        if empty:
            raise SourceError(
                "There is nothing at this address",
                hint="Check the folder's spelling; S3 tells upper from lower case.",
                source=self.url,
            )

    def _object(self, listed: Listed) -> SourceObject:
        key = listed.key.removeprefix(self._folder)
        pin = Pin("etag", listed.etag, "strong") if listed.etag else Pin("mtime", str(listed.modified), "weak")
        checked = self._etag_is_md5 and _MD5.fullmatch(listed.etag)
        return SourceObject(key, listed.size, pin, listed.modified, (("md5", listed.etag),) if checked else ())

    def _is_folder_marker(self, listed: Listed) -> bool:
        """Whether this is an empty object that some tools put in place of a folder: its key ends with a slash.

        obstore takes the slash away, so only asking again by the shorter key tells a marker from an empty file.
        """
        return listed.size == 0 and not path_problem(listed.key) and self._store.find(listed.key) is None
