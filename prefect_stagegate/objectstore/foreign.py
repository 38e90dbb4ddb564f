"""A bucket for another library that stands on the same Rust client as obstore and takes its settings as texts."""

from __future__ import annotations

from prefect_stagegate.errors import UsageError
from prefect_stagegate.objectstore.client import CONNECT_SECONDS, RETRIES, usable_endpoint
from prefect_stagegate.objectstore.credentials import resolve
from prefect_stagegate.objectstore.options import S3Settings
from prefect_stagegate.objectstore.s3 import s3_place


def texts(url: str, settings: S3Settings, *, idle: float) -> dict[str, str]:
    """What opens the bucket of `url` as `open_s3` would, credentials included.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: The profile can't be used, or the settings name a CA file, which such a library doesn't take.
    """
    found = resolve(settings, url=f"s3://{s3_place(url).bucket}/")
    asked = found.settings
    endpoint = usable_endpoint(asked.endpoint, tls=asked.tls)
    if asked.ca_file:
        raise UsageError(
            "A certificate authority can't be named for this kind of table by `verify`",
            hint="Name the PEM file in the environment, as SSL_CERT_FILE.",
            source=url,
        )
    credentials = found.provider() if found.provider else {}
    given = {
        "aws_region": asked.region or "us-east-1",
        "aws_endpoint": endpoint,
        "aws_allow_http": str(endpoint.startswith("http://")).lower(),
        "aws_virtual_hosted_style_request": str(asked.virtual_host or (not endpoint)).lower(),
        "aws_skip_signature": "" if credentials else "true",
        "aws_request_payer": "true" if asked.requester_pays else "",
        "aws_access_key_id": credentials.get("access_key_id"),
        "aws_secret_access_key": credentials.get("secret_access_key"),
        "aws_session_token": credentials.get("token"),
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{max(idle, 1.0):.0f}s",
        "max_retries": str(RETRIES),
        "retry_timeout": f"{max(idle, 1.0):.0f}s",
    }
    return {name: text for name, text in given.items() if text}
