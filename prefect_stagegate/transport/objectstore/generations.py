"""Listing a bucket of Google Cloud Storage with each object's generation, which obstore's listings leave out.

The JSON API lists a thousand objects a request, with generations and checksums, and accepts any key
(https://cloud.google.com/storage/docs/json_api/v1/objects/list).
"""

from __future__ import annotations

import base64
import http
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.transport.http import PAGE_SECONDS, Client, Request, Response, fetch
from prefect_stagegate.transport.http.messages import DEFAULT_CLIENT
from prefect_stagegate.transport.http.request_policy import MAX_DOCUMENT, RETRIED_STATUSES
from prefect_stagegate.transport.objectstore.client_settings import RETRIES
from prefect_stagegate.transport.objectstore.listed import ListedObject, listing_after

FIELDS = "nextPageToken,items(name,size,updated,etag,generation,crc32c,md5Hash)"
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Generations:
    """Lists a bucket by the JSON API."""

    endpoint: str
    bucket: str
    bearer: Callable[[], str]
    """An access token, or empty: anonymous."""
    payer: str = ""
    """The project that pays, where the requester does."""
    client: Client = DEFAULT_CLIENT

    tells_versions: ClassVar[bool] = True

    def listing(self, prefix: str, after: str = "") -> Iterator[ListedObject]:
        """Every object below `prefix`, a page at a time.

        Raises:
            OSError: The bucket can't be listed.
        """
        return listing_after(after, self._all(prefix))

    def _all(self, prefix: str) -> Iterator[ListedObject]:
        query = {"prefix": prefix, "maxResults": str(PAGE), "fields": FIELDS}
        if self.payer:
            query["userProject"] = self.payer
        # A server whose pages link in a circle would be listed for ever.
        seen = set[str]()
        while True:
            page = self._page(query)
            try:
                items = [_listed(item) for item in page.get("items", ())]
                token = str(page.get("nextPageToken") or "")
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                raise OSError(f"the listing can't be read: {type(error).__name__}: {error}") from error
            yield from items
            if not token:
                return
            if token in seen:
                raise OSError("the listing never ends: a page links back to an earlier one")
            seen.add(token)
            query["pageToken"] = token

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        for attempt in range(RETRIES):
            last = attempt == RETRIES - 1
            try:
                response = self._request(query)
            except SourceUnavailable:
                if last:
                    raise
            else:
                if response.status == http.HTTPStatus.OK:
                    return _parsed(response.body)
                if response.status not in RETRIED_STATUSES or last:
                    missing = response.status == http.HTTPStatus.NOT_FOUND
                    # In the form of obstore's errors, which `explain` looks up.
                    raise OSError("<Code>NoSuchBucket" if missing else f"status code: {response.status}")
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def _request(self, query: dict[str, str]) -> Response:
        address = f"{self.endpoint}/storage/v1/b/{urllib.parse.quote(self.bucket, safe='')}/o"
        token = self.bearer()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{address}?{urllib.parse.urlencode(query)}"
        return fetch(Request(url, headers, self.client, limit=MAX_DOCUMENT, timeout=PAGE_SECONDS))


def _parsed(body: bytes | bytearray) -> dict[str, Any]:
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError, RecursionError) as error:
        raise OSError(f"the response is no listing: {type(error).__name__}") from error


def _listed(item: dict[str, Any]) -> ListedObject:
    modified = datetime.fromisoformat(item["updated"]).timestamp()
    return ListedObject(item["name"], int(item["size"]), "", modified, item["generation"], tuple(_checksums(item)))


def _checksums(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """CRC32C, which each object has, and MD5, which composite ones lack."""
    for name, field in (("crc32c", "crc32c"), ("md5", "md5Hash")):
        if value := item.get(field):
            yield name, base64.b64decode(value).hex()
