"""The `Source` protocol: what every adapter promises.

A source lists objects, each with its pin: what identifies one state of the object. It reads the bytes of that state by
an HTTP request, which the caller sends, or by a call that blocks. The bytes belong to the object as it was listed, or
the read raises an error: they never mix two states of an object.

Every error that leaves a source is one of errors.py. The source sets its `retryable`, so that no caller looks at a
library's exception. Many threads may use a source at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from prefect_stagegate.errors import ObjectChanged, SourceBusy, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.model import CredentialLife, SourceObject
from prefect_stagegate.units import count_text

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Headers, Request, Response

PIECE = 1 << 20
"""Bytes that `read_pieces` reads at a time."""

Checksums = tuple[tuple[str, str], ...]
"""Pairs of algorithm and lowercase hex digest, each of a whole object."""
Wanted = Callable[[str], bool]
"""Whether a key is wanted. Other keys are neither listed nor refused."""


def everything(_: str) -> bool:
    """Want every key."""
    return True


def public_url(url: str) -> str:
    """The URL without user, password and query (which may hold a signature), as people may see it.

    >>> public_url("sftp://me:secret@nas.example.org/data/?sig=abc")
    'sftp://nas.example.org/data/'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("/")
    # A password with a slash in it cuts the URL too early: the real host stands behind the last @.
    if "@" in path and ":" in host and not host.rpartition(":")[2].isdigit():
        host, slash, path = rest.rpartition("@")[2].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def server_of(identity: str) -> str:
    """The part of a source's identity that names its server: endpoint and bucket, or the host; a local folder's whole.

    >>> server_of("http://10.0.0.1:8333 s3://lake/flights/2013/"), server_of("file:///mnt/nas/lake/")
    ('http://10.0.0.1:8333 s3://lake', 'file:///mnt/nas/lake/')
    """
    before, separator, rest = identity.rpartition("://")
    host = rest.partition("/")[0]
    return f"{before}{separator}{host}" if separator and host else identity


class Source(Protocol):
    """One place that objects are read from. `open_source` makes one for a URL. Adapters subclass `BaseSource`."""

    url: str
    """As people may see it: without credentials."""
    identity: str
    """Server, URL and each option that changes bytes, without credentials: a node remembers pins under it."""

    readers: int
    """Most threads that may call `read_into` at a time."""

    @property
    def ranges(self) -> bool:
        """Whether parts of objects can be read without reading the rest."""
        return True

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object, a page at a time, in any order, without a request per object.

        Args:
            wanted: Called with each key before anything else about the object is examined.

        Raises:
            SourceError: There is nothing at the URL, it can't be listed, or a wanted entry is no readable file.
        """

    def find(self, key: str) -> SourceObject:
        """The object as it is now.

        Raises:
            ObjectVanished: There is no such object.
        """

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:  # noqa: ARG002
        """The HTTP request for the bytes from `start` to `end` (exclusive); None where only `read_into` reads them.

        The one thread that runs all requests calls this for each read, so it must not block.
        """
        return None

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:  # noqa: ARG002
        """The error to raise for a failed request of `request`. May send further requests to the server.

        Args:
            listed: The object that was requested.
            outcome: A response with a status of 300 or above, or the exception that the request raised.
        """
        if isinstance(outcome, Exception):
            return as_typed(outcome)
        return SourceError(f"The server answers {outcome.status}")  # a source without `request` gets none

    @abstractmethod
    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Fill the whole `buffer` with the object's bytes from `start` on. Blocks; called by many threads.

        With an empty buffer, only check that the object still has its pin.

        Raises:
            ObjectChanged: The object no longer has its pin.
            ObjectVanished: It is gone.
            SourceUnavailable: The server failed or stopped answering.
        """

    def renew(self, since: float) -> bool:  # noqa: ARG002
        """Replace credentials that have expired; False where there are no others.

        Called after a read raised `CredentialsExpired`.

        Args:
            since: When the failed read began, by the monotonic clock. Credentials replaced since then are kept.
        """
        return False

    def confirm(self, listed: SourceObject) -> None:  # noqa: ARG002
        """Raise `ObjectChanged` when the object no longer has its pin. Called once, after its last byte.

        A source whose every read is pinned has nothing to do.
        """
        return

    def response_checksums(self, headers: Headers) -> Checksums:  # noqa: ARG002
        """Checksums of the object from the headers of a response with all of its bytes."""
        return ()

    def closer_checksums(self, listed: SourceObject) -> Checksums:  # noqa: ARG002
        """Checksums of the object from a request for it alone. May block."""
        return ()

    def disowns_checksums(self, listed: SourceObject) -> bool:  # noqa: ARG002
        """Whether the listed checksum is not one of the object's bytes. Called when they don't match it."""
        return False

    def credential_life(self) -> CredentialLife:
        """How long the source's credentials last, as far as the client knows. Reads no data from a server."""
        return CredentialLife("unknown", f"the credential of {self.__class__.__name__}")

    def close(self) -> None:
        """Free what the source holds. It can't be used afterwards."""
        return


class BaseSource(Source):
    """What adapters subclass: nothing to confirm, checksums that hold, nothing to close, unless they say otherwise."""

    readers = 16


def read_pieces(source: Source, listed: SourceObject, start: int, end: int) -> Iterator[memoryview]:
    """The bytes from `start` to `end` (exclusive) in pieces, each valid until the next one is taken.

    Raises:
        SourceError: What `read_into` raises.
    """
    buffer = memoryview(bytearray(min(PIECE, end - start)))
    while True:
        piece = buffer[: min(PIECE, end - start)]
        # At least once: an empty read checks the pin of an empty object.
        source.read_into(listed, start, piece)
        start += len(piece)
        yield piece
        if start >= end:
            return


def as_typed(error: Exception) -> StagegateError:
    """Return a typed error; raise any other, so that the boundary reports it as a defect of the adapter."""
    if isinstance(error, StagegateError):
        return error
    raise error


def server_busy(headers: Mapping[str, str], *, source: str, key: str) -> SourceBusy:
    """The error for a server that is too busy, with the seconds of its Retry-After.

    The names of headers may be in any case.
    """
    from prefect_stagegate.transport.http import retry_after

    busy = SourceBusy("The server is too busy", source=source, object=key)
    busy.retry_after = retry_after({name.lower(): text for name, text in headers.items()})
    return busy


def require_length(received: int, wanted: int, source: Source, key: str) -> None:
    """Compare the number of bytes that a client returned with the requested one.

    Raises:
        SourceError: There are more: the server may not support byte ranges.
        SourceUnavailable: There are fewer.
    """
    if received > wanted:
        message = (
            f"The server sent more than the requested {count_text(wanted, 'byte')}: it may not support byte ranges"
        )
        raise SourceError(message, source=source.url, object=key)
    if received < wanted:
        message = f"The read ended {count_text(wanted - received, 'byte')} early"
        raise SourceUnavailable(message, source=source.url, object=key)


def require_unchanged(source: Source, listed: SourceObject, noun: str = "object") -> None:
    """Look the object up and compare pin and size with the listed ones.

    `noun` is what the error calls the object.

    Raises:
        ObjectChanged: Pin or size differ.
        ObjectVanished: The object is gone.
    """
    current = source.find(listed.key)
    if (current.pin, current.size) != (listed.pin, listed.size):
        raise ObjectChanged(f"The {noun} changed while it was read", source=source.url, object=listed.key)
