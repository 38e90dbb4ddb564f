"""One bucket or container of any kind of store, and the few calls that this package makes to it.

Every error raised here is one of errors.py.

Listings and small requests are retried here. Reads are not, because a transfer retries them by a budget of its own. No
limit bounds the whole time of a request, since that would end slow reads that progress. The connection and each next
byte have time limits.
"""

from __future__ import annotations

import http
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import MemoryStore

from prefect_stagegate.durable import too_large
from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectVanished,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.transport.http import PAGE_SECONDS, Client, Headers, Request, Response, fetch, retry_after
from prefect_stagegate.transport.http.messages import DEFAULT_CLIENT
from prefect_stagegate.transport.http.request_policy import CONNECT_SECONDS
from prefect_stagegate.transport.objectstore.explain import bad_key, cause_of, explain, explain_response
from prefect_stagegate.transport.objectstore.listed import ListedObject, Lister
from prefect_stagegate.transport.objectstore.object_requests import ObjectRequests, UrlAndHeaders
from prefect_stagegate.units import count_text

PAGE = 1000
"""Objects that a store lists at once."""
WHOLE = 1 << 20
"""Bytes of a read that obstore returns in one piece."""
CHUNK = 1 << 18
"""Bytes of each piece of a larger read; they fit a processor's cache."""

NO_CREDENTIALS = CredentialLife("none", "a store of this process")
_FAILURES = (BaseError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class BucketPath:
    """An address in an object store."""

    bucket: str
    key: str
    """The part behind the bucket, without the slash before it; empty for the whole bucket."""


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """How this package reaches a store beside obstore."""

    life: CredentialLife = NO_CREDENTIALS
    """What the credentials are, and how long they last."""
    client: Client = DEFAULT_CLIENT
    """How this package's own requests are made."""
    requests: ObjectRequests | None = None
    """Signs requests for any HTTP client; None where only obstore has the credentials."""


DEFAULT_ACCESS = StoreAccess()


class ObjectStore:
    """The calls to one bucket.

    `reader` is the same bucket without retries. `endpoint` tells two servers with a bucket of one name apart. `lister`
    lists the bucket when it holds keys that obstore refuses; always, when it tells versions.
    """

    def __init__(
        self,
        store: Any,
        reader: Any,
        url: str,
        endpoint: str,
        lister: Lister | None = None,
        store_access: StoreAccess = DEFAULT_ACCESS,
    ) -> None:
        self._store, self._reader, self.url, self.endpoint = store, reader, url, endpoint
        self._lister = lister
        self._by_version = lister is not None and lister.tells_versions
        self.life, self.client = store_access.life, store_access.client
        self._requests = store_access.requests
        self._retry_after_lock = threading.Lock()

    def close(self) -> None:
        """Close the connections. The store can't be used again."""
        # obstore closes them with its objects, and a traceback may hold this one for long.
        self._store = self._reader = None

    def listing(self, prefix: str, after: str = "") -> Iterator[ListedObject]:
        """Every object below `prefix`, a page at a time; with `after`, those whose keys sort after it.

        Keys lose trailing slashes. Those that no dataset may have are listed too, so that a spec can exclude them by
        name. A server may ignore `after`.

        Raises:
            SourceError: The bucket can't be listed.
        """
        if self._lister is not None and self._by_version:
            yield from self._list_by(self._lister, prefix, after)
            return
        last = after
        try:
            for page in obstore.list(self._store, prefix or None, offset=after or None, chunk_size=PAGE):
                for meta in page:
                    yield _listed(meta, by_version=False)
                # From here the lister goes on, when a later page holds a key that obstore refuses.
                last = page[-1]["path"]
        except InvalidPathError as error:
            if self._lister is None:
                raise bad_key(error, source=self.url) from error
            yield from self._list_by(self._lister, prefix, last)
        except _FAILURES as error:
            raise self._explained(error) from cause_of(error)

    def _list_by(self, lister: Lister, prefix: str, after: str) -> Iterator[ListedObject]:
        try:
            yield from lister.listing(prefix, after)
        except OSError as error:
            raise self._explained(error) from cause_of(error)

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold objects, sorted."""
        with self._errors_about():
            result = obstore.list_with_delimiter(self._store, prefix or None)
        return sorted(folder.rstrip("/").rpartition("/")[2] for folder in result["common_prefixes"])

    def find(self, key: str) -> ListedObject | None:
        """One object as it is now; None when there is none."""
        # obstore raises one error for a missing object and for a missing bucket: `explain` tells them apart.
        try:
            with self._errors_about(key):
                return _listed(obstore.head(self._store, key), by_version=self._by_version)
        except ObjectVanished:
            return None

    def read_into(
        self, key: str, start: int, end: int, buffer: memoryview, *, size: int, etag: str, version: str
    ) -> None:
        """Fill a buffer with the bytes from `start` to `end`, if the object still is the one that was listed.

        The request names the version, or has the etag as If-Match. Not every server heeds these conditions, so the
        response's version and etag are compared as well.

        `size`, `etag` (without quotes) and `version` are those of the listing, empty when it had none.

        Raises:
            ObjectChanged: The object was replaced since.
            ObjectVanished: It is gone.
            SourceUnavailable: The server failed, or sent fewer or more bytes than requested; `SourceBusy` with its
                Retry-After.
        """
        try:
            # Without a range for a whole object: some servers send no part of one (rclone serve s3).
            whole = (start, end) == (0, size)
            conditions = _conditions(None if whole else (start, end), etag, version)
            result = obstore.get(self._reader, key, options=conditions)  # type: ignore[arg-type]
            if _is_another(result.meta, size, etag, version):
                raise self._changed(key)
            self._copy([result.bytes()] if end - start <= WHOLE else result.stream(CHUNK), buffer, key)
        except _FAILURES as error:
            raise self._failed_read(error, key, version) from cause_of(error)

    def _copy(self, chunks: Iterable[Any], buffer: memoryview, key: str) -> None:
        """Fill the buffer with the chunks, which must have exactly its size: a server may send another range."""
        came, size = 0, len(buffer)
        for chunk in chunks:
            view = memoryview(chunk)
            if came + len(view) <= size:
                buffer[came : came + len(view)] = view
            came += len(view)
            if came > size:
                break
        if came != size:
            raise SourceUnavailable(
                f"{self.endpoint} sent {'more' if came > size else 'less'} "
                f"than the requested {count_text(size, 'byte')}",
                hint="Requests are retried a few times; if all fail, check the server and the proxies before it.",
                source=self.url,
                object=key,
            )

    def _failed_read(self, error: Exception, key: str, version: str) -> StagegateError:
        explained = self._explained(error, key)
        if isinstance(explained, SourceBusy):
            explained.retry_after = self._retry_after(key)
        # A missing version is reported as a missing object, and an If-Match on a missing object as a change.
        if isinstance(explained, ObjectVanished) and version and self.find(key):
            return self._changed(key)
        if isinstance(explained, ObjectChanged) and not self.find(key):
            return ObjectVanished("The object is gone", source=self.url, object=key)
        return explained

    def _changed(self, key: str) -> ObjectChanged:
        hint = "Stage again to read its new content."
        return ObjectChanged("The object changed while it was read", hint=hint, source=self.url, object=key)

    def prepare(self) -> None:
        """Fetch the credential for `get_request` unless one is valid. May wait for an identity service. Raises nothing.

        Without a credential `get_request` returns None, and obstore's read raises what is wrong.
        """
        if self._requests and self._requests.keeper:
            self._requests.keeper.prepare()

    def get_request(self, key: str, *, method: str = "GET", version: str = "") -> UrlAndHeaders | None:
        """The absolute URL and the headers of a request that reads an object over plain HTTP. Never blocks.

        They are as good as credentials: never log them, and send them to no other host. Send the path as it is, `..`
        and `//` included. Range and If-Match may be added. Signatures last 15 minutes at most, so call this anew for
        each attempt.

        Without a `version`, the current one is read.

        Returns:
            None where only obstore has the credentials, and while there are none: then use `read_into`.
        """
        if not self._requests:
            return None
        try:
            return self._requests.request(key, version, method)
        except UnicodeEncodeError:
            return None

    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above to a request of `get_request`. May send further requests.

        The response has the beginning of its body.
        """
        status, headers, body = response.status, response.headers, bytes(response.body)
        error = self._with_identity(
            explain_response(status, headers, body, source=self.url, endpoint=self.endpoint, key=key)
        )
        # An If-Match on a missing object is reported as a change, and a missing version as a missing object.
        if isinstance(error, ObjectChanged) and not self.find(key):
            return ObjectVanished("The object is gone", source=self.url, object=key)
        if isinstance(error, ObjectVanished) and self._by_version and self.find(key):
            return self._changed(key)
        return error if isinstance(error, SourceError) else SourceError(error.message, hint=error.hint)

    def get(self, key: str, most: int, *, end: bool = False) -> bytes | None:
        """A whole object of at most `most` bytes, or so many at the `end` of any object; None when there is none.

        Raises:
            NotARecord: The object, or what the server sent of it, is larger.
        """
        data = bytearray()
        try:
            with self._errors_about(key):
                result = obstore.get(self._store, key, options={"range": {"suffix": most}} if end else None)
                size = 0 if end else result.meta["size"]
                chunks = iter(result.stream(CHUNK))
                # Of the body, too: a server may send more than it announces.
                while size <= most and (chunk := next(chunks, None)):
                    data += chunk
                    size = max(size, len(data))
        except ObjectVanished:
            return None
        if size > most:
            raise too_large(size, most)
        return bytes(data)

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where none is; False, and nothing changed, when the key is taken."""
        with self._errors_about(key):
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put an object, over the one that may be there."""
        with self._errors_about(key):
            # In one request: an upload in parts that is cut off stays in the bucket, hidden and paid for.
            obstore.put(self._store, key, data, use_multipart=False)

    def headers(self, key: str) -> Headers:
        """The response headers of a HEAD request; empty when the server refuses."""
        response = self._head(key, PAGE_SECONDS)
        return response.headers if response and response.status == http.HTTPStatus.OK else {}

    def _head(self, key: str, timeout: float) -> Response | None:
        """The HEAD response for an object, whose headers obstore doesn't give; None without a response."""
        signed = self.get_request(key, method="HEAD")
        if signed is None:
            try:
                # A URL that obstore signs is valid without a header. A minute is enough for the one request.
                signed = obstore.sign(self._store, "HEAD", key, timedelta(minutes=1)), {}
            except _FAILURES:
                return None
        return self._send_head(*signed, timeout)

    def _send_head(self, url: str, headers: Headers, timeout: float) -> Response | None:
        """Send a HEAD request; None without a response in time."""
        # Only a look: what fails here fails again in the request that follows, which tells why.
        with suppress(StagegateError):
            return fetch(Request(url, headers, self.client, "HEAD", timeout=timeout))
        return None

    def _retry_after(self, key: str) -> float:
        """The seconds of a busy server's Retry-After, which obstore doesn't give: one thread sends a HEAD for it."""
        # Other threads don't wait for the answer: they use the usual back-off.
        if not self._retry_after_lock.acquire(blocking=False):
            return 0.0
        try:
            response = self._head(key, CONNECT_SECONDS)
            return retry_after(response.headers) if response else 0.0
        finally:
            self._retry_after_lock.release()

    @contextmanager
    def _errors_about(self, key: str = "") -> Iterator[None]:
        """Raise the typed error for what obstore raises in the block."""
        try:
            yield
        except _FAILURES as error:
            raise self._explained(error, key) from cause_of(error)

    def _explained(self, error: Exception, key: str = "") -> StagegateError:
        return self._with_identity(explain(error, source=self.url, endpoint=self.endpoint, key=key))

    def _with_identity(self, error: StagegateError) -> StagegateError:
        if isinstance(error, AccessDenied):
            error.hint = f"Tried with: {self.life.what}. {error.hint}"
        return error


def _conditions(part: tuple[int, int] | None, etag: str, version: str) -> dict[str, Any]:
    conditions: dict[str, Any] = {"range": part} if part else {}
    if version:
        conditions["version"] = version
    elif etag:
        conditions["if_match"] = f'"{etag}"'
    return conditions


def _is_another(meta: Any, size: int, etag: str, version: str) -> bool:
    """Whether a response is about another object than the listed one."""
    if meta["size"] != size or (version and meta["version"] and meta["version"] != version):
        return True
    answered = _etag(meta)
    return bool(etag and answered and answered != etag)


def _etag(meta: Any) -> str:
    return (meta["e_tag"] or "").strip('"')


def _listed(meta: Any, *, by_version: bool) -> ListedObject:
    version = (meta["version"] or "") if by_version else ""
    return ListedObject(meta["path"], meta["size"], _etag(meta), meta["last_modified"].timestamp(), version)


def memory_store(url: str) -> ObjectStore:
    """A store in this process's memory, for tests and trials."""
    store = MemoryStore()
    return ObjectStore(store, store, url, "memory")
