"""Buckets of S3 and of what speaks its protocol."""

from __future__ import annotations

from typing import Any

from obstore.store import S3Store

from prefect_stagegate.errors import UsageError
from prefect_stagegate.http import Allowed
from prefect_stagegate.objectstore.anykey import AnyKey
from prefect_stagegate.objectstore.client import (
    IDLE_SECONDS,
    RETRIES,
    canonical_url,
    client_options,
    http_client,
    retries,
    usable_endpoint,
)
from prefect_stagegate.objectstore.credentials import Provider, Resolved, resolve
from prefect_stagegate.objectstore.keeper import Credential, CredentialKeeper
from prefect_stagegate.objectstore.object_requests import S3Requests
from prefect_stagegate.objectstore.options import S3Settings
from prefect_stagegate.objectstore.sigv4 import SigV4Signer
from prefect_stagegate.objectstore.store import Asker, ObjectStore, Place

AWS = "amazonaws.com"
DEFAULT_REGION = "us-east-1"


def s3_place(url: str) -> Place:
    """Take `s3://bucket/key` apart; the key is taken as it stands, `%`, `?` and `#` included.

    Raises:
        UsageError: There is no bucket, or credentials stand before it.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            "The URL of a bucket holds credentials", hint="They go into `key` and `secret`, a block or the environment."
        )
    if not bucket:
        raise UsageError(f"{url!r} names no bucket", hint="It looks like s3://bucket/folder/.")
    return Place(bucket, key)


def open_s3(place: Place, settings: S3Settings, *, idle: float = IDLE_SECONDS, allowed: Allowed = ()) -> ObjectStore:
    """Open a bucket. Nothing is asked of the server yet.

    Args:
        place: The bucket; the key is not used.
        settings: What the options say; the environment and the AWS files fill in what they leave open.
        idle: Seconds without a byte after which a read is given up.
        allowed: Hosts that may be connected to whatever their address is.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: The profile or the CA file can't be used.
    """
    url = f"s3://{place.bucket}/"
    found = resolve(settings, url=url)
    endpoint = usable_endpoint(found.settings.endpoint, tls=found.settings.tls)
    virtual = found.settings.virtual_host
    if virtual is None:
        virtual = not endpoint and "." not in place.bucket
    client = client_options(endpoint, found.settings.ca_file, idle)
    host = _host(endpoint, place.bucket, virtual=virtual)

    def store(repeats: int) -> S3Store:
        return S3Store(
            place.bucket,
            config=_config(found, host, virtual=virtual),  # type: ignore[arg-type]
            client_options=client,  # type: ignore[arg-type]
            retry_config=retries(repeats),  # type: ignore[arg-type]
            credential_provider=found.provider,  # type: ignore[arg-type]
        )

    any_key = AnyKey(place.bucket, found.settings, found.provider, endpoint, virtual, idle)
    credential = found.provider() if found.provider else {}
    token = credential.get("token")
    introduction = (host if virtual else f"{host}/{place.bucket}") if host and token else ""
    signer = _signer(found.provider, credential, found.settings) if found.provider else None
    bucket_url = canonical_url(
        _bucket_url(host, place.bucket, found.settings.region or DEFAULT_REGION, virtual=virtual)
    )
    requests = S3Requests(bucket_url, signer)
    asker = Asker(found.life, introduction, http_client(found.settings.ca_file, idle, allowed), requests)
    return ObjectStore(store(RETRIES), store(0), url, endpoint or "AWS", any_key, asker)


def _host(endpoint: str, bucket: str, *, virtual: bool) -> str:
    """The endpoint as obstore wants it: with the bucket in its name when that is virtual; empty means AWS."""
    if not (endpoint and virtual):
        return endpoint
    scheme, host = endpoint.split("://", 1)
    return f"{scheme}://{bucket}.{host}"


def _bucket_url(host: str, bucket: str, region: str, *, virtual: bool) -> str:
    """Where the bucket's objects lie, as obstore has it."""
    if host:
        return host if virtual else f"{host}/{bucket}"
    return f"https://{bucket}.s3.{region}.{AWS}" if virtual else f"https://s3.{region}.{AWS}/{bucket}"


def _signer(provider: Provider, first: dict[str, Any], settings: S3Settings) -> CredentialKeeper[SigV4Signer]:
    """Signs with what the provider gives; `first` is what it gave already."""

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


def _config(found: Resolved, host: str, *, virtual: bool) -> dict[str, Any]:
    """Every setting is given, so that obstore does not look it up in the environment by rules of its own."""
    settings = found.settings
    config: dict[str, Any] = {
        "region": settings.region or DEFAULT_REGION,
        "skip_signature": found.provider is None,
        "virtual_hosted_style_request": virtual,
    }
    if settings.requester_pays:
        config["request_payer"] = True
    if host:
        config["endpoint"] = config["aws_endpoint_url_s3"] = host
    return config
