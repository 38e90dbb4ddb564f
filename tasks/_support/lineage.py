"""Versions as Prefect's assets with their sources upstream, from which the UI draws where data came from.

A version's key is known only once it is made. So the task is no `@materialize`, whose keys stand before its run: it
adds to the `AssetContext` of its own run, from which Prefect emits the events when the run completes, and from which
it tells the tasks that take the version what is upstream of theirs.
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
"""The most sources of a version that are shown as upstream: an event has room for a hundred related resources."""
KEY_LENGTH = 512
"""Prefect's own bound on an asset's key."""
MADE_BY = "prefect-stagegate"

_REFUSED = re.compile(r"""[\s\x00#?&%"'<>\[\]{}|\\^`]+""")
"""What Prefect lets into no asset's key."""


def version_key(dataset: str, digest: str) -> str:
    """The key of a version, which is also the URL that fsspec opens.

    >>> version_key("nycflights", "sha256:4f9c")
    'stagegate://nycflights@sha256-4f9c'
    """
    return f"stagegate://{dataset}@{digest.replace(':', '-')}"


def source_key(url: str) -> str:
    """The key of a source: its URL without credentials, and with dashes for what a key can't have.

    Of a chained URL it is the last link, where the bytes lie. A long one is cut, and ends with a hash of the whole.

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
    mark = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{key[: KEY_LENGTH - len(mark) - 1]}-{mark}"


def trace(version: Version, what: Spec | Address) -> None:
    """Tell Prefect in a task's run that a version was made of its spec's sources, or only used.

    One that the catalog knew is not made again: it is upstream of whatever takes this task's result, and nothing
    is emitted for it here. Outside of a task's run nothing happens.

    Args:
        version: The version.
        what: The spec that it was made from, or the address by which it was brought.
    """
    context = AssetContext.get()
    if context is None:
        return
    if version.new and isinstance(what, Spec):
        asset = _made(version, what)
        context.downstream_assets.add(asset)
        keys = sorted({source_key(source.url) for source in what.sources})
        context.direct_asset_dependencies.update(Asset(key=key) for key in keys[:SOURCES])
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


def _made(version: Version, spec: Spec) -> Asset:
    about = AssetProperties(
        name=f"{version.dataset} {version.digest[:19]}",
        description=f"{count_text(version.files, 'file')}, {bytes_text(version.bytes)}",
        owners=[contact for contact in spec.owners.values() if contact],
    )
    return Asset(key=version_key(version.dataset, version.digest), properties=about)
