"""The boundary around adapters: every exception that leaves it is a typed error.

Adapters translate the exceptions of their libraries. An exception that they don't foresee becomes `AdapterFailed` here,
so that it fails one object or one listing and no more; it stays the error's cause. Causes that hold a secret are
replaced, also those of errors that an adapter translated.

A source whose credentials expire in the middle of a job is opened once more with fresh ones.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from prefect_stagegate.errors import AdapterFailed, CredentialsExpired, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.model import CredentialLife, SourceObject
from prefect_stagegate.redaction import redact
from prefect_stagegate.redaction.chains import redact_chain
from prefect_stagegate.sources.adapter import Checksums, Source, Wanted, everything, public_url
from prefect_stagegate.transport.http import Headers, Request, Response

CONNECTION_ERRORS = (ConnectionError, TimeoutError)
"""Python's own exceptions for a broken connection: another try may help."""

T = TypeVar("T")
log = logging.getLogger(__name__)


def bounded(url: str, make: Callable[[], Source], *, renews: bool = False) -> Source:
    """Open a source that raises only typed errors.

    Args:
        url: The source.
        make: Opens it, with the credentials that blocks and the environment hold at that time.
        renews: Whether it is opened a second time when its credentials expire, and not a third time.

    Raises:
        StagegateError: What the adapter raises, or `AdapterFailed`.
    """
    return _BoundedSource(url, make, renews=renews)


class _Boundary:
    """Translates what its block raises. A MemoryError passes untouched: no adapter is to blame for it.

    `key` is empty for a listing.
    """

    __slots__ = ("_adapter", "_key", "_url")

    def __init__(self, adapter: str, url: str, key: str = "") -> None:
        self._adapter, self._url, self._key = adapter, url, key

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, StagegateError):
            self._complete(error)
        elif isinstance(error, Exception) and not isinstance(error, MemoryError):
            typed, cause = self._typed(error), redact_chain(error)
            try:
                raise typed from cause
            finally:
                typed.__context__ = cause  # Python has put `error` there, whose text may hold a secret

    def _complete(self, error: StagegateError) -> None:
        """Add source and object to an adapter's own error, and remove secrets from its causes."""
        if isinstance(error, SourceError):
            error.source, error.object = error.source or self._url, error.object or self._key
        if error.__cause__ or error.__context__:
            suppressed = error.__suppress_context__
            error.__cause__ = redact_chain(error.__cause__)
            # A context that the adapter suppressed may quote a server: put the redacted cause in its place.
            error.__context__ = error.__cause__ if suppressed else redact_chain(error.__context__)
            error.__suppress_context__ = suppressed

    def _typed(self, error: Exception) -> SourceError:
        if isinstance(error, CONNECTION_ERRORS):
            return SourceUnavailable(f"The connection failed: {_described(error)}", source=self._url, object=self._key)
        return adapter_failed(error, self._adapter, source=self._url, object=self._key)


class _BoundedSource:
    """An adapter, each of whose methods runs inside the boundary, again with fresh credentials where they expire."""

    def __init__(self, url: str, make: Callable[[], Source], *, renews: bool) -> None:
        self.url, self._make, self._renews = public_url(url), make, renews
        self._adapter = f"the adapter for {url.partition(':')[0]}"
        self._source = self._opened()
        self._adapter = f"{type(self._source).__module__}.{type(self._source).__qualname__}"
        self.url, self.identity, self.readers = self._source.url, self._source.identity, self._source.readers
        self._confirms = getattr(type(self._source), "confirm", None) is not Source.confirm
        self._renewed: float | None = None
        """When the source was opened again, by the monotonic clock."""
        self._lock = threading.Lock()

    @property
    def ranges(self) -> bool:
        with self._boundary():
            return self._source.ranges

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object. A listing whose credentials expire after its first object ends in the error."""
        started, has_objects = time.monotonic(), False
        try:
            with self._boundary():
                for listed in self._source.list(wanted):
                    has_objects = True
                    yield listed
        except CredentialsExpired:
            # Beginning again would list the first objects twice.
            if has_objects or not self.renew(started):
                raise
            with self._boundary():
                yield from self._source.list(wanted)

    def find(self, key: str) -> SourceObject:
        return self._retried(key, lambda source: source.find(key))

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        try:
            return self._source.request(listed, start, end)
        except Exception:
            # Raised again inside of the boundary, which costs nothing until then: this is called for each object.
            with self._boundary(listed.key):
                raise

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        try:
            with self._boundary(listed.key):  # completes and redacts errors that it sees raised
                raise self._source.explain(listed, outcome)
        except StagegateError as error:
            return error

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        self._retried(listed.key, lambda source: source.read_into(listed, start, buffer))

    def renew(self, since: float) -> bool:
        """Open the source again, unless another thread did since. The old one stays open: reads may still use it."""
        if not self._renews:
            with self._boundary():
                return self._source.renew(since)
        with self._lock:
            # Opened again only once. Reads that failed before that are to try again with the new credentials.
            if self._renewed is None:
                self._source = self._opened()
                self._renewed = time.monotonic()
                return True
            return since < self._renewed

    def confirm(self, listed: SourceObject) -> None:
        if self._confirms:
            self._retried(listed.key, lambda source: source.confirm(listed))

    def response_checksums(self, headers: Headers) -> Checksums:
        with self._boundary():
            return self._source.response_checksums(headers)

    def closer_checksums(self, listed: SourceObject) -> Checksums:
        with self._boundary(listed.key):
            return self._source.closer_checksums(listed)

    def disowns_checksums(self, listed: SourceObject) -> bool:
        with self._boundary(listed.key):
            return self._source.disowns_checksums(listed)

    def credential_life(self) -> CredentialLife:
        with self._boundary():
            return self._source.credential_life()

    def close(self) -> None:
        """Free what the source holds. A failure is only logged: the work is done by then."""
        try:
            self._source.close()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the bytes are in the cache, and the process goes on
            log.warning("%s could not be closed: %s", self._adapter, _described(error))

    def _opened(self) -> Source:
        with self._boundary():
            return self._make()

    def _retried(self, key: str, call: Callable[[Source], T]) -> T:
        started = time.monotonic()
        try:
            with self._boundary(key):
                return call(self._source)
        except CredentialsExpired:
            if not self.renew(started):
                raise
            with self._boundary(key):
                return call(self._source)

    def _boundary(self, key: str = "") -> _Boundary:
        return _Boundary(self._adapter, self.url, key)


def adapter_failed(error: Exception, adapter: str, *, source: str, object: str) -> AdapterFailed:  # noqa: A002
    """The error for an exception that an adapter should have translated.

    `adapter` is the full name of the class that has the defect; `object` is empty for a listing.
    """
    hint = f"This is a defect of {adapter}: report it with the output of --debug."
    return AdapterFailed(f"The adapter failed: {_described(error)}", hint=hint, source=source, object=object)


def _described(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
