"""The boundary between adapters and the rest: whatever is raised behind it leaves it as a typed error.

Adapters translate what their libraries say of servers and objects. What they don't foresee, from any library, becomes
`AdapterFailed` here, and so a failure of one object or one listing. The exception stays its cause. Causes that tell a
secret are replaced, also those of errors that an adapter translated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, cast

from prefect_stagegate.errors import AdapterFailed, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.http import Request, Response
from prefect_stagegate.model import CredentialLife, SourceObject
from prefect_stagegate.redaction import redact
from prefect_stagegate.redaction.chains import redact_chain
from prefect_stagegate.sources.base import Checksums, Source, Wanted, everything, public_url

CONNECTION_ERRORS = (ConnectionError, TimeoutError)
"""Python's own words for a connection that broke, whoever raises them: another try may help."""

log = logging.getLogger(__name__)


def bounded(url: str, make: Callable[[], Source]) -> Source:
    """Open a source from which nothing but typed errors come.

    Args:
        url: Its URL, as it was given.
        make: Makes its adapter.

    Raises:
        StagegateError: What the adapter raises, or `AdapterFailed`.
    """
    with _Boundary(f"what reads {url.partition(':')[0]}:", public_url(url)):
        source = make()
    return cast("Source", _BoundedSource(source))


class _Boundary:
    """Translates what its block raises. MemoryError passes: it is no adapter's, and ends the process's work.

    Args:
        adapter: The adapter's name, for a report.
        url: The source, without credentials.
        key: The object; empty for a listing.
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
                typed.__context__ = cause  # Python puts the exception there, and its text may tell a secret

    def _complete(self, error: StagegateError) -> None:
        """Name what an adapter's own error leaves out, and keep secrets out of its causes."""
        if isinstance(error, SourceError):
            error.source, error.object = error.source or self._url, error.object or self._key
        if error.__cause__ or error.__context__:
            suppressed = error.__suppress_context__
            error.__cause__ = redact_chain(error.__cause__)
            # What an adapter replaced by a cause of its own choice may quote a server.
            error.__context__ = error.__cause__ if suppressed else redact_chain(error.__context__)
            error.__suppress_context__ = suppressed

    def _typed(self, error: Exception) -> SourceError:
        if isinstance(error, CONNECTION_ERRORS):
            return SourceUnavailable(f"The connection failed: {_told(error)}", source=self._url, object=self._key)
        return adapter_failed(error, self._adapter, source=self._url, object=self._key)


class _BoundedSource:
    """A source in front of an adapter; what is not written here, that one does."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._adapter = f"{type(source).__module__}.{type(source).__qualname__}"
        self.url, self.identity, self.readers = source.url, source.identity, source.readers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    @property
    def ranges(self) -> bool:
        """Whether parts of objects can be read."""
        with self._boundary():
            return self._source.ranges

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object."""
        with self._boundary():
            yield from self._source.list(wanted)

    def find(self, key: str) -> SourceObject:
        """The object as it is now."""
        with self._boundary(key):
            return self._source.find(key)

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """How a range is requested."""
        with self._boundary(listed.key):
            return self._source.request(listed, start, end)

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        """What a failed request means."""
        boundary = self._boundary(listed.key)
        try:
            with boundary:
                raise self._source.explain(listed, outcome)
        except StagegateError as error:
            return error

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Fill a buffer with a range."""
        with self._boundary(listed.key):
            self._source.read_into(listed, start, buffer)

    def renew(self, since: float) -> bool:
        """Have fresh credentials."""
        with self._boundary():
            return self._source.renew(since)

    def confirm(self, listed: SourceObject) -> None:
        """Raise when the object's pin no longer holds."""
        with self._boundary(listed.key):
            self._source.confirm(listed)

    def closer_checksums(self, listed: SourceObject) -> Checksums:
        """Checksums that a closer look tells."""
        with self._boundary(listed.key):
            return self._source.closer_checksums(listed)

    def disowns_checksums(self, listed: SourceObject) -> bool:
        """Whether an offered checksum is not one of the bytes."""
        with self._boundary(listed.key):
            return self._source.disowns_checksums(listed)

    def credential_life(self) -> CredentialLife:
        """How long the credentials last."""
        with self._boundary():
            return self._source.credential_life()

    def close(self) -> None:
        """Free what the source holds. What goes wrong is logged: the work is done."""
        try:
            self._source.close()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the bytes are in the cache, and the process goes on
            log.warning("%s could not be closed: %s", self._adapter, _told(error))

    def _boundary(self, key: str = "") -> _Boundary:
        return _Boundary(self._adapter, self.url, key)


def adapter_failed(error: Exception, adapter: str, *, source: str, object: str) -> AdapterFailed:  # noqa: A002
    """The error for what no adapter may raise.

    Args:
        error: What was raised.
        adapter: The class that is to be mended, by its whole name.
        source: The source, without credentials.
        object: The object; empty for a listing.
    """
    hint = f"This is a defect of {adapter}: report it, with what --debug shows."
    return AdapterFailed(f"The adapter failed: {_told(error)}", hint=hint, source=source, object=object)


def _told(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
