"""What a target names, as an asset of Airflow: `stagegate://nycflights/production`.

Its events carry the digest, so that a DAG which they start knows the version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from airflow.sdk import Asset

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset as OpenLineageDataset

SCHEME = "stagegate"
_NAME = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_NAME = 63
_SCHEMES = {"s3a": "s3", "gcs": "gs", "": "file", "local": "file"}
"""Schemes of catalogs whose namespaces OpenLineage calls otherwise."""


def create_asset(*, dataset: str, target: str, catalog: str = "", extra: Mapping[str, Any] | None = None) -> Asset:
    """Make the asset of a dataset's target.

    Args:
        dataset: The dataset's name.
        target: The target's name: `production`.
        catalog: The catalog's URL or folder, for lineage alone: then OpenLineage's events of Airflow and those of
            `stagegate` name the same thing.
        extra: More about the asset, for people.

    Raises:
        ValueError: A name is none that stagegate has.
    """
    named = {"catalog": catalog} if catalog else {}
    return Asset(uri=f"{SCHEME}://{dataset}/{target}", extra={**(extra or {}), **named})


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """The URI as Airflow compares it.

    Raises:
        ValueError: It isn't `stagegate://DATASET/TARGET`.
    """
    names = (uri.netloc, uri.path.removeprefix("/"))
    if uri.query or not all(_NAME.fullmatch(name) and len(name) <= _LONGEST_NAME for name in names):
        raise ValueError(
            f"{uri.geturl()!r} names no target of a dataset: write it as stagegate://nycflights/production. Names have "
            f"lower-case letters, digits and single hyphens, at most {_LONGEST_NAME}"
        )
    return uri


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> OpenLineageDataset:  # noqa: ARG001 - Airflow's
    """The asset as OpenLineage's events name it: as the command's own events do, if the asset says its catalog."""
    from airflow.providers.common.compat.openlineage.facet import Dataset

    uri = urlsplit(asset.uri)
    dataset, target = uri.netloc, uri.path.removeprefix("/")
    catalog = asset.extra.get("catalog")
    if not catalog:
        return Dataset(SCHEME, f"{dataset}/{target}")
    place = urlsplit(str(catalog))
    scheme = _SCHEMES.get(place.scheme, place.scheme)
    # Credentials that stand in the URL are no part of a name.
    host = place.netloc.rpartition("@")[2]
    # A folder's name begins at the root, an object's in its bucket.
    folder = place.path.rstrip("/") if scheme == "file" else place.path.strip("/")
    name = f"{folder}/datasets/{dataset}/refs/{target}"
    return Dataset(f"{scheme}://{host}" if host else scheme, name if scheme == "file" else name.lstrip("/"))
