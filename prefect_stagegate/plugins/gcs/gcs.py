"""Buckets of Google Cloud Storage."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.gcs import GCS
from prefect_stagegate.plugins.gcs.google import identify
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Options, Terms
from prefect_stagegate.transport.http import Allowed
from prefect_stagegate.transport.http.messages import DEFAULT_CLIENT
from prefect_stagegate.transport.objectstore import ListedObject, ObjectStore, parse_bucket_url
from prefect_stagegate.transport.objectstore.client_settings import canonical_url, http_client, usable_endpoint
from prefect_stagegate.transport.objectstore.keeper import CredentialKeeper
from prefect_stagegate.transport.objectstore.object_requests import ListingPage, UrlAndHeaders, bearer_header, quote_key
from prefect_stagegate.transport.objectstore.store import BucketPath
from prefect_stagegate.transport.objectstore.translating import OptionTable, Translation, switch, text, verify

GOOGLE = "https://storage.googleapis.com"
EMULATOR = "STORAGE_EMULATOR_HOST"
"""The environment variable of Google's clients that names another endpoint."""


@dataclass(frozen=True, slots=True)
class GcsSettings:
    """Settings of a client; empty means that the environment or Google's own default decides."""

    endpoint: str = ""
    token: Any = ""
    """gcsfs's option `token`."""
    project: str = ""
    requester_pays: Any = ""
    ca_file: str = ""


TRANSLATIONS: dict[str, Translation] = {
    "endpoint_url": text("endpoint"),
    "token": lambda value: {"token": value},
    "anon": lambda value: {"token": "anon"} if switch("on")(value)["on"] else {},
    "project": text("project"),
    "requester_pays": lambda value: {"requester_pays": value},
    "verify": verify,
}
"""Each option's name, and the settings that a value of it gives."""

FIELDS = "nextPageToken,items(name,size,updated,etag,generation,crc32c,md5Hash)"
"""What a page of a listing holds."""

_TABLE: OptionTable[GcsSettings] = OptionTable(GCS, TRANSLATIONS, whole=("token",))


@dataclass(frozen=True, slots=True)
class GoogleRequests:
    """Requests for objects in the protocol of Google's XML API, for listings in that of the JSON API.

    The JSON API names generations and checksums, and any key
    (https://cloud.google.com/storage/docs/json_api/v1/objects/list).
    """

    tells_versions: ClassVar[bool] = True

    endpoint: str
    bucket: str
    """Percent-encoded."""
    keeper: CredentialKeeper[str]
    """Holds access tokens; empty: anonymous."""
    payer: str = ""
    """The project that pays, where the requester does."""

    def request(self, key: str, version: str, _method: str, _body: bytes | None = None, /) -> UrlAndHeaders | None:
        """The version is the object's generation. The key's slashes are encoded, so no client normalizes the path."""
        token = self.keeper.current()
        if token is None:
            return None
        query = f"?generation={quote(version, safe='')}" if version else ""
        # Without it Google unpacks objects stored as gzip, and size and checksums differ from the listing's.
        headers = {"Accept-Encoding": "gzip", **bearer_header(token)}
        if self.payer:
            headers["x-goog-user-project"] = self.payer
        return f"{self.endpoint}/{self.bucket}/{quote_key(key, safe='')}{query}", headers

    def page_request(self, prefix: str, _after: str, _delimiter: str, token: str, /) -> UrlAndHeaders | None:
        """A thousand objects."""
        access = self.keeper.current()
        query = {
            "prefix": prefix,
            "maxResults": "1000",
            "fields": FIELDS,
            "userProject": self.payer,
            "pageToken": token,
        }
        given = urlencode({name: value for name, value in query.items() if value})
        url = f"{self.endpoint}/storage/v1/b/{self.bucket}/o?{given}"
        return None if access is None else (url, bearer_header(access))

    def page(self, body: bytes | bytearray, /) -> ListingPage:
        """Each object has a CRC32C; composite ones lack an MD5."""
        page = json.loads(body)
        return ListingPage([_listed(item) for item in page.get("items", ())], str(page.get("nextPageToken") or ""))


def _listed(item: dict[str, Any]) -> ListedObject:
    modified = datetime.fromisoformat(item["updated"]).timestamp()
    return ListedObject(item["name"], int(item["size"]), "", modified, item["generation"], tuple(_checksums(item)))


def _checksums(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, field in (("crc32c", "crc32c"), ("md5", "md5Hash")):
        if value := item.get(field):
            yield name, base64.b64decode(value).hex()


def gcs_settings(options: Mapping[str, Any]) -> GcsSettings:
    """Translate gcsfs's options.

    Raises:
        UsageError: An option is unknown, or a value is not usable.
    """
    return _TABLE.apply(GcsSettings(), options)[0]


def open_gcs(
    path: BucketPath, settings: GcsSettings, *, idle: float = DEFAULT_CLIENT.idle, allowed: Allowed = ()
) -> ObjectStore:
    """Open a bucket. This sends no request yet.

    Only the bucket of `path` is used. A read ends after `idle` seconds without a byte; `allowed` hosts are never
    blocked.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: The credentials or the CA file can't be used, or the requester pays and no project is named.
    """
    url = f"gs://{path.bucket}/"
    # The emulator's variable is mostly a host and port without TLS.
    endpoint = usable_endpoint(settings.endpoint or os.environ.get(EMULATOR, ""), tls=False) or GOOGLE
    life, keeper = identify(settings.token, url=url)
    requests = GoogleRequests(canonical_url(endpoint), quote(path.bucket, safe=""), keeper, _payer(settings))
    return ObjectStore(url, endpoint, requests, http_client(settings.ca_file, idle, allowed), life)


def _payer(settings: GcsSettings) -> str:
    """The project that pays; empty where the bucket's owner does."""
    payer = str(settings.requester_pays or "")
    if payer.lower() in ("", "false"):
        return ""
    # As gcsfs reads it: `true` means the option `project`.
    if payer.lower() == "true":
        payer = settings.project
    if not payer:
        raise UsageError("The requester pays, but no project is set", hint="Set `project:`.")
    return payer


def open_gcs_source(url: str, options: Options, terms: Terms) -> BucketSource:
    """Open a bucket of Google Cloud Storage, a folder of it or an object."""
    path = parse_bucket_url(url)
    store = open_gcs(path, gcs_settings(options), idle=terms.idle, allowed=terms.allowed)
    return BucketSource(url, store, path.key)
