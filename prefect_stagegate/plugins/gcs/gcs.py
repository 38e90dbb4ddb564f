"""Buckets of Google Cloud Storage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from obstore.store import GCSStore

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.gcs import GCS
from prefect_stagegate.plugins.gcs.google import GoogleIdentity, identify
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Options, Terms
from prefect_stagegate.transport.http import Allowed
from prefect_stagegate.transport.objectstore import parse_bucket_url
from prefect_stagegate.transport.objectstore.client_settings import (
    IDLE_SECONDS,
    canonical_url,
    client_options,
    http_client,
    no_redirects,
    open_twice,
    usable_endpoint,
)
from prefect_stagegate.transport.objectstore.generations import Generations
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.object_requests import UrlAndHeaders, bearer_header, quote_key
from prefect_stagegate.transport.objectstore.store import BucketPath, ObjectStore, StoreAccess
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

_TABLE: OptionTable[GcsSettings] = OptionTable(GCS, TRANSLATIONS, whole=("token",))


@dataclass(frozen=True, slots=True)
class GoogleRequests:
    """Requests in the protocol of Google's XML API."""

    bucket_url: str
    keeper: CredentialKeeper[dict[str, str]]
    payer: str = ""
    """The project that pays, where the requester does."""

    def request(self, key: str, version: str, _method: str, /) -> UrlAndHeaders | None:
        """The version is the object's generation. The key's slashes are encoded, so no client normalizes the path."""
        authorization = self.keeper.current()
        if authorization is None:
            return None
        query = f"?generation={quote(version, safe='')}" if version else ""
        # Without it Google unpacks objects stored as gzip, and size and checksums differ from the listing's.
        headers = {"Accept-Encoding": "gzip", **authorization}
        if self.payer:
            headers["x-goog-user-project"] = self.payer
        return f"{self.bucket_url}/{quote_key(key, safe='')}{query}", headers


def gcs_settings(options: Mapping[str, Any]) -> GcsSettings:
    """Translate gcsfs's options.

    Raises:
        UsageError: An option is unknown, or a value is not usable.
    """
    return _TABLE.apply(GcsSettings(), options)[0]


def open_gcs(
    path: BucketPath, settings: GcsSettings, *, idle: float = IDLE_SECONDS, allowed: Allowed = ()
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
    identity = identify(settings.token, url=url)
    payer = _payer(settings)
    headers = {"x-goog-user-project": payer} if payer else {}
    client = {**client_options(endpoint, settings.ca_file, idle), "default_headers": headers}
    if identity.bearer and endpoint != GOOGLE:  # else obstore itself asks Google for a token
        client |= no_redirects(endpoint)

    config = {"base_url": endpoint, "skip_signature": False, **identity.config}
    stores = open_twice(
        GCSStore, path.bucket, config=config, client_options=client, credential_provider=identity.provider
    )
    bearer = identity.bearer
    our_client = http_client(settings.ca_file, idle, allowed)
    # Only with a token of our own: obstore gives none away.
    lister = Generations(endpoint, path.bucket, bearer, payer, our_client) if bearer else None
    authorization = _authorization(identity)
    bucket_url = f"{canonical_url(endpoint)}/{quote(path.bucket, safe='')}"
    requests = GoogleRequests(bucket_url, authorization, payer) if authorization else None
    store_access = StoreAccess(identity.life, client=our_client, requests=requests)
    return ObjectStore(*stores, url, endpoint, lister, store_access)


def _authorization(identity: GoogleIdentity) -> CredentialKeeper[dict[str, str]] | None:
    """The Authorization header of our requests; None where obstore alone has the credentials. Requests no token yet."""
    provider, bearer = identity.provider, identity.bearer
    if provider:

        def provide() -> Credential[dict[str, str]]:
            credential = provider()
            return Credential(bearer_header(credential["token"]), credential["expires_at"])

        return CredentialKeeper(provide)
    if bearer:  # a fixed token, or none: anonymous
        fixed = Credential(bearer_header(bearer()))
        return CredentialKeeper(lambda: fixed, fixed)
    return None


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
