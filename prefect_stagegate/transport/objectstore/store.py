"""One bucket or container of any kind of store, and the few calls that this package makes to it.

Every error raised here is one of errors.py. Listings and small requests are retried here. Reads of objects are not,
because a transfer retries them by a budget of its own.
"""

from __future__ import annotations

import http
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from prefect_stagegate.durable import too_large
from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.transport.http import PAGE_SECONDS, Client, Headers, Request, Response, fetch
from prefect_stagegate.transport.http.messages import http_time
from prefect_stagegate.transport.http.request_policy import MAX_DOCUMENT, RETRIED_STATUSES
from prefect_stagegate.transport.http.response_check import ResponseTooLong
from prefect_stagegate.transport.objectstore.explain import explain_response
from prefect_stagegate.transport.objectstore.object_requests import (
    BucketRequests,
    ListedObject,
    ListingPage,
    UrlAndHeaders,
)

RETRIES = 3
"""Retries of a request that reads no object's bytes."""
PAUSE_SECONDS = 0.2
"""Pause before the first retry; it doubles each time."""


@dataclass(frozen=True, slots=True)
class BucketPath:
    """An address in an object store."""

    bucket: str
    key: str
    """The part behind the bucket, without the slash before it; empty for the whole bucket."""


class ObjectStore:
    """The calls to one bucket.

    `endpoint` tells two servers with a bucket of one name apart; `life` says what the credentials are.
    """

    def __init__(self, url: str, endpoint: str, requests: BucketRequests, client: Client, life: CredentialLife) -> None:
        self.url, self.endpoint, self.client, self.life = url, endpoint, client, life
        self.requests = requests

    def listing(self, prefix: str, after: str = "") -> Iterator[ListedObject]:
        """Every object below `prefix`, a page at a time; with `after`, those whose keys sort after it.

        The empty objects that mark folders are left out. A server may ignore `after`.

        Raises:
            SourceError: The bucket can't be listed.
        """
        for page in self._pages(prefix, after):
            for listed in page.objects:
                if listed.size or not listed.key.endswith("/"):
                    yield listed

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold objects, sorted."""
        pages = self._pages(prefix, delimiter="/")
        return sorted(folder.rstrip("/").rpartition("/")[2] for page in pages for folder in page.folders)

    def _pages(self, prefix: str, after: str = "", delimiter: str = "") -> Iterator[ListingPage]:
        token = ""
        # A server whose pages link in a circle would be listed for ever.
        seen = {token}
        while True:
            response = self.send(lambda: self.requests.page_request(prefix, after, delimiter, token))  # noqa: B023
            if response.status != http.HTTPStatus.OK:
                raise self._refused(response)
            try:
                page = self.requests.page(response.body)
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
                message = f"{self.endpoint} sends something else than a listing: {type(error).__name__}"
                raise SourceError(message, hint="Check the endpoint's address.", source=self.url) from error
            yield page
            token = page.token
            if not token:
                return
            if token in seen:
                raise SourceError("The listing never ends: a page links back to an earlier one", source=self.url)
            seen.add(token)

    def find(self, key: str) -> ListedObject | None:
        """One object as it is now; None when there is none."""
        response = self.send(lambda: self.requests.request(key, "", "HEAD"), key, method="HEAD")
        if response.status == http.HTTPStatus.NOT_FOUND:
            return None
        if not response.is_success:
            raise self._refused(response, key)
        headers = response.headers
        size = headers.get("x-goog-stored-content-length") or headers.get("content-length", "")
        modified = http_time(headers.get("last-modified"))
        if not size.isdecimal() or modified is None:
            raise SourceError(f"{self.endpoint} tells no size or time of the object", source=self.url, object=key)
        version = headers.get("x-goog-generation", "") if self.requests.tells_versions else ""
        return ListedObject(key, int(size), headers.get("etag", "").strip('"'), modified, version)

    def prepare(self) -> None:
        """Fetch the credential for `get_request` unless one is valid. May wait for an identity service.

        Raises:
            AccessDenied: There is none.
        """
        keeper = self.requests.keeper
        if keeper:
            keeper.prepare()
            if keeper.current() is None:
                hint = "Log in again, or check the identity service."
                error = AccessDenied(f"The credentials can't be renewed: {keeper.failure}", hint=hint, source=self.url)
                raise self._with_identity(error) from keeper.failure

    def get_request(self, key: str, *, method: str = "GET", version: str = "") -> UrlAndHeaders | None:
        """The absolute URL and the headers of a request that reads an object. Never blocks.

        They are as good as credentials: never log them, and send them to no other host. Send the path as it is, `..`
        and `//` included. Range and If-Match may be added. Signatures last 15 minutes at most, so call this anew for
        each attempt.

        Without a `version`, the current one is read.

        Returns:
            None while there are no credentials: call `prepare` where waiting is possible.

        Raises:
            SourceError: No URL can hold the key.
        """
        try:
            return self.requests.request(key, version, method)
        except UnicodeEncodeError as error:
            raise SourceError("The key can't be written as bytes", source=self.url, object=key) from error

    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above to a request of `get_request`. May send further requests.

        The response has the beginning of its body.
        """
        error = self._refused(response, key)
        # An If-Match on a missing object is reported as a change, and a missing version as a missing object.
        if isinstance(error, ObjectChanged) and not self.find(key):
            return ObjectVanished("The object is gone", source=self.url, object=key)
        if isinstance(error, ObjectVanished) and self.requests.tells_versions and self.find(key):
            hint = "Stage again to read its new content."
            return ObjectChanged("The object changed while it was read", hint=hint, source=self.url, object=key)
        return error if isinstance(error, SourceError) else SourceError(error.message, hint=error.hint)

    def get(self, key: str, most: int, *, end: bool = False) -> bytes | None:
        """A whole object of at most `most` bytes, or so many at the `end` of any object; None when there is none.

        Raises:
            NotARecord: The object, or what the server sent of it, is larger.
        """
        part = {"Range": f"bytes=-{most}"} if end else {}
        try:
            response = self.send(lambda: self.requests.request(key, "", "GET"), key, more=part, limit=most)
        except ResponseTooLong as error:
            listed = self.find(key)
            raise too_large(listed.size if listed else most + 1, most) from error
        if response.is_success:
            return bytes(response.body)
        refused = self._refused(response, key)
        if isinstance(refused, ObjectVanished):
            return None
        raise refused

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where none is; False, and nothing changed, when the key is taken."""
        # Not again after a broken connection: the second would find the first one's object.
        response = self._put(key, data, {"If-None-Match": "*"}, again=False)
        if response.status in (http.HTTPStatus.PRECONDITION_FAILED, http.HTTPStatus.CONFLICT):
            return False
        if not response.is_success:
            raise self._refused(response, key)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put an object, over the one that may be there."""
        response = self._put(key, data, {}, again=True)
        if not response.is_success:
            raise self._refused(response, key)

    def remove(self, key: str) -> None:
        """Delete an object that may be there."""
        response = self.send(lambda: self.requests.request(key, "", "DELETE", b""), key, method="DELETE")
        if not response.is_success and response.status != http.HTTPStatus.NOT_FOUND:
            raise self._refused(response, key)

    def _put(self, key: str, data: bytes, more: Headers, *, again: bool) -> Response:
        more = {"Content-Type": "application/octet-stream", **more}
        return self.send(
            lambda: self.requests.request(key, "", "PUT", data), key, method="PUT", more=more, body=data, again=again
        )

    def headers(self, key: str) -> Headers:
        """The response headers of a HEAD request; empty when the server refuses."""
        # Only a look: what fails here fails again in the request that follows, which tells why.
        with suppress(StagegateError):
            response = self.send(lambda: self.requests.request(key, "", "HEAD"), key, method="HEAD", again=False)
            return response.headers if response.is_success else {}
        return {}

    def send(
        self,
        make: Callable[[], UrlAndHeaders | None],
        key: str = "",
        *,
        method: str = "GET",
        more: Headers | None = None,
        body: bytes | None = None,
        limit: int = MAX_DOCUMENT,
        again: bool = True,
    ) -> Response:
        """Send a small request, and again while the server is too busy or fails.

        `make` makes the request anew for each attempt, because signatures end; `more` is added to its headers; `limit`
        is the longest response in bytes. Without `again`, a connection that broke is an error at once.

        Raises:
            SourceError: There is no response, or none that can be read.
            AccessDenied: There is no credential.
        """
        for attempt in range(RETRIES + 1):
            last = attempt == RETRIES
            self.prepare()
            try:
                signed = make()
                if signed is None:
                    raise AccessDenied("The credentials have ended", hint="Log in again.", source=self.url)
                url, headers = signed
                request = Request(url, {**headers, **(more or {})}, self.client, method, body, limit=limit)
                request.timeout = PAGE_SECONDS
                response = fetch(request)
            except UnicodeEncodeError as error:
                raise SourceError("The key can't be written as bytes", source=self.url, object=key) from error
            except SourceError as error:
                if last or not again or not isinstance(error, SourceUnavailable):
                    error.source, error.object = error.source or self.url, error.object or key
                    raise
            else:
                if last or response.status not in RETRIED_STATUSES:
                    return response
            time.sleep(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    def _refused(self, response: Response, key: str = "") -> StagegateError:
        return self._with_identity(explain_response(response, source=self.url, endpoint=self.endpoint, key=key))

    def _with_identity(self, error: StagegateError) -> StagegateError:
        if isinstance(error, AccessDenied):
            error.hint = f"Tried with: {self.life.what}. {error.hint}"
        return error
