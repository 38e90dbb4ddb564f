"""What a source promises.

A source lists objects with what fixes them (their pins), and says how exactly the bytes are read that a pin names: by
an HTTP request, which others send, or by a call that blocks. Bytes that come belong to the object as it was listed, or
an error is raised: they are never spliced from two states of it.

Every error that leaves a source is one of errors.py, and its `retryable` is the source's judgement: whoever reads never
looks at a library's exception. A source may be used by many threads at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

from prefect_stagegate.errors import ObjectChanged, SourceError, StagegateError
from prefect_stagegate.http import Headers, Request, Response
from prefect_stagegate.model import CredentialLife, SourceObject

PIECE = 1 << 20
"""Bytes that `read_pieces` reads at a time."""

Checksums = tuple[tuple[str, str], ...]
"""Algorithm and lowercase hex digest of whole objects."""
Wanted = Callable[[str], bool]
"""Whether a key is taken; what isn't is neither listed nor refused."""


def everything(_: str) -> bool:
    """Take every key."""
    return True


def public_url(url: str) -> str:
    """The URL as people may see it: without user, password and query, where signatures stand.

    >>> public_url("sftp://me:secret@nas.example.org/data/?sig=abc")
    'sftp://nas.example.org/data/'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("/")
    if "@" in path and ":" in host and not host.rpartition(":")[2].isdigit():  # a slash in the password
        host, slash, path = rest.rpartition("@")[2].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def server_of(identity: str) -> str:
    """The part of a source's identity that names whom it asks: server and bucket, or the host; all of a local folder's.

    >>> server_of("http://10.0.0.1:8333 s3://lake/flights/2013/"), server_of("file:///mnt/nas/lake/")
    ('http://10.0.0.1:8333 s3://lake', 'file:///mnt/nas/lake/')
    """
    before, separator, rest = identity.rpartition("://")
    host = rest.partition("/")[0]
    return f"{before}{separator}{host}" if separator and host else identity


class Source(Protocol):
    """One place that objects are read from. `open_source` makes one for a URL."""

    url: str
    """As people should see it: without credentials."""
    identity: str
    """Server and URL, without credentials; what the node remembers about pins is kept by it."""

    readers: int
    """Threads that call `read_into` at a time, at most."""

    @property
    def ranges(self) -> bool:
        """Whether parts of objects can be read without reading the rest."""

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object, a page at a time, in no promised order, without a request per object.

        Args:
            wanted: Asked with each key, before anything about the object is judged.

        Raises:
            SourceError: There is nothing at the URL, it can't be listed, or an object can't be read as a file.
        """

    def find(self, key: str) -> SourceObject:
        """The object as it is now.

        Raises:
            ObjectVanished: There is none.
        """

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """How the bytes from `start` to `end` (exclusive) are requested over HTTP; None where `read_into` reads them.

        Called for each read in the thread that has all requests under way, so it must not block.
        """

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        """What it means that a request of `request` failed: the error to raise. May ask the server further questions.

        Args:
            listed: The object.
            outcome: A response of 300 or above, or what went wrong on the way.
        """

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Fill the whole `buffer` with the object's bytes from `start` on. Blocks; called by many threads.

        An empty buffer asks only whether the object still has its pin.

        Raises:
            ObjectChanged: The object no longer has its pin.
            ObjectVanished: It is gone.
            SourceUnavailable: The server failed or stopped answering.
        """

    def renew(self, since: float) -> bool:
        """Replace the credentials that were in use at a time of the monotonic clock; False where there are no others.

        Called once a failed read said `CredentialsExpired`.
        """

    def confirm(self, listed: SourceObject) -> None:
        """Called once after the last byte of an object: raise `ObjectChanged` when its pin no longer holds.

        A source whose every read is pinned has nothing to do.
        """

    def response_checksums(self, headers: Headers) -> Checksums:
        """What the headers of a response with a whole object offer to check its bytes by."""

    def closer_checksums(self, listed: SourceObject) -> Checksums:
        """What a request for this object alone tells to check its bytes by. May block."""

    def disowns_checksums(self, listed: SourceObject) -> bool:
        """Asked when the bytes don't match a checksum: True when, at a closer look, it isn't one of the bytes."""

    def credential_life(self) -> CredentialLife:
        """How long the credentials that open the source last, as far as the client tells; asks no server for data."""

    def close(self) -> None:
        """Free what the source holds; it can't be used afterwards."""


class BaseSource(ABC):
    """What most adapters have in common: nothing to confirm, checksums that hold, nothing to close."""

    url: str
    readers = 16
    """Threads that call `read_into` at a time."""

    @property
    def ranges(self) -> bool:
        """Whether parts of objects can be read without reading the rest."""
        return True

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:  # noqa: ARG002
        """Leave it to `read_into`."""
        return None

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:  # noqa: ARG002
        """Pass an error on; a response only comes to who requests."""
        if isinstance(outcome, Response):
            return SourceError(f"The server answers {outcome.status}")
        return as_typed(outcome)

    @abstractmethod
    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Fill the whole buffer with the object's bytes from `start` on."""

    def renew(self, since: float) -> bool:  # noqa: ARG002
        """Say that there are no others."""
        return False

    def confirm(self, listed: SourceObject) -> None:  # noqa: B027 - most have nothing to do
        """Do nothing: every read is pinned."""

    def response_checksums(self, headers: Headers) -> Checksums:  # noqa: ARG002
        """Offer nothing."""
        return ()

    def closer_checksums(self, listed: SourceObject) -> Checksums:  # noqa: ARG002
        """Offer nothing."""
        return ()

    def disowns_checksums(self, listed: SourceObject) -> bool:  # noqa: ARG002
        """Stand by the offered checksums."""
        return False

    def credential_life(self) -> CredentialLife:
        """Say that nobody can tell."""
        return CredentialLife("unknown", f"what opens {self.__class__.__name__}")

    def close(self) -> None:  # noqa: B027
        """Do nothing."""


def read_pieces(source: Source, listed: SourceObject, start: int, end: int) -> Iterator[memoryview]:
    """The bytes from `start` to `end` (exclusive) in pieces, each valid until the next one is asked for.

    Raises:
        SourceError: What `read_into` raises.
    """
    buffer = memoryview(bytearray(min(PIECE, end - start)))
    while True:
        piece = buffer[: min(PIECE, end - start)]
        source.read_into(listed, start, piece)
        start += len(piece)
        yield piece
        if start >= end:
            return


def as_typed(error: Exception) -> StagegateError:
    """The error itself; a defect's is raised, for the boundary behind which adapters are to name."""
    if isinstance(error, StagegateError):
        return error
    raise error


def require_unchanged(source: Source, listed: SourceObject, what: str = "object") -> None:
    """Ask for an object's pin and size once more.

    Args:
        source: Whose it is.
        listed: The object as it was listed.
        what: What the source's people call it.

    Raises:
        ObjectChanged: They are others.
        ObjectVanished: It is gone.
    """
    found = source.find(listed.key)
    if (found.pin, found.size) != (listed.pin, listed.size):
        raise ObjectChanged(f"The {what} changed while it was read", source=source.url, object=listed.key)
