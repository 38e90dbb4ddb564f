"""fsspec's option names for S3, translated for obstore in one visible table.

Pure: the environment and the AWS files are asked elsewhere. An option is translated, or irrelevant to reading whole
objects, or known to s3fs alone (then the source is read through s3fs, which is said), or refused with the nearest name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefect_stagegate.errors import UsageError


@dataclass(frozen=True, slots=True)
class S3Settings:
    """What is asked of an S3 client; empty means that the environment or AWS's own default decides."""

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


def _flag(value: Any) -> bool:
    return str(value).lower() in ("1", "true", "yes", "on")


def _text(field: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {field: str(value or "")}


def _boolean(field: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {field: _flag(value)}


def _addressing(style: Any) -> dict[str, Any]:
    styles = {"path": False, "virtual": True, "auto": None}
    if style not in styles:
        raise UsageError(f"addressing_style is {style!r}", hint="It is path, virtual or auto.")
    return {"virtual_host": styles[style]}


def _verify(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        return {"ca_file": value}
    if not _flag(value):
        raise UsageError(
            "Reading without checking the server's certificate is not supported",
            hint="Set `verify:` to a PEM file with the certificate authority of your server.",
        )
    return {}


TRANSLATIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "key": _text("key"),
    "username": _text("key"),
    "client_kwargs.aws_access_key_id": _text("key"),
    "secret": _text("secret"),
    "password": _text("secret"),
    "client_kwargs.aws_secret_access_key": _text("secret"),
    "token": _text("token"),
    "client_kwargs.aws_session_token": _text("token"),
    "profile": _text("profile"),
    "anon": _boolean("anonymous"),
    "endpoint_url": _text("endpoint"),
    "client_kwargs.endpoint_url": _text("endpoint"),
    "region": _text("region"),
    "client_kwargs.region_name": _text("region"),
    "addressing_style": _addressing,
    "config_kwargs.s3.addressing_style": _addressing,
    "use_ssl": _boolean("tls"),
    "client_kwargs.use_ssl": _boolean("tls"),
    "verify": _verify,
    "client_kwargs.verify": _verify,
    "requester_pays": _boolean("requester_pays"),
    "etag_is_md5": _boolean("etag_is_md5"),
}
"""Each option's name, dots for nesting, and the settings that a value of it gives."""

IRRELEVANT = frozenset({
    "asynchronous", "cache_regions", "default_block_size", "default_cache_type", "default_fill_cache", "fill_cache",
    "fixed_upload_size", "listings_expiry_time", "loop", "max_concurrency", "max_paths", "skip_instance_cache",
    "use_listings_cache", "version_aware",
})  # fmt: skip
"""Options of s3fs that change nothing about which bytes an object has."""

S3FS_ONLY = ("s3_additional_kwargs", "session", "config_kwargs", "client_kwargs")
"""Options, or the beginnings of nested ones, that s3fs understands and obstore does not."""


def translate(options: Mapping[str, Any]) -> tuple[S3Settings, tuple[str, ...]]:
    """Translate `options`; also return the names that only s3fs understands.

    Raises:
        UsageError: An option is unknown to both, or a value is not usable.
    """
    settings, left = S3Settings(), []
    for name, value in _flat(options):
        if name in TRANSLATIONS:
            settings = replace(settings, **TRANSLATIONS[name](value))
        elif name.partition(".")[0] in S3FS_ONLY:
            left.append(name)
        elif name not in IRRELEVANT:
            raise _unknown(name)
    if settings.key and not settings.secret:
        raise UsageError("The access key has no secret", hint="Set both `key` and `secret`, or neither.")
    return settings, tuple(left)


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping) and (prefix or name in ("client_kwargs", "config_kwargs")):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _unknown(name: str) -> UsageError:
    near = difflib.get_close_matches(name, [*TRANSLATIONS, *IRRELEVANT, *S3FS_ONLY], n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "The names are those of s3fs."
    return UsageError(f"{name!r} is no option of an S3 source", hint=hint)
