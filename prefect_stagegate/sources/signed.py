"""An object store's objects, read at addresses that obstore signs: from the connection to where the bytes go.

obstore's own client copies what it reads once more, into memory that is new each time, which took twice the processor
time, and can't be asked ahead. It is asked from then on when the first read fails, or the server refuses one: it tells
best what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.objects import ObjectStore
from prefect_stagegate.sources.webclient import WebClient
from prefect_stagegate.sources.webread import WebObjects, web_pin
from prefect_stagegate.sources.webwire import Answer, Headers

if TYPE_CHECKING:
    from typing_extensions import Buffer

_GIVEN = (200, 206)

T = TypeVar("T")


class SignedReads:
    """Reads of one bucket's objects. Safe to use from many threads.

    Args:
        store: Signs, and has the bucket's certificates.
        idle: Seconds without a byte after which a read is given up.
    """

    def __init__(self, store: ObjectStore, *, idle: float) -> None:
        self._store, self._idle = store, idle
        self._opened: _Signed | None = None
        self._lock = threading.Lock()
        self._usable = True
        self._proven = False
        self._asked: dict[str, str] = {}
        """Where objects were asked for ahead, by key."""

    def close(self) -> None:
        """Close the connections."""
        if self._opened:
            self._opened.close()

    def ask_ahead(self, soon: Sequence[tuple[str, SourceObject]]) -> bool:
        """Ask for the whole of objects that are read soon; False where that is left to their reads.

        Args:
            soon: The key of each object in the bucket, and as what it was listed.
        """
        addresses = self._addresses(soon) if self._proven else {}
        if not addresses:
            return False
        self._asked |= addresses
        objects = self._objects(next(iter(addresses.values())))
        return objects.ask_ahead([(addresses[key], listed) for key, listed in soon if key in addresses])

    def read(
        self, key: str, listed: SourceObject, start: int, end: int, by_obstore: Callable[[], Iterator[Buffer]]
    ) -> Iterator[Buffer]:
        """The bytes from `start` to `end` of an object.

        Args:
            key: The object's, in the bucket.
            listed: The object as it was listed.
            start: The first byte.
            end: The byte after the last one.
            by_obstore: Does the same, where it can't be done here.
        """
        return self._tried(key, listed, lambda objects, at: objects.read(at, listed, start, end), by_obstore)

    def fill(
        self,
        key: str,
        listed: SourceObject,
        start: int,
        end: int,
        buffer: memoryview,
        by_obstore: Callable[[], Iterator[int]],
    ) -> Iterator[int]:
        """The same bytes, put into `buffer` from its beginning; gives how many came each time some did."""
        return self._tried(key, listed, lambda objects, at: objects.fill(at, listed, start, end, buffer), by_obstore)

    def _tried(
        self,
        key: str,
        listed: SourceObject,
        here: Callable[[_Signed, str], Iterator[T]],
        by_obstore: Callable[[], Iterator[T]],
    ) -> Iterator[T]:
        address = self._asked.pop(key, "") or self._addresses([(key, listed)]).get(key, "")
        begun = False
        if address:
            try:
                for came in here(self._objects(address), address):
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

    def _addresses(self, objects: Sequence[tuple[str, SourceObject]]) -> dict[str, str]:
        """Where objects can be read, by key; without those for which obstore is to be asked."""
        keys = [key for key, listed in objects if listed.pin.kind == "etag"] if self._usable else []
        return dict(zip(keys, self._store.signed(keys), strict=False)) if keys else {}  # none where it can't sign

    def _objects(self, address: str) -> _Signed:
        with self._lock:
            if not self._opened:  # not before it is needed: reading the system's certificates takes time
                # A signed address goes nowhere else: a session token may stand in it.
                client = WebClient(
                    address,
                    {},
                    ca_file=self._store.ca_file,
                    idle=self._idle,
                    allowed=(),
                    proxied=True,
                    follows=False,
                )
                self._opened = _Signed(client, self._store.url, self._store.life.what)
            return self._opened


class _Signed(WebObjects):
    """Objects at signed addresses: the pin is the store's etag, and their encoding is their own."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _differs(self, answers: list[Headers], listed: SourceObject) -> bool:
        etag = answers[-1].get("etag", "")
        return bool(etag) and web_pin(etag, None, 0).value != listed.pin.value

    def _extent(self, answer: Answer, listed: SourceObject) -> tuple[int, int | None]:
        if answer.status not in _GIVEN or not self.ranges:
            told = f"The server doesn't give the part, but answers {answer.status}"
            raise SourceError(told, source=self._url, object=listed.key)
        return super()._extent(answer, listed)

    def _require_plain(self, answer: Answer, listed: SourceObject) -> None:
        """What is said of the encoding was said when the object was put, and its bytes are sent as they are."""
