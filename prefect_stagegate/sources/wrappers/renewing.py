"""Sources whose credentials expire in the middle of a job: they are opened once more with fresh ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from prefect_stagegate.errors import CredentialsExpired, StagegateError
from prefect_stagegate.model import CredentialLife, SourceObject
from prefect_stagegate.sources.adapter import Checksums, Source, Wanted, everything
from prefect_stagegate.transport.http import Headers, Request, Response

T = TypeVar("T")


def renewing(reopen: Callable[[], Source]) -> Source:
    """Open a source that is opened a second time when its credentials expire, and not a third time.

    Args:
        reopen: Opens it with the credentials that blocks and the environment hold at that time.
    """
    return _RenewingSource(reopen)


class _RenewingSource:
    """Calls the source that is open now; a blocking call whose credentials expire is made again with fresh ones."""

    def __init__(self, reopen: Callable[[], Source]) -> None:
        self._reopen = reopen
        self._source = reopen()
        self.url, self.identity, self.readers = self._source.url, self._source.identity, self._source.readers
        self._renewed: float | None = None
        """When the source was opened again, by the monotonic clock."""
        self._lock = threading.Lock()

    @property
    def ranges(self) -> bool:
        return self._source.ranges

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object. A listing whose credentials expire after its first object ends in the error."""
        started, has_objects = time.monotonic(), False
        try:
            for listed in self._source.list(wanted):
                has_objects = True
                yield listed
        except CredentialsExpired:
            # Beginning again would list the first objects twice.
            if has_objects or not self.renew(started):
                raise
            yield from self._source.list(wanted)

    def find(self, key: str) -> SourceObject:
        return self._retried(lambda source: source.find(key))

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        return self._source.request(listed, start, end)

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        return self._source.explain(listed, outcome)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        self._retried(lambda source: source.read_into(listed, start, buffer))

    def confirm(self, listed: SourceObject) -> None:
        self._retried(lambda source: source.confirm(listed))

    def renew(self, since: float) -> bool:
        """Open the source again, unless another thread did since. The old one stays open: reads may still use it."""
        with self._lock:
            # Opened again only once. Reads that failed before that are to try again with the new credentials.
            if self._renewed is None:
                self._source = self._reopen()
                self._renewed = time.monotonic()
                return True
            return since < self._renewed

    def response_checksums(self, headers: Headers) -> Checksums:
        return self._source.response_checksums(headers)

    def closer_checksums(self, listed: SourceObject) -> Checksums:
        return self._source.closer_checksums(listed)

    def disowns_checksums(self, listed: SourceObject) -> bool:
        return self._source.disowns_checksums(listed)

    def credential_life(self) -> CredentialLife:
        return self._source.credential_life()

    def close(self) -> None:
        self._source.close()

    def _retried(self, call: Callable[[Source], T]) -> T:
        started = time.monotonic()
        try:
            return call(self._source)
        except CredentialsExpired:
            if not self.renew(started):
                raise
            return call(self._source)
