"""fsspec's option names for S3, translated by one table.

Pure: `credentials` reads the environment and the AWS files. A source with an option that only s3fs knows is read
through s3fs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.doors import core_sources
from prefect_stagegate.errors import UsageError
from prefect_stagegate.transport.objectstore.translating import OptionTable, Translation, switch, text, verify


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Settings of an S3 client; empty means that the environment or AWS's own default decides."""

    endpoint: str = ""
    region: str = ""
    key: str = ""
    secret: str = ""
    token: str = ""
    profile: str = ""
    anonymous: bool = False
    virtual_host: bool | None = None
    """Whether the bucket is part of the host's name; None: yes at AWS, no at a custom endpoint."""
    tls: bool = True
    """Whether an endpoint without a scheme is reached by TLS."""
    ca_file: str = ""
    """Path of a PEM file with further certificate authorities to trust."""
    requester_pays: bool = False
    etag_is_md5: bool = True
    """Whether a simple etag is checked as the MD5 of the object's bytes."""


def _addressing(style: Any) -> dict[str, Any]:
    styles = {"path": False, "virtual": True, "auto": None}
    if style not in styles:
        raise UsageError(f"addressing_style is {style!r}", hint="It is path, virtual or auto.")
    return {"virtual_host": styles[style]}


TRANSLATIONS: dict[str, Translation] = {
    "key": text("key"),
    "username": text("key"),
    "client_kwargs.aws_access_key_id": text("key"),
    "secret": text("secret"),
    "password": text("secret"),
    "client_kwargs.aws_secret_access_key": text("secret"),
    "token": text("token"),
    "client_kwargs.aws_session_token": text("token"),
    "profile": text("profile"),
    "anon": switch("anonymous"),
    "endpoint_url": text("endpoint"),
    "client_kwargs.endpoint_url": text("endpoint"),
    "region": text("region"),
    "client_kwargs.region_name": text("region"),
    "addressing_style": _addressing,
    "config_kwargs.s3.addressing_style": _addressing,
    "use_ssl": switch("tls"),
    "client_kwargs.use_ssl": switch("tls"),
    "verify": verify,
    "client_kwargs.verify": verify,
    "requester_pays": switch("requester_pays"),
    "etag_is_md5": switch("etag_is_md5"),
}
"""Each option's name, dots for nesting, and the settings that a value of it gives."""


def translate(options: Mapping[str, Any]) -> tuple[S3Settings, tuple[str, ...]]:
    """Translate `options`; also return the names that only s3fs understands.

    Raises:
        UsageError: An option is unknown to both, or a value is not usable.
    """
    table: OptionTable[S3Settings] = OptionTable(core_sources()["s3"], TRANSLATIONS)
    settings, left = table.apply(S3Settings(), options)
    if settings.key and not settings.secret:
        raise UsageError("The access key has no secret", hint="Set both `key` and `secret`, or neither.")
    return settings, left
