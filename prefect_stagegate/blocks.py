"""Prefect blocks that name a cache, a catalog and sources, and the storage options behind any credentials block.

This is the `prefect.collections` entry point: the server and workers import it at their start, so it stays light.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from prefect.blocks.core import Block, UnknownBlockType
from prefect.types import SecretDict
from pydantic import Field, HttpUrl, SecretStr

from prefect_stagegate.errors import SourceUnavailable, UsageError

# The project has no public address; example.org is reserved for such cases, and forms in Prefect's UI need some URL.
_DOCUMENTATION = HttpUrl("https://prefect-stagegate.example.org/prefect")
# Prefect's own picture for blocks that are file systems.
_LOGO = HttpUrl(
    "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/filesystem.png"
)


class StagegateCache(Block):
    """The cache of the nodes that share this block: a folder on a volume near their GPUs.

    Example:
        Stage into a cache that the platform team named:
        ```python
        from prefect import flow
        from prefect_stagegate.blocks import StagegateCache
        from prefect_stagegate.tasks import stage_dataset

        @flow
        def warm() -> None:
            cache = StagegateCache.load("BLOCK_NAME")
            stage_dataset("nycflights@production", cache=cache)
        ```
    """

    _block_type_name = "Stagegate Cache"
    _logo_url = _LOGO
    _documentation_url = _DOCUMENTATION

    path: Path = Field(description="The cache's folder, absolute on each node.")


class StagegateCatalog(Block):
    """The catalog that all environments share: versions, their evidence, and refs.

    Example:
        Ask a shared catalog:
        ```python
        from prefect import flow
        from prefect_stagegate.blocks import StagegateCatalog
        from prefect_stagegate.tasks import require_ready

        @flow
        def train() -> None:
            catalog = StagegateCatalog.load("BLOCK_NAME")
            require_ready("nycflights@production", catalog=catalog)
        ```
    """

    _block_type_name = "Stagegate Catalog"
    _logo_url = _LOGO
    _documentation_url = _DOCUMENTATION

    url: str = Field(description="A folder, or the URL of a prefix in an object store.")
    options: dict[str, Any] = Field(default_factory=dict, description="Storage options by fsspec's names.")
    credentials: SecretDict | None = Field(
        default=None, description="Further storage options that are secret, such as key and secret."
    )


class StagegateSource(Block):
    """A source, or only the credentials for it: specs name one as `credentials: stagegate-source/BLOCK_NAME`.

    Example:
        Write a spec by hand that has a source of this block:
        ```python
        from prefect import flow
        from prefect_stagegate.blocks import StagegateSource
        from prefect_stagegate.tasks import stage_dataset

        @flow
        def mirror() -> None:
            source = StagegateSource.load("BLOCK_NAME")
            named = {"url": source.url, "credentials": "stagegate-source/BLOCK_NAME"}
            stage_dataset({"stagegate": 1, "dataset": "nycflights", "sources": [named]})
        ```
    """

    _block_type_name = "Stagegate Source"
    _logo_url = _LOGO
    _documentation_url = _DOCUMENTATION

    url: str = Field(description="The source's URL, for example s3://lake/flights/.")
    options: dict[str, Any] = Field(default_factory=dict, description="Storage options by fsspec's names.")
    credentials: SecretDict | None = Field(
        default=None, description="Further storage options that are secret, such as key and secret."
    )


def storage_options(name: str) -> dict[str, Any]:
    """The fsspec storage options behind a block, secrets in clear.

    Args:
        name: The block as specs name it, `block-type-slug/name`: `aws-credentials/onprem`.

    Raises:
        UsageError: There is no such block, or nobody here knows the options of its type.
        SourceUnavailable: Prefect's API did not answer.
    """
    slug, slash, document = name.partition("/")
    if not (slug and slash and document):
        raise UsageError(f"{name!r} names no block", hint="Write its type and its name: aws-credentials/onprem.")
    try:
        block: Any = Block.load(name, _sync=True)  # type: ignore[call-arg] # else an async flow would get a coroutine
    except ValueError as error:
        raise UsageError(
            f"There is no block {name!r} on the Prefect server",
            hint="`prefect block ls` lists those that are there.",
        ) from error
    except UnknownBlockType as error:
        raise UsageError(
            f"The package that has the type of the block {name!r} is not installed here",
            hint="For example: `pip install prefect-aws`.",
        ) from error
    except httpx.HTTPError as error:
        raise SourceUnavailable(
            f"Prefect's API did not answer when it was asked for the block {name!r}",
            hint="Check PREFECT_API_URL with `prefect version`.",
        ) from error
    return options_of(block)


def options_of(block: Block) -> dict[str, Any]:
    """The fsspec storage options in a block that is loaded, secrets in clear.

    Raises:
        UsageError: Nobody here knows the options of its type.
    """
    slug = block.get_block_type_slug()
    if slug not in _OPTIONS:
        raise UsageError(
            f"Blocks of the type {slug!r} hold no storage options that are known here",
            hint=f"Those that do are of the types {', '.join(_OPTIONS)}.",
        )
    return _OPTIONS[slug](block)


def _own(block: Any) -> dict[str, Any]:
    secret = block.credentials.get_secret_value() if block.credentials else {}
    return {**block.options, **secret}


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
    asked = block.aws_client_parameters
    plain = {} if asked.use_ssl else {"use_ssl": False}
    certificate = asked.verify_cert_path or (asked.verify if not isinstance(asked.verify, bool) else None)
    unchecked = {} if asked.verify else {"verify": False}
    return {
        "endpoint_url": asked.endpoint_url,
        "verify": str(certificate) if certificate else None,
        **plain,
        **unchecked,
    }


def _filled(**options: Any) -> dict[str, Any]:
    """What is set, with secrets unwrapped."""
    plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in options.items()}
    return {name: value for name, value in plain.items() if value not in (None, "")}


_OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "stagegate-source": _own,
    "stagegate-catalog": _own,
    "aws-credentials": _aws,  # of prefect-aws
    "minio-credentials": _minio,  # of prefect-aws
}
"""How the options are read from each type of block, by its slug. Foreign types are never imported, only read."""
