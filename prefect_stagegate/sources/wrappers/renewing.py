"""Credentials that expire in the middle of a job: the source is opened once more with fresh ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from prefect_stagegate.errors import CredentialsExpired
from prefect_stagegate.http import Request
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.base import Source, Wanted, everything

T = TypeVar("T")


def renewing(reopen: Callable[[], Source]) -> Source:
    """Open a source that is opened a second time when its credentials expire, and not a third time.

    Args:
        reopen: Opens it, with credentials as they are now: blocks and the environment are asked again.
    """
    return cast("Source", _RenewingSource(reopen))


class _RenewingSource:
    """A source in front of the one that is open; what is not written here, that one does."""

    def __init__(self, reopen: Callable[[], Source]) -> None:
        self._reopen = reopen
        self._source = reopen()
        self.url, self.identity, self.readers = self._source.url, self._source.identity, self._source.readers
        self._renewed: float | None = None
        """When the source was opened again, by the monotonic clock."""
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object. A listing whose credentials expire behind its first object ends in the error."""
        started, began = time.monotonic(), False
        try:
            for listed in self._source.list(wanted):
                began = True
                yield listed
        except CredentialsExpired:
            if began or not self.renew(started):
                raise
            yield from self._source.list(wanted)

    def find(self, key: str) -> SourceObject:
        """The object as it is now."""
        return self._retried(lambda source: source.find(key))

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """How a range is requested."""
        return self._source.request(listed, start, end)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Fill a buffer with a range."""
        self._retried(lambda source: source.read_into(listed, start, buffer))

    def confirm(self, listed: SourceObject) -> None:
        """Raise when the object's pin no longer holds."""
        self._retried(lambda source: source.confirm(listed))

    def renew(self, since: float) -> bool:
        """Open the source again, unless somebody did since then. The old one stays open: others may still use it."""
        with self._lock:
            if self._renewed is None:
                self._source = self._reopen()
                self._renewed = time.monotonic()
                return True
            return since < self._renewed

    def _retried(self, call: Callable[[Source], T]) -> T:
        started = time.monotonic()
        try:
            return call(self._source)
        except CredentialsExpired:
            if not self.renew(started):
                raise
            return call(self._source)
