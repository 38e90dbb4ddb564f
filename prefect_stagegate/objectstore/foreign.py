"""Settings of a bucket for other libraries (delta-rs) that use the Rust crate `object_store`, as obstore does."""

from __future__ import annotations

from prefect_stagegate.errors import UsageError
from prefect_stagegate.objectstore.client import CONNECT_SECONDS, RETRIES, usable_endpoint
from prefect_stagegate.objectstore.credentials import resolve
from prefect_stagegate.objectstore.options import S3Settings
from prefect_stagegate.objectstore.s3 import parse_bucket_url


def object_store_options(url: str, settings: S3Settings, *, idle: float) -> dict[str, str]:
    """The crate's options that open the bucket of `url` as `open_s3` does, credentials included.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: The profile can't be used, or the settings name a CA file, which these libraries don't take.
    """
    resolved = resolve(settings, url=f"s3://{parse_bucket_url(url).bucket}/")
    settings = resolved.settings
    endpoint = usable_endpoint(settings.endpoint, tls=settings.tls)
    if settings.ca_file:
        raise UsageError(
            "Tables of this kind don't support the option `verify`",
            hint="Set the environment variable SSL_CERT_FILE to the PEM file.",
            source=url,
        )
    credentials = resolved.provider() if resolved.provider else {}
    options = {
        "aws_region": settings.region or "us-east-1",
        "aws_endpoint": endpoint,
        "aws_allow_http": str(endpoint.startswith("http://")).lower(),
        "aws_virtual_hosted_style_request": str(settings.virtual_host or (not endpoint)).lower(),
        "aws_skip_signature": "" if credentials else "true",
        "aws_request_payer": "true" if settings.requester_pays else "",
        "aws_access_key_id": credentials.get("access_key_id"),
        "aws_secret_access_key": credentials.get("secret_access_key"),
        "aws_session_token": credentials.get("token"),
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{max(idle, 1.0):.0f}s",
        "max_retries": str(RETRIES),
        "retry_timeout": f"{max(idle, 1.0):.0f}s",
    }
    return {name: value for name, value in options.items() if value}
