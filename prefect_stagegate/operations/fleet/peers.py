"""The nodes of this node's site that it may ask for a version's blobs."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from prefect_stagegate.clock import now
from prefect_stagegate.http import Client
from prefect_stagegate.nodes import BlobOrder, NodeRecord
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.settings import PEER_URL
from prefect_stagegate.sources.peer import Peers, PeerSource, read_token
from prefect_stagegate.unreadable import UnreadableRecords

log = logging.getLogger(__name__)


def find_peers(workspace: Workspace, dataset: str, digest: str, peers: Collection[str] = ()) -> Peers | None:
    """The nodes of this site that have a version or fetch it, by their records; None where there is none to ask.

    Args:
        workspace: Catalog and settings.
        dataset: The version's dataset.
        digest: The version's digest.
        peers: Names of the nodes that fetch it at the same time, whether their records say so yet or not.

    Raises:
        CatalogError: The records can't be listed.
        UsageError: The site's token can't be used.
    """
    settings = workspace.settings
    if not settings.site:
        return None
    unreadable = UnreadableRecords()
    records = [record for record in workspace.catalog.nodes(unreadable) if _may_be_asked(workspace, record)]
    for left_out in unreadable.all:
        log.warning("A node's record is left out: %s", left_out.problem)
    holders: dict[str, str] = {}
    fetching: dict[str, str] = {}
    for record in records:
        held = record.version(dataset, digest)
        if held and held.is_complete:
            holders[record.name] = record.url
        elif record.name in peers or (held and held.fetching):
            fetching[record.name] = record.url
    if not holders and not fetching:
        return None
    token = read_token(settings.peer_token_file)
    client = Client(
        allowed=settings.allowed_hosts,
        ca_file=str(settings.peer_ca or ""),
        certificate=str(settings.peer_certificate or ""),
        idle=settings.idle_timeout,
        redirects=False,
    )
    sources = [
        PeerSource(name, url, client, token, holds=name in holders) for name, url in (holders | fetching).items()
    ]
    # Without a server of its own nobody waits for this node, so it fetches nothing on behalf of others.
    name = settings.node if settings.peer_url else ""
    return Peers(sources, BlobOrder(name, holders, fetching))


def _may_be_asked(workspace: Workspace, record: NodeRecord) -> bool:
    """Whether it is another node of this site, with a usable URL and a record that is young enough."""
    settings = workspace.settings
    return (
        record.name != settings.node
        and record.site == settings.site
        # Records come from outside.
        and re.fullmatch(PEER_URL, record.url) is not None
        and record.is_current(now(), settings.node_timeout)
    )
