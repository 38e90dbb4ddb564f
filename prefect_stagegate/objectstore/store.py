"""One bucket or container of any family, and the few calls that this package makes to it.

Every error that leaves here is one of errors.py.

Reads are not repeated here, because a transfer does that by a budget of its own; listings and small requests are. There
is no limit on the whole time of a request, which would kill slow but progressing reads: a connection must be made, and
each next byte must come, within its time.
"""

from __future__ import annotations

import http
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import MemoryStore

from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectVanished,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.http import PAGE_SECONDS, Client, Headers, Request, Response, fetch, retry_after
from prefect_stagegate.http.message import DEFAULT_CLIENT
from prefect_stagegate.http.policy import REDIRECT_STATUSES
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.objectstore.client import CONNECT_SECONDS
from prefect_stagegate.objectstore.explain import bad_key, cause_of, explain, explain_response
from prefect_stagegate.objectstore.listed import Listed, Lister
from prefect_stagegate.objectstore.object_requests import ObjectRequests, UrlAndHeaders
from prefect_stagegate.units import count_text

PAGE = 1000
"""Objects that a store lists at once."""
WHOLE = 1 << 20
"""A read of up to so many bytes is handed over in one piece."""
CHUNK = 1 << 18
"""A larger one is handed over in pieces of so many bytes, which fit a processor's cache."""

NO_CREDENTIALS = CredentialLife("none", "a store of this process")
_FAILURES = (BaseError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Place:
    """An address in an object store."""

    bucket: str
    key: str
    """The part behind the bucket, without the slash before it; empty for the whole bucket."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks a store."""

    life: CredentialLife = NO_CREDENTIALS
    """What the credentials are, and how long they last."""
    introduction: str = ""
    """Asked first, without credentials: an address that must lead to no other host, or empty."""
    client: Client = DEFAULT_CLIENT
    """How this package's own requests are made."""
    requests: ObjectRequests | None = None
    """Makes requests for any HTTP client; None where only obstore knows how to ask."""


NOBODY = Asker()


class ObjectStore:
    """The calls to one bucket.

    Args:
        store: obstore's own, which repeats failed requests.
        reader: The same bucket, without repeating.
        url: How people should see it, without credentials; errors name it.
        endpoint: The server's address; tells two servers with a bucket of one name apart.
        lister: Lists the bucket when it holds keys that obstore refuses; always, when it tells versions.
        asker: Who asks.
    """

    def __init__(
        self,
        store: Any,
        reader: Any,
        url: str,
        endpoint: str,
        lister: Lister | None = None,
        asker: Asker = NOBODY,
    ) -> None:
        self.life = asker.life
        self._store = store
        self._lister = lister
        self._by_version = lister is not None and lister.tells_versions
        self._asking = threading.Lock()
        self.client = asker.client
        self._introduction = asker.introduction
        self._requests = asker.requests
        self._reader = reader
        self.url = url
        self.endpoint = endpoint

    def close(self) -> None:
        """Let the connections go, whoever still names this store: a traceback may, for long. It can't be used again."""
        self._store = self._reader = None

    def listing(self, prefix: str) -> Iterator[Listed]:
        """Every object below `prefix`, a page at a time. Trailing slashes of keys are lost.

        Keys that can't stand in a dataset are listed too: who excludes them by name can use the others.

        Raises:
            SourceError: The bucket can't be listed.
        """
        self._introduce()
        if self._lister is not None and self._by_version:
            yield from self._listing_otherwise(self._lister, prefix, "")
            return
        last = ""
        try:
            for page in obstore.list(self._store, prefix or None, chunk_size=PAGE):
                for meta in page:
                    yield _listed(meta, by_version=False)
                last = page[-1]["path"]
        except InvalidPathError as error:
            if self._lister is None:
                raise bad_key(error, source=self.url) from error
            yield from self._listing_otherwise(self._lister, prefix, last)
        except _FAILURES as error:
            raise self._explained(error) from cause_of(error)

    def _listing_otherwise(self, lister: Lister, prefix: str, after: str) -> Iterator[Listed]:
        try:
            yield from lister.listing(prefix, after)
        except OSError as error:
            raise self._explained(error) from cause_of(error)

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold objects, sorted."""
        try:
            found = obstore.list_with_delimiter(self._store, prefix or None)
        except _FAILURES as error:
            raise self._explained(error) from cause_of(error)
        return sorted(folder.rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"])

    def find(self, key: str) -> Listed | None:
        """One object as it is now; None when there is none."""
        self._introduce()
        try:
            return _listed(obstore.head(self._store, key), by_version=self._by_version)
        except FileNotFoundError as error:
            self._expect_absence(error, key)
            return None
        except _FAILURES as error:
            raise self._explained(error, key) from cause_of(error)

    def read_into(
        self, key: str, start: int, end: int, buffer: memoryview, *, size: int, etag: str, version: str
    ) -> None:
        """Fill a buffer with the bytes from `start` to `end`, if the object still is the one that was listed.

        Its version is asked for by name, its etag by If-Match; what the answer says of both is compared as well,
        because not every server knows these conditions.

        Args:
            key: The object's.
            start: In bytes.
            end: In bytes.
            buffer: As long as they are.
            size: Of the whole object, as it was listed.
            etag: As it was listed, without quotes; empty when it had none.
            version: As it was listed; empty when it had none.

        Raises:
            ObjectChanged: It is another one by now.
            ObjectVanished: It is gone.
            SourceUnavailable: The server failed, or sent less or more than was asked for; `SourceBusy` with its
                Retry-After.
        """
        self._introduce()
        try:
            whole = (start, end) == (0, size)  # of which some servers send no part (rclone serve s3)
            conditions = _conditions(None if whole else (start, end), etag, version)
            result = obstore.get(self._reader, key, options=conditions)  # type: ignore[arg-type]
            if _is_another(result.meta, size, etag, version):
                raise self._changed(key)
            self._copy([result.bytes()] if end - start <= WHOLE else result.stream(CHUNK), buffer, key)
        except _FAILURES as error:
            raise self._failed_read(error, key, version) from cause_of(error)

    def _copy(self, chunks: Iterable[Any], buffer: memoryview, key: str) -> None:
        """Copy what was read, if it is as much as was asked for: a server may answer with another part."""
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
                f"{self.endpoint} sent {'more' if came > size else 'less'}; {count_text(size, 'byte')} asked for",
                hint="It is asked again a few times; if that fails, the server or a proxy before it is broken.",
                source=self.url,
                object=key,
            )

    def _failed_read(self, error: Exception, key: str, version: str) -> StagegateError:
        explained = self._explained(error, key)
        if isinstance(explained, SourceBusy):
            explained.retry_after = self._retry_after(key)
        # What is missing may be the version only, and a condition on an object that is gone may count as failed.
        if isinstance(explained, ObjectVanished) and version and self.find(key):
            return self._changed(key)
        if isinstance(explained, ObjectChanged) and not self.find(key):
            return ObjectVanished("The object is gone", source=self.url, object=key)
        return explained

    def _changed(self, key: str) -> ObjectChanged:
        hint = "Stage again to read its new content."
        return ObjectChanged("The object changed while it was read", hint=hint, source=self.url, object=key)

    def prepare(self) -> None:
        """Fetch the credential for `get_request`. May wait for an identity service; does nothing while one is valid.

        Nothing is raised: without a credential `get_request` returns None, and obstore's read says what is wrong.
        """
        if self._requests:
            self._requests.prepare()

    def get_request(self, key: str, *, method: str = "GET", version: str = "") -> UrlAndHeaders | None:
        """The absolute URL and the headers of a request that reads an object over plain HTTP. Never blocks.

        They are as good as credentials: they may stand in no log and no message, and go to no other host. The path must
        be sent as it is, `..` and `//` included. Range and If-Match may be added. Signatures last 15 minutes at most:
        make them when the request is sent, and anew for each attempt.

        Args:
            key: The object's.
            method: `GET` or `HEAD`.
            version: Its version id or generation; empty: the current one.

        Returns:
            None where only obstore knows how to ask, and while there is no credential: then use `read`.
        """
        if not self._requests:
            return None
        try:
            return self._requests.request(key, version, method)
        except UnicodeEncodeError:
            return None

    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above to one of those requests. May ask further questions.

        Args:
            response: With the beginning of its body.
            key: The object's.
        """
        status, headers, body = response.status, response.headers, bytes(response.body)
        error = self._with_asker(
            explain_response(status, headers, body, source=self.url, endpoint=self.endpoint, key=key)
        )
        # A condition on an object that is gone may count as failed, and what is missing may be the version only.
        if isinstance(error, ObjectChanged) and not self.find(key):
            return ObjectVanished("The object is gone", source=self.url, object=key)
        if isinstance(error, ObjectVanished) and self._by_version and self.find(key):
            return self._changed(key)
        return error if isinstance(error, SourceError) else SourceError(error.message, hint=error.hint)

    def get(self, key: str, last: int | None = None) -> bytes | None:
        """A whole small object, or so many bytes at its end; None when there is none."""
        try:
            result = obstore.get(self._store, key, options=None if last is None else {"range": {"suffix": last}})
            return bytes(result.bytes())
        except FileNotFoundError as error:
            self._expect_absence(error, key)
            return None
        except _FAILURES as error:
            raise self._explained(error, key) from cause_of(error)

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where none is; False, and nothing changed, when the key is taken."""
        try:
            obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except _FAILURES as error:
            raise self._explained(error, key) from cause_of(error)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put an object, over the one that may be there."""
        try:
            obstore.put(self._store, key, data, use_multipart=False)
        except _FAILURES as error:
            raise self._explained(error, key) from cause_of(error)

    def delete(self, key: str) -> None:
        """Delete an object that may be absent."""
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            pass
        except _FAILURES as error:
            raise self._explained(error, key) from cause_of(error)

    def headers(self, key: str) -> Headers:
        """The response headers of a HEAD request; empty when the server refuses."""
        response = self._head(key, PAGE_SECONDS)
        return response.headers if response and response.status == http.HTTPStatus.OK else {}

    def _introduce(self) -> None:
        """Refuse an endpoint that redirects to another host: obstore follows, and the session token goes along.

        Raises:
            SourceError: It does.
        """
        if not self._introduction:
            return
        response = self._ask(self._introduction, {}, CONNECT_SECONDS)
        location = response.headers.get("location", "") if response and response.status in REDIRECT_STATUSES else ""
        target = urllib.parse.urljoin(self._introduction, location)
        here, there = (urllib.parse.urlsplit(url).netloc for url in (self._introduction, target))
        if there != here:
            raise SourceError(
                f"{self.endpoint} redirects to {there}, and a session token follows nobody to another host",
                hint=f"If {there} may have it, name that in `endpoint_url`.",
                source=self.url,
            )
        self._introduction = ""

    def _head(self, key: str, timeout: float) -> Response | None:
        """What a server says of an object, which obstore tells its caller nothing of; None when nobody answers."""
        signed = self.get_request(key, method="HEAD")
        if signed is None:
            try:
                signed = obstore.sign(self._store, "HEAD", key, timedelta(minutes=1)), {}
            except _FAILURES:
                return None
        return self._ask(*signed, timeout)

    def _ask(self, url: str, headers: Headers, timeout: float) -> Response | None:
        """Ask by HEAD; None when nobody answers in time."""
        with suppress(StagegateError):
            return fetch(Request(url, headers, self.client, "HEAD", timeout=timeout))
        return None

    def _retry_after(self, key: str) -> float:
        """How long a busy server asks to be left alone: obstore doesn't say, so one thread asks once more by HEAD."""
        if not self._asking.acquire(blocking=False):
            return 0.0
        try:
            response = self._head(key, CONNECT_SECONDS)
            return retry_after(response.headers) if response else 0.0
        finally:
            self._asking.release()

    def _expect_absence(self, error: FileNotFoundError, key: str) -> None:
        """Return when it is the object that is missing, and raise when it is more: obstore tells both alike."""
        explained = self._explained(error, key)
        if not isinstance(explained, ObjectVanished):
            raise explained from cause_of(error)

    def _explained(self, error: Exception, key: str = "") -> StagegateError:
        return self._with_asker(explain(error, source=self.url, endpoint=self.endpoint, key=key))

    def _with_asker(self, error: StagegateError) -> StagegateError:
        if isinstance(error, AccessDenied):
            error.hint = f"Who asked: {self.life.what}. {error.hint}"
        return error


def _conditions(part: tuple[int, int] | None, etag: str, version: str) -> dict[str, Any]:
    conditions: dict[str, Any] = {"range": part} if part else {}
    if version:
        conditions["version"] = version
    elif etag:
        conditions["if_match"] = f'"{etag}"'
    return conditions


def _is_another(meta: Any, size: int, etag: str, version: str) -> bool:
    """Whether an answer says that it is about another object than the listed one."""
    if meta["size"] != size or (version and meta["version"] and meta["version"] != version):
        return True
    answered = _etag(meta)
    return bool(etag and answered and answered != etag)


def _etag(meta: Any) -> str:
    return (meta["e_tag"] or "").strip('"')


def _listed(meta: Any, *, by_version: bool) -> Listed:
    version = (meta["version"] or "") if by_version else ""
    return Listed(meta["path"], meta["size"], _etag(meta), meta["last_modified"].timestamp(), version)


def memory_store(url: str) -> ObjectStore:
    """A store that lives in this process, for tests and trials."""
    store = MemoryStore()
    return ObjectStore(store, store, url, "memory")
