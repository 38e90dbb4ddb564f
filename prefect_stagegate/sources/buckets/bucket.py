"""Buckets and containers of object stores: the part that S3, Google and Azure share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.sources.adapter import Wanted, everything
from prefect_stagegate.sources.http_source import HttpReads
from prefect_stagegate.transport.http import Request, Response
from prefect_stagegate.transport.objectstore import ListedObject, ObjectStore


class BucketSource(HttpReads):
    """A bucket, a folder of it (with or without the slash at its end) or one object.

    The pin is the version where listings hold it, else the etag. Each read names it.

    `key` is the part of the URL behind the bucket.
    """

    def __init__(self, url: str, store: ObjectStore, key: str) -> None:
        super().__init__()
        self.url = url
        self._store = store
        self._key = key
        self.endpoint = store.endpoint
        self.identity = f"{store.endpoint} {url}"

    def credential_life(self) -> CredentialLife:
        """What the options, the environment or the block say of the credentials."""
        return self._store.life

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object below the URL; the object itself when the URL names one."""
        # A HEAD request tells first whether the URL names one object.
        if self._single:
            listed = self._object(self._single)
            return iter([listed] if wanted(listed.key) else [])
        return self._list(wanted)

    def find(self, key: str) -> SourceObject:
        """The object as it is now, by one HEAD request."""
        entry = self._store.find(self._folder + key)
        if entry is None:
            raise ObjectVanished("The object is gone", source=self.url, object=key)
        return self._object(entry)

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """One GET with a range, of the pinned version or with If-Match; None while there is no credential."""
        version, etag = self._pinned(listed)
        signed = self._store.get_request(self._folder + listed.key, version=version)
        if signed is None:
            return None
        url, headers = signed
        return Request(
            url,
            {**headers, "If-Match": f'"{etag}"'} if etag else headers,
            self._store.client,
            range=None if (start, end) == (0, listed.size) else (start, end),  # some servers know no ranges
            size=listed.size,
            verify=partial(self._verify, listed, version, etag),
        )

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """The same, and wait for it."""
        # Here, where the thread may wait for an identity service: `request` must not.
        self._store.prepare()
        super().read_into(listed, start, buffer)

    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above."""
        error = self._store.refusal(response, self._folder + key)
        error.object = key
        return error

    def _pinned(self, listed: SourceObject) -> tuple[str, str]:
        """Version and etag of an object, one of them empty."""
        kind, value = listed.pin.kind, listed.pin.value
        return (value, "") if kind == _VERSION else ("", value if kind == _ETAG else "")

    def _verify(self, listed: SourceObject, version: str, etag: str, response: Response) -> None:
        """Compare the version and the etag in a response: some servers ignore the conditions of a request.

        Raises:
            ObjectChanged: The response holds another state of the object.
        """
        if etag and response.has_etag(etag):
            return
        headers = response.headers
        sent_version = headers.get("x-goog-generation", "") or headers.get("x-amz-version-id", "")
        other_version = version and sent_version and sent_version != version
        other_etag = etag and headers.get("etag", "").strip('"') not in ("", etag)
        if other_version or other_etag:
            hint = "Stage again to read its new content."
            raise ObjectChanged("The object changed while it was read", hint=hint, source=self.url, object=listed.key)

    @cached_property
    def _single(self) -> ListedObject | None:
        """The object that the URL names; None when it names a folder."""
        if not self._key or self._key.endswith("/"):
            return None
        return self._store.find(self._key)

    @cached_property
    def _folder(self) -> str:
        """The prefix of all keys: empty, or with a slash at its end."""
        if self._single:
            return self._key[: self._key.rfind("/") + 1]
        return self._key if not self._key or self._key.endswith("/") else self._key + "/"

    def _list(self, wanted: Wanted) -> Iterator[SourceObject]:
        # Object stores have no folders: an empty listing is the only sign of a wrong address.
        empty = True
        for listed in self._store.listing(self._folder):
            empty = False
            if wanted(listed.key.removeprefix(self._folder)):
                yield self._object(listed)
        if empty:
            raise SourceError(
                "There is nothing at this address",
                hint="Check the folder's spelling; upper and lower case differ.",
                source=self.url,
            )

    def _object(self, listed: ListedObject) -> SourceObject:
        key = listed.key.removeprefix(self._folder)
        return SourceObject(key, listed.size, _pin(listed), listed.modified, self._checksums(listed))

    def _checksums(self, listed: ListedObject) -> tuple[tuple[str, str], ...]:
        """The checksums in the store's listing."""
        return listed.checksums


_ETAG, _VERSION = "etag", "generation"


def _pin(listed: ListedObject) -> Pin:
    if listed.version:
        return Pin(_VERSION, listed.version, "strong")
    return Pin(_ETAG, listed.etag, "strong") if listed.etag else Pin("mtime", str(listed.modified), "weak")
