"""The nodes of this node's site that it may ask for a version's blobs."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from threading import Event

from prefect_stagegate.catalog.records import corrupt
from prefect_stagegate.clock import now
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import CatalogError, SourceError
from prefect_stagegate.plugins.fleet.fleet_settings import PEER_URL, FleetSettings
from prefect_stagegate.plugins.fleet.nodes import (
    BlobOrder,
    FleetMember,
    NodeRecord,
    read_node,
    read_nodes,
    record_timeout,
)
from prefect_stagegate.plugins.fleet.peers.peer_source import Patience, Peers, PeerSource, may_have_token
from prefect_stagegate.serve.tokens import read_token
from prefect_stagegate.transport.http import Client
from prefect_stagegate.transport.transfer_limits import Limits
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

log = logging.getLogger(__name__)
JOIN_SECONDS = 30.0
"""Seconds for which nodes that begin together are waited for until each has its first record."""


@dataclass(frozen=True, slots=True)
class _Fleet:
    dataset: str
    digest: str
    members: tuple[FleetMember, ...]


_FLEETS = Record("stagegate.fleets", _Fleet)


def find_peers(
    workspace: Workspace,
    dataset: str,
    digest: str,
    peers: Collection[str] = (),
    cancel: Event | None = None,
    *,
    waits: bool = True,
) -> Peers | None:
    """The nodes of this site that have a version or fetch it, by their records; None where there is none to ask.

    Args:
        workspace: Catalog and settings.
        dataset: The version's dataset.
        digest: The version's digest.
        peers: Names of the nodes that fetch it at the same time, whatever their records say, and however old.
        cancel: Set it to wait no longer for first records.
        waits: Whether nodes that fetch it are waited for, so that one of them alone reads an object from the source.
            Else they are asked for what they have: the readers of this node want another order than those of others.

    Raises:
        CatalogError: The records can't be listed.
        UsageError: The site's token can't be used.
    """
    settings, fleet = workspace.settings, workspace.settings.of(FleetSettings)
    if not fleet.site:
        return None
    found = _members(workspace, dataset, digest, peers, cancel or Event())
    token = read_token(fleet.peer_token_file, "STAGEGATE_PEER_TOKEN_FILE")
    others = [member for member in found if _may_be_asked(settings.node, fleet, member)]
    members = _trusted(others, token, fleet.peer_hosts)
    if not members:
        return None
    client = Client(
        allowed=settings.allowed_hosts,
        ca_file=str(fleet.peer_ca or ""),
        certificate=str(fleet.peer_certificate or ""),
        idle=settings.of(Limits).idle,
        redirects=False,
    )
    patience = Patience()
    sources = [
        PeerSource(member.name, member.url, client, token, holds=member.holds, waits=waits, patience=patience)
        for member in members
    ]
    holders = [member.name for member in members if member.holds]
    fetching = [member.name for member in members if not member.holds]
    # Without a server of its own nobody waits for this node, so it fetches nothing on behalf of others.
    name = settings.node if fleet.peer_url and waits else ""
    return Peers(sources, BlobOrder(name, holders, fetching))


def announce_fleet(
    workspace: Workspace, dataset: str, digest: str, nodes: Collection[str], records: Collection[NodeRecord]
) -> bool:
    """Write down for the nodes of a fleet which nodes they may ask for a version's blobs.

    Otherwise each of them would read the record of every node. A failure is logged: that is what they do then.

    Returns:
        Whether it was written; not where no node has a blob server.
    """
    members = _by_records(workspace, dataset, digest, nodes, records)
    # Nodes that never wrote a record: each writes one when it begins, and the others wait for it.
    new = {*nodes}.difference(record.name for record in records)
    members += [FleetMember(name, "", "", holds=False) for name in sorted(new)]
    if not members:
        return False
    try:
        workspace.catalog.put(_FLEETS, _Fleet(dataset, digest, tuple(members)), dataset, digest)
    except (CatalogError, SourceError) as error:  # a store that refuses is reported as a source
        log.warning("The nodes that fetch %s together were not written down: %s", dataset, error)
        return False
    return True


def announced(workspace: Workspace, dataset: str, digest: str) -> Sequence[FleetMember]:
    """What `announce_fleet` wrote down; nothing where the record can't be read, which is logged."""
    unreadable = UnreadableRecords()
    members: Sequence[FleetMember] = ()
    with unreadable.skip(dataset):
        fleet = workspace.catalog.get(_FLEETS, dataset, digest)
        if fleet and (fleet.dataset, fleet.digest) != (dataset, digest):
            raise corrupt(_FLEETS.path(dataset, digest), "is about another version")
        members = fleet.members if fleet else ()
    _log(unreadable)
    return members


def _members(
    workspace: Workspace, dataset: str, digest: str, peers: Collection[str], cancel: Event
) -> Sequence[FleetMember]:
    """The nodes that take part, of all sites."""
    if peers:
        members = announced(workspace, dataset, digest)
        if {member.name for member in members if member.url}.issuperset(peers):
            return members
        _await_records(workspace, {*peers} - {workspace.settings.node}, cancel)
    unreadable = UnreadableRecords()
    records = read_nodes(workspace.catalog, unreadable)
    _log(unreadable)
    return _by_records(workspace, dataset, digest, peers, records)


def _await_records(workspace: Workspace, names: Collection[str], cancel: Event) -> None:
    """Wait until each node has a record, which it writes when it begins to fetch."""
    until = time.monotonic() + JOIN_SECONDS
    for name in names:
        with UnreadableRecords().skip(""):  # told when all are read
            while read_node(workspace.catalog, name) is None and time.monotonic() < until and not cancel.is_set():
                cancel.wait(1.0)


def _by_records(
    workspace: Workspace, dataset: str, digest: str, peers: Collection[str], records: Iterable[NodeRecord]
) -> list[FleetMember]:
    """The nodes with a blob server that fetch the version, or have it by a record of any age: asking costs little."""
    members, time = [], now()
    for record in records:
        held = record.version(dataset, digest)
        holds = held is not None and held.is_complete
        begun = held is not None and held.fetching and record.is_current(time, record_timeout(workspace.settings))
        if record.url and (holds or begun or record.name in peers):
            members.append(FleetMember(record.name, record.site, record.url, holds))
    return members


def _trusted(members: list[FleetMember], token: str, hosts: Sequence[str]) -> list[FleetMember]:
    """The nodes that may have the site's token; all of them where there is none."""
    strangers = [member for member in members if token and not may_have_token(member.url, hosts)]
    if strangers:
        log.warning(
            "Not asked for blobs, since STAGEGATE_PEER_HOSTS does not name their hosts and they would get the site's "
            "token: %s", ", ".join(f"{member.name} ({member.url})" for member in strangers[:20]),
        )  # fmt: skip
    return [member for member in members if member not in strangers]


def _may_be_asked(node: str, fleet: FleetSettings, member: FleetMember) -> bool:
    """Whether it is another node of this site, with a usable URL: records come from outside."""
    # A node that was renamed has a record by its old name.
    is_other = member.name != node and member.url != fleet.peer_url
    return is_other and member.site == fleet.site and re.fullmatch(PEER_URL, member.url) is not None


def _log(unreadable: UnreadableRecords) -> None:
    for record in unreadable.all:
        log.warning("A node's record is left out: %s", record.problem)
