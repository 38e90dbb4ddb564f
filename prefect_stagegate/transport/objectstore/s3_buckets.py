"""Buckets of S3 and of what speaks its protocol."""

from __future__ import annotations

import re

from prefect_stagegate.errors import UsageError
from prefect_stagegate.transport.http import Allowed, origin_of
from prefect_stagegate.transport.http.messages import DEFAULT_CLIENT
from prefect_stagegate.transport.objectstore.client_settings import canonical_url, http_client, usable_endpoint
from prefect_stagegate.transport.objectstore.credentials import Provider, resolve
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.transport.objectstore.object_requests import S3Requests
from prefect_stagegate.transport.objectstore.s3_options import S3Settings
from prefect_stagegate.transport.objectstore.sigv4 import SigV4Signer
from prefect_stagegate.transport.objectstore.store import BucketPath, ObjectStore

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
    path: BucketPath, settings: S3Settings, *, idle: float = DEFAULT_CLIENT.idle, allowed: Allowed = ()
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
    region = resolved.settings.region or DEFAULT_REGION
    requests = S3Requests(
        canonical_url(_bucket_url(endpoint, path.bucket, region, virtual=virtual)),
        _signer(resolved.provider, resolved.settings, region) if resolved.provider else None,
    )
    client = http_client(resolved.settings.ca_file, idle, allowed)
    return ObjectStore(url, endpoint or "AWS", requests, client, resolved.life)


def _is_virtual(settings: S3Settings, endpoint: str, bucket: str) -> bool:
    """Whether the bucket stands in the host's name; AWS's certificate covers no name with further dots."""
    return not endpoint and "." not in bucket if settings.virtual_host is None else settings.virtual_host


def _bucket_url(endpoint: str, bucket: str, region: str, *, virtual: bool) -> str:
    """The URL below which the bucket's objects lie; without an endpoint they lie at AWS."""
    if not endpoint:
        return f"https://{bucket}.s3.{region}.{AWS}" if virtual else f"https://s3.{region}.{AWS}/{bucket}"
    if not virtual:
        return f"{endpoint}/{bucket}"
    origin = origin_of(endpoint)
    if re.fullmatch(r".*:.*|(.*\.)?(\d+|0x[\da-f]*)", origin.host):  # an address
        raise UsageError(
            f"The addressing style is virtual, and no bucket's name can stand before {origin.address}",
            hint="Set `addressing_style: path` for the source, or write the name of the endpoint's host.",
            source=f"s3://{bucket}/",
        )
    return endpoint.replace("://", f"://{bucket}.", 1)


def _signer(provider: Provider, settings: S3Settings, region: str) -> CredentialKeeper[SigV4Signer]:
    """A keeper of signers with the provider's credentials, the first of which it asks for now."""

    def provide() -> Credential[SigV4Signer]:
        credential = provider()
        signer = SigV4Signer(
            credential["access_key_id"],
            credential["secret_access_key"],
            region=region,
            token=credential["token"] or "",
            requester_pays=settings.requester_pays,
        )
        return Credential(signer, credential["expires_at"])

    return CredentialKeeper(provide, provide())
