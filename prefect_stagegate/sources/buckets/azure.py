"""Azure Blob Storage and Data Lake: `az://container/folder/`, `abfss://container@account.dfs.core.windows.net/folder/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_stagegate.objectstore.azure import open_azure, parse_container_url
from prefect_stagegate.objectstore.azure_options import azure_settings
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Terms


class AzureSource(BucketSource):
    """A container, a folder or a blob on Azure. The pin is the etag, which every read carries as If-Match.

    Args:
        url: With the account's host, or without where the options or the environment name the account.
        options: By adlfs's names.
        terms: Its idle time and permitted hosts apply.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        place, host = parse_container_url(url)
        store = open_azure(place, azure_settings(options, host=host), idle=terms.idle, allowed=terms.allowed)
        super().__init__(url, store, place.key)
