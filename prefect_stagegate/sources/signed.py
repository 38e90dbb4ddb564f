"""Large parts of an object store's objects, read from the connection by Python's own client, at signed addresses.

obstore's client copies what it reads once more, into memory that is new each time: reading 2 GiB took it twice the
processor time. It signs the address, and it is asked whenever anything is not as it should be, for it tells best what
is wrong.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from typing import TYPE_CHECKING

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.objects import ObjectStore
from prefect_stagegate.sources.webclient import WebClient
from prefect_stagegate.sources.webread import WebObjects, web_pin

if TYPE_CHECKING:
    from typing_extensions import Buffer

LARGE = 1 << 20
"""Parts of more bytes are read so: for smaller ones obstore takes less time."""


class SignedReads:
    """The large reads of one bucket. Safe to use from many threads.

    Args:
        store: Signs, and has the bucket's certificates.
        idle: Seconds without a byte after which a read is given up.
    """

    def __init__(self, store: ObjectStore, *, idle: float) -> None:
        self._store, self._idle = store, idle
        self._client: WebClient | None = None
        self._lock = threading.Lock()
        self._usable = True
        self._proven = False

    def close(self) -> None:
        """Close the connections."""
        if self._client:
            self._client.close()

    def read(
        self, key: str, listed: SourceObject, start: int, end: int, otherwise: Callable[[], Iterator[Buffer]]
    ) -> Iterator[Buffer]:
        """The bytes from `start` to `end` of an object that its etag pins.

        Args:
            key: The object's, in the bucket.
            listed: The object as it was listed.
            start: The first byte.
            end: The byte after the last one.
            otherwise: Reads the same by obstore: small parts, and whatever can't be read here.
        """
        large = end - start > LARGE and listed.pin.kind == "etag"
        address = self._store.signed(key) if large and self._usable else ""
        if not address:
            yield from otherwise()
            return
        begun = False
        try:
            for chunk in self._objects(address).read(address, listed, start, end):
                begun = True
                yield chunk
        except StagegateError as error:
            known = isinstance(error, SourceUnavailable | ObjectChanged | ObjectVanished)
            self._usable &= known
            if begun or (self._proven and isinstance(error, SourceUnavailable)):
                raise
        else:
            self._proven = True
            return
        yield from otherwise()

    def _objects(self, address: str) -> _Signed:
        with self._lock:
            if not self._client:  # not before it is needed: reading the system's certificates takes time
                ca_file = self._store.ca_file
                self._client = WebClient(address, {}, ca_file=ca_file, idle=self._idle, allowed=(), proxied=True)
        return _Signed(self._client, self._store.url, self._store.life.what)


class _Signed(WebObjects):
    """Objects at signed addresses: the pin is the store's etag, and their encoding is their own."""

    def _differs(self, answers: list[Message], listed: SourceObject) -> bool:
        etag = answers[-1].get("ETag", "")
        return bool(etag) and web_pin(etag, None, 0).value != listed.pin.value

    def _extent(self, answer: http.client.HTTPResponse, listed: SourceObject) -> tuple[int, int | None]:
        if not self.ranges:
            raise SourceError("The server sends no parts", source=self._url, object=listed.key)
        return super()._extent(answer, listed)

    def _require_plain(self, answer: http.client.HTTPResponse, listed: SourceObject) -> None:
        """What is said of the encoding was said when the object was put, and its bytes are sent as they are."""
