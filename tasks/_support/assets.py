"""Show versions as Prefect assets with their sources upstream; the UI draws the lineage from it.

`@materialize` needs the asset's key before the run, but a version's key is known only after it is made. So the task
adds the asset to the `AssetContext` of its own run. Prefect emits the events from there when the run completes, and
takes from there what is upstream of tasks that use the version.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext

from prefect_stagegate.model import Address, Version
from prefect_stagegate.sources import public_url
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import bytes_text, count_text

SOURCES = 50
"""The most sources of a version that are shown upstream; an event holds at most a hundred related resources."""
KEY_LENGTH = 512
"""Prefect's own bound on an asset's key."""
MADE_BY = "prefect-stagegate"

_REFUSED = re.compile(r"""[\s\x00#?&%"'<>\[\]{}|\\^`]+""")
"""Characters that Prefect refuses in an asset's key."""


def version_key(dataset: str, digest: str) -> str:
    """The key of a version. fsspec opens it as a URL.

    >>> version_key("nycflights", "sha256:4f9c")
    'stagegate://nycflights@sha256-4f9c'
    """
    return f"stagegate://{dataset}@{digest.replace(':', '-')}"


def source_key(url: str) -> str:
    """The key of a source: its URL without credentials, with dashes for refused characters.

    The key of a chained URL is its last link, where the bytes are. A long key is cut and ends with a hash of the whole.

    >>> source_key("/mnt/nas/my flights/"), source_key("zip://a.csv::s3://me:secret@lake/x.zip?sig=1")
    ('file:///mnt/nas/my-flights/', 's3://lake/x.zip')
    """
    link = public_url(url.rpartition("::")[2])
    scheme, separator, rest = link.partition("://")
    if not separator:
        scheme, rest = "file", link
    key = f"{re.sub('[^a-z0-9]', '', scheme.lower())}://{_REFUSED.sub('-', unquote(rest))}"
    if len(key) <= KEY_LENGTH:
        return key
    # Two long keys that begin alike must stay two sources.
    mark = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{key[: KEY_LENGTH - len(mark) - 1]}-{mark}"


def trace(version: Version, origin: Spec | Address) -> None:
    """Register a version with Prefect in a task's run: as made from its spec's sources, or as used.

    A version that the catalog knew already counts as used: it is upstream of the tasks that take this task's result,
    and no event is emitted for it. Outside of a task's run nothing happens. The origin is the spec that the version
    was made from, or the address by which it was fetched.
    """
    context = AssetContext.get()
    if context is None:
        return
    if version.new and isinstance(origin, Spec):
        asset = _asset(version, origin)
        context.downstream_assets.add(asset)
        keys = sorted({source_key(source.url) for source in origin.sources})
        context.direct_asset_dependencies.update(Asset(key=key) for key in keys[:SOURCES])
        # Keep the name that the user's own asset task has set.
        context.materialized_by = context.materialized_by or MADE_BY
        context.add_asset_metadata(
            asset.key,
            {
                "digest": version.digest,
                "files": version.files,
                "bytes": version.bytes,
                "fetched": version.bytes_fetched,
                "path": str(version.path),
            },
        )
    else:
        context.direct_asset_dependencies.add(Asset(key=version_key(version.dataset, version.digest)))
    context.update_tracked_assets()


def _asset(version: Version, spec: Spec) -> Asset:
    properties = AssetProperties(
        name=f"{version.dataset} {version.digest[:19]}",
        description=f"{count_text(version.files, 'file')}, {bytes_text(version.bytes)}",
        owners=[contact for contact in spec.owners.values() if contact],
    )
    return Asset(key=version_key(version.dataset, version.digest), properties=properties)
