"""Buckets and containers of object stores, read through obstore: what S3, Google and Azure have in common."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.manifest import path_problem
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.objects import Listed, ObjectStore
from prefect_stagegate.sources.base import BaseSource, Wanted, everything

if TYPE_CHECKING:
    from typing_extensions import Buffer


class BucketSource(BaseSource):
    """A bucket, a folder of it (with or without the slash at its end) or one object.

    The pin is the version where listings tell it, else the etag, and each read names it.

    Args:
        url: As people may see it.
        store: The bucket.
        key: The part of the URL behind the bucket.
    """

    def __init__(self, url: str, store: ObjectStore, key: str) -> None:
        self.url = url
        self._store = store
        self._named = key
        self.endpoint = store.endpoint
        self.identity = f"{store.endpoint} {url}"

    def close(self) -> None:
        """Let the connections go."""
        self._store.close()

    def credential_life(self) -> CredentialLife:
        """What the options, the environment or the block say of the credentials."""
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
        pin, key = listed.pin, self._folder + listed.key
        etag = pin.value if pin.kind == _ETAG else ""
        version = pin.value if pin.kind == _VERSION else ""
        try:
            yield from self._store.read(key, start, end, size=listed.size, etag=etag, version=version)
        except SourceError as error:
            error.object = listed.key
            raise

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
                hint="Check the folder's spelling; upper and lower case differ.",
                source=self.url,
            )

    def _object(self, listed: Listed) -> SourceObject:
        key = listed.key.removeprefix(self._folder)
        return SourceObject(key, listed.size, _pin(listed), listed.modified, self._checksums(listed))

    def _checksums(self, listed: Listed) -> tuple[tuple[str, str], ...]:
        """What the store offers to check the bytes by."""
        return listed.checksums

    def _is_folder_marker(self, listed: Listed) -> bool:
        """Whether this is an empty object that some tools put in place of a folder: its key ends with a slash.

        obstore takes the slash away, so only asking again by the shorter key tells a marker from an empty file.
        """
        return listed.size == 0 and not path_problem(listed.key) and self._store.find(listed.key) is None


_ETAG, _VERSION = "etag", "generation"


def _pin(listed: Listed) -> Pin:
    if listed.version:
        return Pin(_VERSION, listed.version, "strong")
    return Pin(_ETAG, listed.etag, "strong") if listed.etag else Pin("mtime", str(listed.modified), "weak")
