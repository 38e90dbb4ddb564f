"""Credentials that expire in the middle of a job: the source is opened once more with fresh ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prefect_stagegate.errors import CredentialsExpired
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.base import Source, Wanted, everything

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
        self.url, self.identity = self._source.url, self._source.identity
        self._renewed = False
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object. A listing whose credentials expire behind its first object ends in the error."""
        return self._stream(lambda source: source.list(wanted))

    def find(self, key: str) -> SourceObject:
        """The object as it is now."""
        return self._ask(lambda source: source.find(key))

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """The bytes of a range."""
        return self._stream(lambda source: source.read(listed, start, end))

    def fill(self, listed: SourceObject, start: int, end: int, buffer: memoryview) -> Iterator[int]:
        """The bytes of a range, put into a buffer."""
        return self._stream(lambda source: source.fill(listed, start, end, buffer))

    def confirm(self, listed: SourceObject) -> None:
        """Raise when the object's pin no longer holds."""
        self._ask(lambda source: source.confirm(listed))

    def _ask(self, question: Callable[[Source], T]) -> T:
        source = self._source
        try:
            return question(source)
        except CredentialsExpired as error:
            return question(self._successor(source, error))

    def _stream(self, question: Callable[[Source], Iterator[T]]) -> Iterator[T]:
        source, begun = self._source, False
        try:
            for one in question(source):
                begun = True
                yield one
        except CredentialsExpired as error:
            if begun:
                raise
            yield from question(self._successor(source, error))

    def _successor(self, expired: Source, error: CredentialsExpired) -> Source:
        """The source with fresh credentials, opened by the first thread that finds the old ones expired.

        The old one stays open: others may still read from it.
        """
        with self._lock:
            if self._source is expired:
                if self._renewed:
                    raise error
                self._renewed = True
                self._source = self._reopen()
            return self._source
