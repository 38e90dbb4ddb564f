"""What a source promises.

A source lists objects with what fixes them (their pins), and reads exactly the bytes that a pin names. Bytes that it
yields belong to the object as it was listed, or an error is raised: they are never spliced from two states of it.

Every error that leaves a source is one of errors.py, and its `retryable` is the source's judgement: whoever reads never
looks at a library's exception. A source may be used by many threads at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from prefect_stagegate.errors import ObjectChanged, SourceError
from prefect_stagegate.model import CredentialLife, SourceObject
from prefect_stagegate.units import count_text

if TYPE_CHECKING:
    from typing_extensions import Buffer

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

    def ask_ahead(self, soon: Sequence[SourceObject]) -> bool:
        """Told of objects that are read soon and whole: a source may ask its server now, and wait when they are read.

        Nothing is raised: the read tells what went wrong.

        Returns:
            Whether it did.
        """

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """The bytes from `start` to `end` (exclusive), in chunks that are valid until the next one is asked for.

        Raises:
            ObjectChanged: The object no longer has its pin.
            ObjectVanished: It is gone.
            SourceUnavailable: The server failed or stopped answering.
        """

    def fill(self, listed: SourceObject, start: int, end: int, buffer: memoryview) -> Iterator[int]:
        """The same bytes, put into `buffer` from its beginning; gives how many came each time some did.

        Args:
            listed: The object.
            start: The first byte.
            end: The byte after the last one.
            buffer: Has room for all of them.

        Raises:
            SourceError: What `read` raises, or the server sent more than was asked for.
        """

    def confirm(self, listed: SourceObject) -> None:
        """Called once after the last byte of an object: raise `ObjectChanged` when its pin no longer holds.

        A source whose every read is pinned has nothing to do.
        """

    def disowns_checksums(self, listed: SourceObject) -> bool:
        """Asked when the bytes don't match a checksum: True when, at a closer look, it isn't one of the bytes."""

    def credential_life(self) -> CredentialLife:
        """How long the credentials that open the source last, as far as the client tells; asks no server for data."""

    def close(self) -> None:
        """Free what the source holds; it can't be used afterwards."""


class BaseSource:
    """What most adapters have in common: nothing to confirm, checksums that hold, nothing to close.

    An adapter whose client can read into memory that is there has a `fill` of its own, which spares a copy.
    """

    url: str

    @property
    def ranges(self) -> bool:
        """Whether parts of objects can be read without reading the rest."""
        return True

    def ask_ahead(self, soon: Sequence[SourceObject]) -> bool:  # noqa: ARG002
        """Ask nobody."""
        return False

    @abstractmethod
    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """The bytes from `start` to `end` (exclusive)."""

    def fill(self, listed: SourceObject, start: int, end: int, buffer: memoryview) -> Iterator[int]:
        """Copy what is read."""
        position = 0
        for chunk in self.read(listed, start, end):
            view = memoryview(chunk)
            came = len(view)
            if position + came > end - start:
                raise too_much(self.url, listed.key, end - start)
            buffer[position : position + came] = view
            position += came
            yield came

    def confirm(self, listed: SourceObject) -> None:
        """Do nothing: every read is pinned."""

    def disowns_checksums(self, listed: SourceObject) -> bool:  # noqa: ARG002
        """Stand by the offered checksums."""
        return False

    def credential_life(self) -> CredentialLife:
        """Say that nobody can tell."""
        return CredentialLife("unknown", f"what opens {self.__class__.__name__}")

    def close(self) -> None:
        """Do nothing."""


def too_much(url: str, key: str, count: int) -> SourceError:
    """What to raise when a read gives more than the `count` bytes that were asked for: they may be others, too."""
    told = f"The server sent more than was asked for ({count_text(count, 'byte')}); it may know no ranges"
    return SourceError(told, source=url, object=key)


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
