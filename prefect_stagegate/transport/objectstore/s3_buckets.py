"""Buckets of S3 and of what speaks its protocol."""

from __future__ import annotations

import re
from typing import Any

from obstore.store import S3Store

from prefect_stagegate.errors import UsageError
from prefect_stagegate.transport.http import Allowed, origin_of
from prefect_stagegate.transport.http.request_policy import CONNECT_SECONDS
from prefect_stagegate.transport.objectstore.anykey import BotocoreLister
from prefect_stagegate.transport.objectstore.client_settings import (
    IDLE_SECONDS,
    RETRIES,
    canonical_url,
    client_options,
    http_client,
    no_redirects,
    open_twice,
    usable_endpoint,
)
from prefect_stagegate.transport.objectstore.credentials import Provider, Resolved, resolve
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.object_requests import S3Requests
from prefect_stagegate.transport.objectstore.s3_options import S3Settings
from prefect_stagegate.transport.objectstore.sigv4 import SigV4Signer
from prefect_stagegate.transport.objectstore.store import BucketPath, ObjectStore, StoreAccess

AWS = "amazonaws.com"
DEFAULT_REGION = "us-east-1"


def parse_bucket_url(url: str) -> BucketPath:
    """Split `s3://bucket/key`; the key is not decoded, and may hold `%`, `?` and `#`.

    Raises:
        UsageError: There is no bucket, or credentials stand before it.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            "The URL of a bucket holds credentials", hint="Set them by `key` and `secret`, a block or the environment."
        )
    if not bucket:
        raise UsageError(f"{url!r} names no bucket", hint="It looks like s3://bucket/folder/.")
    return BucketPath(bucket, key)


def open_s3(
    path: BucketPath, settings: S3Settings, *, idle: float = IDLE_SECONDS, allowed: Allowed = ()
) -> ObjectStore:
    """Open a bucket. This sends no request yet.

    Only the bucket of `path` is used. A read ends after `idle` seconds without a byte; `allowed` hosts are never
    blocked.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: The profile or the CA file can't be used.
    """
    url = f"s3://{path.bucket}/"
    resolved = resolve(settings, url=url)
    endpoint = usable_endpoint(resolved.settings.endpoint, tls=resolved.settings.tls)
    virtual = _is_virtual(resolved.settings, endpoint, path.bucket)
    client = client_options(endpoint, resolved.settings.ca_file, idle) | no_redirects(endpoint)
    host = _host(endpoint, path.bucket, virtual=virtual)

    config = _config(resolved, host, virtual=virtual)
    stores = open_twice(
        S3Store, path.bucket, config=config, client_options=client, credential_provider=resolved.provider
    )
    lister = BotocoreLister(path.bucket, resolved.settings, resolved.provider, endpoint, virtual, idle)
    credential = resolved.provider() if resolved.provider else {}
    signer = _signer(resolved.provider, credential, resolved.settings) if resolved.provider else None
    bucket_url = canonical_url(
        _bucket_url(host, path.bucket, resolved.settings.region or DEFAULT_REGION, virtual=virtual)
    )
    requests = S3Requests(bucket_url, signer)
    store_access = StoreAccess(resolved.life, http_client(resolved.settings.ca_file, idle, allowed), requests)
    return ObjectStore(*stores, url, endpoint or "AWS", lister, store_access)


def object_store_options(url: str, settings: S3Settings, *, idle: float) -> dict[str, str]:
    """Options for libraries that use the Rust crate `object_store` (delta-rs): they open a bucket as `open_s3` does.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: The profile can't be used, or the settings name a CA file, which these libraries don't take.
    """
    bucket = parse_bucket_url(url).bucket
    resolved = resolve(settings, url=f"s3://{bucket}/")
    settings = resolved.settings
    endpoint = usable_endpoint(settings.endpoint, tls=settings.tls)
    virtual = _is_virtual(settings, endpoint, bucket)
    if settings.ca_file:
        raise UsageError(
            "Tables of this kind don't support the option `verify`",
            hint="Set the environment variable SSL_CERT_FILE to the PEM file.",
            source=url,
        )
    credentials = resolved.provider() if resolved.provider else {}
    options = {
        "aws_region": settings.region or DEFAULT_REGION,
        "aws_endpoint": _host(endpoint, bucket, virtual=virtual),
        "aws_allow_http": str(endpoint.startswith("http://")).lower(),
        "aws_virtual_hosted_style_request": str(virtual).lower(),
        "aws_skip_signature": "" if credentials else "true",
        "aws_request_payer": "true" if settings.requester_pays else "",
        "aws_access_key_id": credentials.get("access_key_id"),
        "aws_secret_access_key": credentials.get("secret_access_key"),
        "aws_session_token": credentials.get("token"),
        **no_redirects(endpoint),
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{max(idle, 1.0):.0f}s",
        "max_retries": str(RETRIES),
        "retry_timeout": f"{max(idle, 1.0):.0f}s",
    }
    # An empty value is no missing one: the library would take it for a setting.
    return {name: value for name, value in options.items() if value}


def _is_virtual(settings: S3Settings, endpoint: str, bucket: str) -> bool:
    """Whether the bucket stands in the host's name; AWS's certificate covers no name with further dots."""
    return not endpoint and "." not in bucket if settings.virtual_host is None else settings.virtual_host


def _host(endpoint: str, bucket: str, *, virtual: bool) -> str:
    """The endpoint as obstore takes it: with the bucket in a virtual host's name; empty means AWS."""
    if not (endpoint and virtual):
        return endpoint
    origin = origin_of(endpoint)
    if re.fullmatch(r".*:.*|(.*\.)?(\d+|0x[\da-f]*)", origin.host):  # an address: obstore would panic at the URL
        raise UsageError(
            f"The addressing style is virtual, and no bucket's name can stand before {origin.address}",
            hint="Set `addressing_style: path` for the source, or write the name of the endpoint's host.",
            source=f"s3://{bucket}/",
        )
    return endpoint.replace("://", f"://{bucket}.", 1)


def _bucket_url(host: str, bucket: str, region: str, *, virtual: bool) -> str:
    """The URL below which the bucket's objects lie, the same that obstore uses."""
    if host:
        return host if virtual else f"{host}/{bucket}"
    return f"https://{bucket}.s3.{region}.{AWS}" if virtual else f"https://s3.{region}.{AWS}/{bucket}"


def _signer(provider: Provider, first: dict[str, Any], settings: S3Settings) -> CredentialKeeper[SigV4Signer]:
    """A keeper of signers with the provider's credentials; `first` is the credential that is known already."""

    def sign_with(credential: dict[str, Any]) -> Credential[SigV4Signer]:
        signer = SigV4Signer(
            credential["access_key_id"],
            credential["secret_access_key"],
            region=settings.region or DEFAULT_REGION,
            token=credential["token"] or "",
            requester_pays=settings.requester_pays,
        )
        return Credential(signer, credential["expires_at"])

    return CredentialKeeper(lambda: sign_with(provider()), sign_with(first))


def _config(resolved: Resolved, host: str, *, virtual: bool) -> dict[str, Any]:
    """Obstore's configuration. Every setting is given, so that obstore takes none from the environment."""
    settings = resolved.settings
    config: dict[str, Any] = {
        "region": settings.region or DEFAULT_REGION,
        "skip_signature": resolved.provider is None,
        "virtual_hosted_style_request": virtual,
    }
    if settings.requester_pays:
        config["request_payer"] = True
    if host:
        # Under both names: the environment's AWS_ENDPOINT_URL_S3 would count more than the first alone.
        config["endpoint"] = config["aws_endpoint_url_s3"] = host
    return config
