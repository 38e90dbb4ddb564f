"""The blocks of this package: where a cache and a catalog are, and where data comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field, HttpUrl

from prefect_stagegate import project_url

# Forms in Prefect's UI need some URL: example.org is reserved for those who have none.
_DOCUMENTATION = HttpUrl(f"{project_url('Documentation') or 'https://prefect-stagegate.example.org'}/prefect.html")
_SOURCE = project_url("Source")
# Without an address of our own picture, Prefect's for blocks that are file systems.
_LOGO = HttpUrl(
    f"{_SOURCE}/raw/HEAD/docs/pictures/logo.png"
    if _SOURCE
    else "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/filesystem.png"
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
    credentials_block: str | None = Field(
        default=None, description="Another block that holds credentials, for example aws-credentials/onprem."
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
    credentials_block: str | None = Field(
        default=None, description="Another block that holds credentials, for example aws-credentials/onprem."
    )
