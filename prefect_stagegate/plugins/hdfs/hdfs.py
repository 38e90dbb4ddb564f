"""HDFS, read through hdfs-native's client. Its wrapper for fsspec would cut names at `#`, `?` and `;`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.sources.adapter import (
    BaseSource,
    Wanted,
    everything,
    public_url,
    require_length,
    require_unchanged,
)
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.walk import Walk
from prefect_stagegate.sources.wrappers.timeout import with_timeout

CONNECT_SECONDS = 5.0
_DENIED = ("AccessControlException", "GssapiError", "Kerberos", "SaslException", "AuthorizationException")

T = TypeVar("T")


class HdfsSource(BaseSource):
    """A folder or one file of a NameNode or name service.

    The pin is the time of modification in ms: weak. It is compared before and after each read.

    Args:
        url: `hdfs://namenode:8020/lake/flights/`, or with a name service of HADOOP_CONF_DIR's files. The path is not
            percent-encoded.
        options: Hadoop's own settings by name (`dfs.…`), which override those files.
        terms: Its idle time ends calls without an answer: the client itself would wait for ever.

    Raises:
        UsageError: The client can't use an option.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        self.url = public_url(url)
        # A name service of the URL may be another cluster's.
        servers = sorted(str(value) for name, value in options.items() if name.startswith("dfs.namenode.rpc-address."))
        self.identity = " ".join([*servers, self.url])
        place, _, path = url.partition("://")[2].partition("/")
        self._address, self._path, self._terms = place, f"/{path}", terms
        from hdfs_native import Client

        try:
            self._client = Client(f"hdfs://{place}", {name: str(value) for name, value in options.items()} or None)
        except (RuntimeError, ValueError, OSError) as error:
            raise UsageError(f"{self.url} can't be opened: {_first_line(error)}", source=self.url) from error
        self._reached = False

    def credential_life(self) -> CredentialLife:
        """Unknown: the client does not tell when its Kerberos ticket ends."""
        return CredentialLife("unknown", "the Kerberos ticket, HADOOP_USER_NAME or the system's user")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file, a page of the NameNode's listing at a time."""
        if self._single:
            if wanted(self._single):
                yield self.find(self._single)
            return
        root, walk = f"{self._path.rstrip('/')}/", Walk(self.url, self._terms.most)
        try:
            for status in self._each("", lambda: self._client.list_status(root.rstrip("/") or "/", recursive=True)):
                # The NameNode lists recursively, so the bounds of the walk are applied to each entry's folder.
                key = status.path.removeprefix(root)
                folder, _, name = key.rpartition("/")
                walk.enter(f"{folder}/" if folder else "")
                walk.key(f"{folder}/" if folder else "", name)
                if not status.isdir and wanted(key):
                    yield self._object(key, status)
        except ObjectVanished as error:
            raise SourceError("There is nothing at this address", hint="Check the URL.", source=self.url) from error

    def find(self, key: str) -> SourceObject:
        """The file as it is now."""
        status = self._call(lambda: self._client.get_file_info(self._name(key)), key)
        if status.isdir:
            raise ObjectVanished("The object is gone: there is a folder in its place", source=self.url, object=key)
        return self._object(key, status)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Read one stream from the DataNodes, whose checksums the client verifies."""
        # HDFS pins no read: compare before it, and `confirm` compares after the last one.
        self.confirm(listed)
        name, position, count = self._name(listed.key), 0, len(buffer)
        chunks = (
            self._each(listed.key, lambda: self._client.read(name).read_range_stream(start, count)) if count else ()
        )
        for chunk in chunks:
            position += len(chunk)
            # A broken DataNode must not make this read go on without end.
            if position > count:
                break
            buffer[position - len(chunk) : position] = chunk
        require_length(position, count, self, listed.key)

    def confirm(self, listed: SourceObject) -> None:
        """Compare time and size once more."""
        require_unchanged(self, listed, "file")

    @cached_property
    def _single(self) -> str:
        """The name of the file that the URL names; empty when it names a folder, or nothing."""
        try:
            status = None if self._path.endswith("/") else self._call(lambda: self._client.get_file_info(self._path))
        except ObjectVanished:
            return ""
        return self._path.rpartition("/")[2] if status and not status.isdir else ""

    def _name(self, key: str) -> str:
        return self._path if self._single else f"{self._path.rstrip('/')}/{key}"

    def _object(self, key: str, status: Any) -> SourceObject:
        pin = Pin("mtime", str(status.modification_time), "weak")
        return SourceObject(key, status.length, pin, status.modification_time / 1000)

    def _call(self, function: Callable[[], T], key: str = "") -> T:
        return next(self._each(key, lambda: iter([function()])))

    def _each(self, key: str, items: Callable[[], Iterator[T]]) -> Iterator[T]:
        try:
            self._require_reachable()
            yield from with_timeout(items, self._terms.idle)
        except (RuntimeError, OSError) as error:
            raise self._explained(error, key) from error

    def _require_reachable(self) -> None:
        """Connect to the NameNode once: the client would retry for minutes. A name service has no port."""
        parts = urlsplit(f"hdfs://{self._address}")
        if not self._reached and parts.hostname and parts.port:
            # A NameNode speaks no HTTP. `open_source` has checked its address.
            socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()  # noqa: TID251
        self._reached = True

    def _explained(self, error: Exception, key: str) -> SourceError:
        message, subject = _first_line(error), {"source": self.url, "object": key}
        if isinstance(error, FileNotFoundError):
            return ObjectVanished("The object is gone", **subject)
        if isinstance(error, PermissionError) or any(word in message for word in _DENIED):
            hint = "Log in by kinit, set HADOOP_USER_NAME, or grant the right to read."
            return AccessDenied(f"Access is denied: {message}", hint=hint, **subject)
        return SourceUnavailable(f"The source failed: {message}", **subject)


def _first_line(error: Exception) -> str:
    """The client's message without the NameNode's Java stack trace."""
    return str(error).replace("\\n", "\n").replace("\\t", " ").partition("\n")[0] or type(error).__name__
