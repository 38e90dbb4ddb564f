"""Listing a bucket of Google Cloud Storage with each object's generation, which obstore's listings leave out.

The JSON API tells it, and checksums too, for a thousand objects a request, and takes keys as they come
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
from prefect_stagegate.http import PAGE_SECONDS, Client, Request, Response, fetch
from prefect_stagegate.http.message import DEFAULT_CLIENT
from prefect_stagegate.http.policy import RETRIED_STATUSES
from prefect_stagegate.objectstore.client import RETRIES
from prefect_stagegate.objectstore.listed import Listed, behind

FIELDS = "nextPageToken,items(name,size,updated,etag,generation,crc32c,md5Hash)"
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Generations:
    """How a bucket is listed."""

    endpoint: str
    bucket: str
    bearer: Callable[[], str]
    """An access token, or empty: anonymous."""
    payer: str = ""
    """The project that pays, where the requester does."""
    client: Client = DEFAULT_CLIENT

    tells_versions: ClassVar[bool] = True

    def listing(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Every object below `prefix`, a page at a time.

        Raises:
            OSError: The bucket can't be listed.
        """
        return behind(after, self._all(prefix))

    def _all(self, prefix: str) -> Iterator[Listed]:
        query = {"prefix": prefix, "maxResults": str(PAGE), "fields": FIELDS}
        if self.payer:
            query["userProject"] = self.payer
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
                raise OSError("the listing has no end: a page leads back to an earlier one")
            seen.add(token)
            query["pageToken"] = token

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        for attempt in range(RETRIES):
            last = attempt == RETRIES - 1
            try:
                response = self._ask(query)
            except SourceUnavailable:
                if last:
                    raise
            else:
                if response.status == http.HTTPStatus.OK:
                    return _parsed(response.body)
                if response.status not in RETRIED_STATUSES or last:
                    raise OSError(_told(response.status))
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def _ask(self, query: dict[str, str]) -> Response:
        place = f"{self.endpoint}/storage/v1/b/{urllib.parse.quote(self.bucket, safe='')}/o"
        token = self.bearer()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return fetch(Request(f"{place}?{urllib.parse.urlencode(query)}", headers, self.client, timeout=PAGE_SECONDS))


def _parsed(body: bytes | bytearray) -> dict[str, Any]:
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError, RecursionError) as error:
        raise OSError(f"what answers is no listing: {type(error).__name__}") from error


def _told(status: int) -> str:
    """The words that are looked up for an object store's answer."""
    return "<Code>NoSuchBucket" if status == http.HTTPStatus.NOT_FOUND else f"status code: {status}"


def _listed(found: dict[str, Any]) -> Listed:
    modified = datetime.fromisoformat(found["updated"]).timestamp()
    return Listed(found["name"], int(found["size"]), "", modified, found["generation"], tuple(_checksums(found)))


def _checksums(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """CRC32C, which each object has, and MD5, which composite ones lack."""
    for name, field in (("crc32c", "crc32c"), ("md5", "md5Hash")):
        if value := found.get(field):
            yield name, base64.b64decode(value).hex()
