"""Containers of Azure Blob Storage, those of Data Lake accounts included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote

from obstore.store import AzureStore

from prefect_stagegate.errors import AccessDenied, UsageError
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.plugins.azure.azure_options import AzureSettings, azure_settings
from prefect_stagegate.plugins.azure.sas import AZURE_VERSION, container_sas, sas_query
from prefect_stagegate.redaction import remember
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Options, Terms
from prefect_stagegate.transport.expiry import ends_at
from prefect_stagegate.transport.http import Allowed
from prefect_stagegate.transport.objectstore.client_settings import (
    IDLE_SECONDS,
    canonical_url,
    client_options,
    http_client,
    no_redirects,
    open_twice,
    usable_endpoint,
)
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.listed import ListedObject, listing_after
from prefect_stagegate.transport.objectstore.object_requests import UrlAndHeaders, bearer_header, quote_key
from prefect_stagegate.transport.objectstore.store import BucketPath, ObjectStore, StoreAccess

SCOPE = "https://storage.azure.com/.default"
Provider = Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class AzureAccess:
    """The credential of a container's requests."""

    query: str = ""
    """A shared access signature, encoded as a URL's query."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AzureRequests:
    """Requests in the protocol of Azure Blob Storage."""

    container_url: str
    keeper: CredentialKeeper[AzureAccess]

    def request(self, key: str, version: str, _method: str, /) -> UrlAndHeaders | None:
        """None for a version: this package's listings of Azure have none."""
        access = self.keeper.current()
        if access is None or version:
            return None
        query = f"?{access.query}" if access.query else ""
        return f"{self.container_url}/{quote_key(key)}{query}", {"x-ms-version": AZURE_VERSION, **access.headers}


@dataclass(frozen=True, slots=True)
class AzureIdentity:
    """The credential, in the form that each of the two clients takes."""

    life: CredentialLife
    config: dict[str, Any]
    """For obstore."""
    credential: Any = None
    """For Azure's own client: a key, a signature, a credential of azure-identity; None: anonymous, or not known."""
    provider: Provider | None = None
    """For obstore, where the token comes from azure-identity."""


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
    path: BucketPath, settings: AzureSettings, *, idle: float = IDLE_SECONDS, allowed: Allowed = ()
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
    identity = _identify(settings, url)
    client = client_options(endpoint, settings.ca_file, idle)
    # Where obstore alone finds the credential, it asks an identity service for it.
    if not settings.client_secret and (settings.has_credential or identity.provider):
        client |= no_redirects(endpoint)
    config = {"account_name": settings.account, "endpoint": endpoint, "skip_signature": False, **identity.config}

    # First: obstore refuses a key that is not Base64, and `_access` signs with it.
    try:
        stores = open_twice(
            AzureStore, path.bucket, config=config, client_options=client, credential_provider=identity.provider
        )
    except Exception as error:
        # obstore's message may hold the key itself, so it is not shown.
        raise UsageError(f"The credentials for {url} are not well formed", hint="Keys are Base64.") from error
    lister = AzureLister(f"{endpoint}/{path.bucket}", identity.credential, settings.ca_file, idle)
    access = _access(settings, identity, path.bucket)
    container_url = f"{canonical_url(endpoint)}/{quote(path.bucket, safe='$')}"
    requests = AzureRequests(container_url, access) if access else None
    store_access = StoreAccess(identity.life, client=http_client(settings.ca_file, idle, allowed), requests=requests)
    return ObjectStore(*stores, url, endpoint, lister, store_access)


def _access(settings: AzureSettings, identity: AzureIdentity, container: str) -> CredentialKeeper[AzureAccess] | None:
    """The credential for requests without obstore; None where obstore alone finds one. Requests no token yet."""
    provider = identity.provider
    if settings.key:

        def sign() -> Credential[AzureAccess]:
            sas, ends = container_sas(settings.account, settings.key, container)
            return Credential(AzureAccess(sas), ends)

        return CredentialKeeper(sign, sign())
    if settings.sas or settings.anonymous:
        fixed = Credential(AzureAccess(sas_query(settings.sas.lstrip("?"))))
        return CredentialKeeper(lambda: fixed, fixed)
    if provider:

        def provide() -> Credential[AzureAccess]:
            credential = provider()
            return Credential(AzureAccess(headers=bearer_header(credential["token"])), credential["expires_at"])

        return CredentialKeeper(provide)
    return None


def _identify(settings: AzureSettings, url: str) -> AzureIdentity:
    """The credential of the settings: key, signature, anonymous, application, else Azure's default credential."""
    if settings.key:
        life = CredentialLife("static", f"the key of the account {settings.account}")
        return AzureIdentity(life, {"account_key": settings.key, "credential_type": "access_key"}, settings.key)
    if settings.sas:
        sas = settings.sas.lstrip("?")
        ends = ends_at(sas)
        life = CredentialLife("temporary" if ends else "unknown", "a shared access signature", ends)
        return AzureIdentity(life, {"sas_key": sas, "credential_type": "sas_token"}, sas)
    if settings.anonymous:
        return AzureIdentity(CredentialLife("none", "anonymous reading"), {"skip_signature": True})
    if settings.client_secret:
        life = CredentialLife("renewed", f"the application {settings.client_id}")
        application = {name: getattr(settings, name) for name in ("client_id", "client_secret", "tenant_id")}
        return AzureIdentity(life, {**application, "credential_type": "client_secret"})
    return _by_default(settings, url)


def _by_default(settings: AzureSettings, url: str) -> AzureIdentity:
    """DefaultAzureCredential where the extra `azure` is installed, else obstore's own: workload or machine identity."""
    life = CredentialLife("renewed", "Azure's default credential")
    try:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential
    except ImportError:
        return AzureIdentity(life, {"client_id": settings.client_id} if settings.client_id else {})
    client_id = settings.client_id or os.environ.get("AZURE_CLIENT_ID")
    credential = DefaultAzureCredential(managed_identity_client_id=client_id)

    def provide() -> dict[str, Any]:
        access_token = credential.get_token(SCOPE)
        remember(access_token.token)
        return {"token": access_token.token, "expires_at": datetime.fromtimestamp(access_token.expires_on, UTC)}

    # Now, while the error can still name the container; later it would come out of a read.
    try:
        provide()
    except AzureError as error:
        raise AccessDenied(
            f"There are no credentials for {url}",
            hint="Set `account_key`, `sas_token`, AZURE_STORAGE_CONNECTION_STRING, log in by `az login`, or say "
            "`anon: true` if the container is public.",
        ) from error
    return AzureIdentity(life, {}, credential, provide)


@dataclass(frozen=True, slots=True)
class AzureLister:
    """Lists a container whose names obstore refuses, by Azure's own client, which comes with the extra `azure`."""

    url: str
    credential: Any
    ca_file: str
    idle: float

    tells_versions: ClassVar[bool] = False

    def listing(self, prefix: str, after: str = "") -> Iterator[ListedObject]:
        """Every blob below `prefix` that comes after `after`. Azure lists from the beginning only.

        Raises:
            OSError: The container can't be listed, or the client is not installed.
        """
        return listing_after(after, self._all(prefix))

    def _all(self, prefix: str) -> Iterator[ListedObject]:
        try:
            from azure.core.exceptions import AzureError
            from azure.storage.blob import ContainerClient
        except ImportError as error:
            raise OSError('only Azure\'s own client lists its keys: pip install "prefect-stagegate[azure]"') from error
        client = ContainerClient.from_container_url(
            self.url, self.credential, read_timeout=self.idle, connection_verify=self.ca_file or True
        )
        try:
            with client:
                for blob in client.list_blobs(name_starts_with=prefix or None):
                    # Accounts with real folders list them as blobs with this mark.
                    if (blob.metadata or {}).get("hdi_isfolder") != "true":
                        etag = (blob.etag or "").strip('"')
                        yield ListedObject(blob.name, blob.size, etag, blob.last_modified.timestamp())
        except AzureError as error:
            raise OSError(str(error)) from error


def open_azure_source(url: str, options: Options, terms: Terms) -> BucketSource:
    """Open a container of Azure's, a folder of it or an object."""
    path, host = parse_container_url(url)
    store = open_azure(path, azure_settings(options, host=host), idle=terms.idle, allowed=terms.allowed)
    return BucketSource(url, store, path.key)
