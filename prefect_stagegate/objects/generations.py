"""Listing a bucket of Google Cloud Storage with each object's generation, which obstore's listings leave out.

The JSON API tells it, and checksums too, for a thousand objects a request, and takes keys as they come
(https://cloud.google.com/storage/docs/json_api/v1/objects/list).
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from prefect_stagegate.objects.answers import opener
from prefect_stagegate.objects.client import RETRIES
from prefect_stagegate.objects.listed import Listed, behind

FIELDS = "nextPageToken,items(name,size,updated,etag,generation,crc32c,md5Hash)"
PAGE = 1000
_SERVER_FAILED = 500
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Generations:
    """How a bucket is listed."""

    endpoint: str
    bucket: str
    bearer: Callable[[], str]
    """An access token, or empty: anonymous."""
    payer: str = ""
    """The project that pays, where the requester does."""
    ca_file: str = ""
    idle: float = 30.0
    """Seconds without a byte after which a request is given up."""

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
            if token == query.get("pageToken"):
                raise OSError("the listing has no end: a page leads to itself")
            query["pageToken"] = token

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        for attempt in range(RETRIES):
            try:
                return self._ask(query)
            except urllib.error.HTTPError as error:
                if error.code < _SERVER_FAILED or attempt == RETRIES - 1:
                    raise OSError(_told(error)) from error
            except urllib.error.URLError as error:
                if attempt == RETRIES - 1:
                    raise OSError(str(error.reason)) from error
            except http.client.HTTPException as error:
                if attempt == RETRIES - 1:
                    raise OSError(f"response body error: {error}") from error
            except (ValueError, TypeError, RecursionError, OverflowError, MemoryError) as error:
                raise OSError(f"what answers is no listing: {error}") from error
            time.sleep(0.2 * 2**attempt)
        raise OSError("error sending request")

    def _ask(self, query: dict[str, str]) -> dict[str, Any]:
        place = f"{self.endpoint}/storage/v1/b/{urllib.parse.quote(self.bucket, safe='')}/o"
        token = self.bearer()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"{place}?{urllib.parse.urlencode(query)}", headers=headers)  # noqa: S310 - ours
        with opener(self.ca_file).open(request, timeout=self.idle) as answer:
            return dict(json.load(answer))


def _told(error: urllib.error.HTTPError) -> str:
    """The words that are looked up for an object store's answer."""
    if error.code == _NOT_FOUND:
        return "<Code>NoSuchBucket"
    return f"status code: {error.code}"


def _listed(found: dict[str, Any]) -> Listed:
    modified = datetime.fromisoformat(found["updated"]).timestamp()
    return Listed(found["name"], int(found["size"]), "", modified, found["generation"], tuple(_checksums(found)))


def _checksums(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """CRC32C, which each object has, and MD5, which composite ones lack."""
    for name, field in (("crc32c", "crc32c"), ("md5", "md5Hash")):
        if value := found.get(field):
            yield name, base64.b64decode(value).hex()
