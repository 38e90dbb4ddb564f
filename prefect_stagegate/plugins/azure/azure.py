"""Containers of Azure Blob Storage, those of Data Lake accounts included."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlencode

from prefect_stagegate.errors import AccessDenied, UsageError
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.plugins.azure.azure_options import AzureSettings, azure_settings
from prefect_stagegate.plugins.azure.sas import AZURE_VERSION, container_sas, sas_query
from prefect_stagegate.redaction import remember
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Options, Terms
from prefect_stagegate.transport.expiry import ends_at
from prefect_stagegate.transport.http import Allowed
from prefect_stagegate.transport.http.messages import DEFAULT_CLIENT, http_time
from prefect_stagegate.transport.objectstore import ListedObject, ObjectStore
from prefect_stagegate.transport.objectstore.client_settings import canonical_url, http_client, usable_endpoint
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.object_requests import (
    ListingPage,
    UrlAndHeaders,
    bearer_header,
    parse_xml,
    quote_key,
)
from prefect_stagegate.transport.objectstore.store import BucketPath

SCOPE = "https://storage.azure.com/.default"


@dataclass(frozen=True, slots=True)
class AzureAccess:
    """The credential of a container's requests."""

    query: str = ""
    """A shared access signature, encoded as a URL's query."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AzureRequests:
    """Requests in the protocol of Azure Blob Storage."""

    tells_versions: ClassVar[bool] = False

    container_url: str
    keeper: CredentialKeeper[AzureAccess]

    def request(self, key: str, _version: str, _method: str, _body: bytes | None = None, /) -> UrlAndHeaders | None:
        """Always for the current version: listings name none."""
        return self._request(f"/{quote_key(key)}", "")

    def page_request(self, prefix: str, _after: str, _delimiter: str, token: str, /) -> UrlAndHeaders | None:
        """Five thousand blobs (https://learn.microsoft.com/rest/api/storageservices/list-blobs)."""
        query = {"restype": "container", "comp": "list", "prefix": prefix, "marker": token}
        return self._request("", urlencode({name: value for name, value in query.items() if value}))

    def _request(self, path: str, query: str) -> UrlAndHeaders | None:
        access = self.keeper.current()
        if access is None:
            return None
        query = "&".join(filter(None, (query, access.query)))
        url = f"{self.container_url}{path}?{query}" if query else self.container_url + path
        return url, {"x-ms-version": AZURE_VERSION, **access.headers}

    def page(self, body: bytes | bytearray, /) -> ListingPage:
        """Without the folders of accounts that have real ones."""
        root, _ = parse_xml(body, "EnumerationResults")
        blobs = []
        for blob in root.iterfind("Blobs/Blob"):
            name, properties = blob.find("Name"), blob.find("Properties")
            if name is None or properties is None:
                raise ValueError("a blob without its name or properties")
            fields = {entry.tag: entry.text or "" for entry in properties}
            if fields.get("ResourceType") != "directory":
                key, modified = name.text or "", http_time(fields["Last-Modified"])
                if name.get("Encoded") == "true":  # it holds what XML can't
                    key = unquote(key)
                blobs.append(
                    ListedObject(key, int(fields["Content-Length"]), fields["Etag"].strip('"'), modified or 0.0)
                )
        return ListingPage(blobs, root.findtext("NextMarker") or "")


def parse_container_url(url: str) -> tuple[BucketPath, str]:
    """Split a URL into the container with the key, and the account's host where the URL names it.

    >>> parse_container_url("abfss://lake@acme.dfs.core.windows.net/flights/")
    (BucketPath(bucket='lake', key='flights/'), 'acme.dfs.core.windows.net')
    >>> parse_container_url("az://lake/flights/")
    (BucketPath(bucket='lake', key='flights/'), '')

    Raises:
        UsageError: There is no container, or a credential stands before the host.
    """
    authority, _, key = url.partition("://")[2].partition("/")
    container, _, host = authority.partition("@")
    if ":" in container or "@" in host:
        hint = "Set them in `options:`, a block or the environment."
        raise UsageError("The URL of a container holds credentials", hint=hint)
    if not container:
        raise UsageError(f"{url!r} names no container", hint="It looks like az://container/folder/.")
    return BucketPath(container, key), host


def open_azure(
    path: BucketPath, settings: AzureSettings, *, idle: float = DEFAULT_CLIENT.idle, allowed: Allowed = ()
) -> ObjectStore:
    """Open a container. This sends no request to the server, but may ask Azure's identity service for a token.

    Only the container of `path` is used. A read ends after `idle` seconds without a byte; `allowed` hosts are never
    blocked.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: A value or the CA file can't be used.
    """
    url = f"az://{path.bucket}/"
    endpoint = usable_endpoint(settings.endpoint)
    life, keeper = _identify(settings, path.bucket, url)
    requests = AzureRequests(f"{canonical_url(endpoint)}/{quote(path.bucket, safe='$')}", keeper)
    return ObjectStore(url, endpoint, requests, http_client(settings.ca_file, idle, allowed), life)


def _identify(
    settings: AzureSettings, container: str, url: str
) -> tuple[CredentialLife, CredentialKeeper[AzureAccess]]:
    """The credential of the settings: key, signature, anonymous, application, else Azure's default credential."""
    if settings.key:

        def sign() -> Credential[AzureAccess]:
            sas, ends = container_sas(settings.account, settings.key, container)
            return Credential(AzureAccess(sas), ends)

        try:
            keeper = CredentialKeeper(sign, sign())
        except ValueError as error:
            raise UsageError(f"The credentials for {url} are not well formed", hint="Keys are Base64.") from error
        return CredentialLife("static", f"the key of the account {settings.account}"), keeper
    if settings.sas:
        sas = settings.sas.lstrip("?")
        ends = ends_at(sas)
        life = CredentialLife("temporary" if ends else "unknown", "a shared access signature", ends)
        return life, CredentialKeeper.fixed(AzureAccess(sas_query(sas)))
    if settings.anonymous:
        return CredentialLife("none", "anonymous reading"), CredentialKeeper.fixed(AzureAccess())
    from azure.core.exceptions import AzureError
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    if settings.client_secret:
        life = CredentialLife("renewed", f"the application {settings.client_id}")
        credential: Any = ClientSecretCredential(settings.tenant_id, settings.client_id, settings.client_secret)
        return life, _by_identity(credential)
    client_id = settings.client_id or os.environ.get("AZURE_CLIENT_ID")
    keeper = _by_identity(DefaultAzureCredential(managed_identity_client_id=client_id))
    # Now, while the error can still name the container; later it would come out of a read.
    keeper.prepare()
    if isinstance(keeper.failure, AzureError):
        raise AccessDenied(
            f"There are no credentials for {url}",
            hint="Set `account_key`, `sas_token`, AZURE_STORAGE_CONNECTION_STRING, log in by `az login`, or say "
            "`anon: true` if the container is public.",
        ) from keeper.failure
    return CredentialLife("renewed", "Azure's default credential"), keeper


def _by_identity(credential: Any) -> CredentialKeeper[AzureAccess]:
    """A keeper of the tokens that a credential of azure-identity gives."""

    def provide() -> Credential[AzureAccess]:
        access_token = credential.get_token(SCOPE)
        remember(access_token.token)
        access = AzureAccess(headers=bearer_header(access_token.token))
        return Credential(access, datetime.fromtimestamp(access_token.expires_on, UTC))

    return CredentialKeeper(provide)


def open_azure_source(url: str, options: Options, terms: Terms) -> BucketSource:
    """Open a container of Azure's, a folder of it or an object."""
    path, host = parse_container_url(url)
    store = open_azure(path, azure_settings(options, host=host), idle=terms.idle, allowed=terms.allowed)
    return BucketSource(url, store, path.key)
