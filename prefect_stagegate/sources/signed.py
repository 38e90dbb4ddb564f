"""Parts of an object store's objects, read from the connection into a buffer, at addresses that obstore signs.

obstore's own client copies what it reads once more, into memory that is new each time, which took twice the processor
time. It is asked from then on when the first read fails, or the server refuses one: it tells best what is wrong.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from email.message import Message

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.objects import ObjectStore
from prefect_stagegate.sources.webclient import WebClient
from prefect_stagegate.sources.webread import WebObjects, web_pin

_GIVEN = (200, 206)


class SignedReads:
    """Reads of one bucket's parts. Safe to use from many threads.

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

    def fill(
        self,
        key: str,
        listed: SourceObject,
        start: int,
        end: int,
        buffer: memoryview,
        by_obstore: Callable[[], Iterator[int]],
    ) -> Iterator[int]:
        """Put the bytes from `start` to `end` of an object into `buffer`; gives how many came each time some did.

        Args:
            key: The object's, in the bucket.
            listed: The object as it was listed.
            start: The first byte.
            end: The byte after the last one.
            buffer: Has room for all of them.
            by_obstore: Does the same, where it can't be done here.
        """
        address = self._store.signed(key) if self._usable and listed.pin.kind == "etag" else ""
        begun = False
        if address:
            try:
                for came in self._objects(address).fill(address, listed, start, end, buffer):
                    begun = True
                    yield came
            except (SourceError, UsageError) as error:
                told = isinstance(error, SourceUnavailable | ObjectChanged | ObjectVanished)
                self._usable &= told and self._proven
                if told or begun:
                    raise
            else:
                self._proven = True
                return
        yield from by_obstore()

    def _objects(self, address: str) -> _Signed:
        with self._lock:
            if not self._client:  # not before it is needed: reading the system's certificates takes time
                # A signed address goes nowhere else: a session token may stand in it.
                self._client = WebClient(
                    address,
                    {},
                    ca_file=self._store.ca_file,
                    idle=self._idle,
                    allowed=(),
                    proxied=True,
                    follows=False,
                )
        return _Signed(self._client, self._store.url, self._store.life.what)


class _Signed(WebObjects):
    """Objects at signed addresses: the pin is the store's etag, and their encoding is their own."""

    def _differs(self, answers: list[Message], listed: SourceObject) -> bool:
        etag = answers[-1].get("ETag", "")
        return bool(etag) and web_pin(etag, None, 0).value != listed.pin.value

    def _extent(self, answer: http.client.HTTPResponse, listed: SourceObject) -> tuple[int, int | None]:
        if answer.status not in _GIVEN or not self.ranges:
            told = f"The server doesn't give the part, but answers {answer.status}"
            raise SourceError(told, source=self._url, object=listed.key)
        return super()._extent(answer, listed)

    def _require_plain(self, answer: http.client.HTTPResponse, listed: SourceObject) -> None:
        """What is said of the encoding was said when the object was put, and its bytes are sent as they are."""
