"""The fsspec storage options in any credentials block, with secrets in clear.

This module reads the fields of other packages' blocks without importing those packages. A spec or a catalog names a
block by the type's slug and the block's name: `aws-credentials/onprem`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect.blocks.core import Block, UnknownBlockType
from pydantic import SecretStr, ValidationError

from prefect_stagegate.errors import SourceUnavailable, UsageError


def storage_options(name: str) -> dict[str, Any]:
    """Load a block from the Prefect server and return its options.

    Args:
        name: The block as specs name it, `block-type-slug/name`: `aws-credentials/onprem`.

    Raises:
        UsageError: There is no such block, it can't be loaded here, or its type is not supported.
        SourceUnavailable: Prefect's API did not answer.
    """
    slug, slash, document = name.partition("/")
    if not (slug and slash and document):
        raise UsageError(f"Invalid block name {name!r}", hint="Write its type and its name: aws-credentials/onprem.")
    try:
        block: Any = Block.load(name, _sync=True)  # type: ignore[call-arg] # else an async flow would get a coroutine
    except (ValidationError, RuntimeError) as error:
        # Prefect wraps a ValidationError in a RuntimeError when it knows the block's id.
        cause = error if isinstance(error, ValidationError) else error.__cause__
        why = cause.errors()[0]["msg"] if isinstance(cause, ValidationError) else "its fields are not those of its type"
        raise UsageError(
            f"The block {name!r} can't be loaded here: {why}", hint="A file that it names must lie on this node too."
        ) from None  # pydantic's error repeats what it was given
    except ValueError as error:
        raise UsageError(
            f"There is no block {name!r} on the Prefect server",
            hint="`prefect block ls` lists those that are there.",
        ) from error
    except UnknownBlockType as error:
        raise UsageError(
            f"The package with the type of the block {name!r} is not installed here",
            hint=f"`pip install {PACKAGES[slug]}`." if slug in PACKAGES else "Install it.",
        ) from error
    except httpx.HTTPError as error:
        raise SourceUnavailable(
            f"Prefect's API did not answer a request for the block {name!r}",
            hint="Check PREFECT_API_URL with `prefect version`.",
        ) from error
    return options_of(block)


def options_of(block: Block) -> dict[str, Any]:
    """The options in a loaded block.

    Raises:
        UsageError: Its type is not supported.
    """
    slug = block.get_block_type_slug()
    if slug not in _OPTIONS:
        raise UsageError(f"Unsupported block type {slug!r}", hint=f"Supported types: {', '.join(_OPTIONS)}.")
    return _OPTIONS[slug](block)


def _stagegate(block: Any) -> dict[str, Any]:
    """The options of a block of this package: its own win over those of its credentials block."""
    other = block.credentials_block or ""
    # A block of this package could name itself, and following the names would never end.
    if other.startswith("stagegate-"):
        raise UsageError(
            f"A block's `credentials_block` is {other!r}, which is no credentials block",
            hint="Name a credentials block of another package, or write the options into `credentials`.",
        )
    # The block's own options override those of the other block; its secrets override both.
    foreign = storage_options(other) if other else {}
    secret = block.credentials.get_secret_value() if block.credentials else {}
    return {**foreign, **block.options, **secret}


def _aws(block: Any) -> dict[str, Any]:
    return _filled(
        key=block.aws_access_key_id,
        secret=block.aws_secret_access_key,
        token=block.aws_session_token,
        profile=block.profile_name,
        region=block.region_name,
        **_client(block),
    )


def _minio(block: Any) -> dict[str, Any]:
    return _filled(
        key=block.minio_root_user, secret=block.minio_root_password, region=block.region_name, **_client(block)
    )


def _client(block: Any) -> dict[str, Any]:
    parameters = block.aws_client_parameters
    verify = parameters.verify
    # `verify` is True, False, None, or the path of a certificate.
    certificate = parameters.verify_cert_path or (None if isinstance(verify, bool) else verify)
    config = dict(parameters.config or {})
    # botocore has a signature version for anonymous access, s3fs an option.
    unsigned = config.get("signature_version") == "unsigned" and config.pop("signature_version")
    return {
        "endpoint_url": parameters.endpoint_url,
        "use_ssl": None if parameters.use_ssl else False,
        "verify": str(certificate) if certificate else (None if verify is None or verify else False),
        "anon": True if unsigned else None,
        "config_kwargs": config or None,
    }


def _gcp(block: Any) -> dict[str, Any]:
    """A block without a file means Google's default credentials, so name them: gcsfs would end up anonymous."""
    if block.service_account_info:
        return _filled(token=block.service_account_info.get_secret_value(), project=block.project)
    return _filled(token=str(block.service_account_file or "google_default"), project=block.project)


def _azure(block: Any) -> dict[str, Any]:
    """An account's URL alone means Azure's default credentials, but anonymous access to adlfs: so set `anon=False`."""
    if block.connection_string:
        return _filled(connection_string=block.connection_string)
    # Without a scheme, `urlsplit` would take the host for a path.
    host = urlsplit(block.account_url if "://" in block.account_url else f"https://{block.account_url}").netloc
    principal = {name: getattr(block, name, None) for name in ("client_id", "client_secret", "tenant_id")}
    return _filled(account_name=host.partition(".")[0], account_host=host, anon=False, **principal)


def _filled(**options: Any) -> dict[str, Any]:
    """The options that are set, with secrets in clear."""
    plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in options.items()}
    return {name: value for name, value in plain.items() if value not in (None, "")}


_OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "stagegate-source": _stagegate,
    "stagegate-catalog": _stagegate,
    "aws-credentials": _aws,
    "minio-credentials": _minio,
    "gcp-credentials": _gcp,
    "azure-blob-storage-credentials": _azure,
}
"""The function that reads the options of a type of block, by the type's slug."""
PACKAGES = {
    "aws-credentials": "prefect-aws",
    "minio-credentials": "prefect-aws",
    "gcp-credentials": "prefect-gcp",
    "azure-blob-storage-credentials": "prefect-azure",
}
"""The package that has a type of block, by the type's slug."""
