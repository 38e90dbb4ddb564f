"""The nodes of this node's site that it may ask for a version's blobs."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence

from prefect_stagegate.clock import now
from prefect_stagegate.errors import CatalogError, SourceError
from prefect_stagegate.http import Client
from prefect_stagegate.nodes import BlobOrder, FleetMember, NodeRecord
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.settings import PEER_URL, Settings
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
    members = [member for member in _members(workspace, dataset, digest, peers) if _may_be_asked(settings, member)]
    if not members:
        return None
    token = read_token(settings.peer_token_file)
    client = Client(
        allowed=settings.allowed_hosts,
        ca_file=str(settings.peer_ca or ""),
        certificate=str(settings.peer_certificate or ""),
        idle=settings.idle_timeout,
        redirects=False,
    )
    sources = [PeerSource(member.name, member.url, client, token, holds=member.holds) for member in members]
    holders = [member.name for member in members if member.holds]
    fetching = [member.name for member in members if not member.holds]
    # Without a server of its own nobody waits for this node, so it fetches nothing on behalf of others.
    name = settings.node if settings.peer_url else ""
    return Peers(sources, BlobOrder(name, holders, fetching))


def announce_fleet(
    workspace: Workspace, dataset: str, digest: str, nodes: Collection[str], records: Iterable[NodeRecord]
) -> bool:
    """Write down for the nodes of a fleet which nodes they may ask for a version's blobs.

    Otherwise each of them would read the record of every node. A failure is logged: that is what they do then.

    Returns:
        Whether it was written; not where no node has a blob server.
    """
    members = _by_records(workspace, dataset, digest, nodes, records)
    if not members:
        return False
    try:
        workspace.catalog.put_fleet(dataset, digest, members)
    except (CatalogError, SourceError) as error:  # a store that refuses is reported as a source
        log.warning("The nodes that fetch %s together were not written down: %s", dataset, error)
        return False
    return True


def announced_names(workspace: Workspace, dataset: str, digest: str) -> tuple[str, ...]:
    """The names that `announce_fleet` wrote down; none where the record can't be read, which is logged."""
    return tuple(member.name for member in _announced(workspace, dataset, digest))


def _announced(workspace: Workspace, dataset: str, digest: str) -> Sequence[FleetMember]:
    unreadable = UnreadableRecords()
    members: Sequence[FleetMember] = ()
    with unreadable.skip(dataset):
        members = workspace.catalog.fleet(dataset, digest)
    _log(unreadable)
    return members


def _members(workspace: Workspace, dataset: str, digest: str, peers: Collection[str]) -> Sequence[FleetMember]:
    """The nodes that take part, of all sites."""
    if peers:
        announced = _announced(workspace, dataset, digest)
        if {member.name for member in announced}.issuperset(peers):
            return announced
    unreadable = UnreadableRecords()
    records = workspace.catalog.nodes(unreadable)
    _log(unreadable)
    return _by_records(workspace, dataset, digest, peers, records)


def _by_records(
    workspace: Workspace, dataset: str, digest: str, peers: Collection[str], records: Iterable[NodeRecord]
) -> list[FleetMember]:
    """The nodes with a blob server and a record that is young enough, which have the version or fetch it."""
    members, time = [], now()
    for record in records:
        held = record.version(dataset, digest)
        holds = held is not None and held.is_complete
        fetches = record.name in peers or (held is not None and held.fetching)
        if (holds or fetches) and record.url and record.is_current(time, workspace.settings.node_timeout):
            members.append(FleetMember(record.name, record.site, record.url, holds))
    return members


def _may_be_asked(settings: Settings, member: FleetMember) -> bool:
    """Whether it is another node of this site, with a usable URL: records come from outside."""
    # A node that was renamed has a record by its old name.
    is_other = member.name != settings.node and member.url != settings.peer_url
    return is_other and member.site == settings.site and re.fullmatch(PEER_URL, member.url) is not None


def _log(unreadable: UnreadableRecords) -> None:
    for record in unreadable.all:
        log.warning("A node's record is left out: %s", record.problem)
