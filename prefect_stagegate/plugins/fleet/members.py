"""Which nodes a fleet has: chosen by their records, without those on which a version can never fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from prefect_stagegate.catalog import withdrawal_of
from prefect_stagegate.catalog.version_records import read_seal
from prefect_stagegate.clock import now
from prefect_stagegate.errors import NotReady, UsageError, did_you_mean
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import NODE_NAME
from prefect_stagegate.plugins.fleet.barrier import NAMED, NodeOutcome, NodeReport
from prefect_stagegate.plugins.fleet.nodes import NodeRecord, record_timeout
from prefect_stagegate.units import bytes_text, digest_text
from prefect_stagegate.workspace import Workspace

KEYS = ("site", "gpu")
"""What a selector may ask of a node's record."""


def choose_nodes(
    available: Collection[str],
    nodes: Sequence[str] | None,
    selector: Mapping[str, str] | None,
    records: Iterable[NodeRecord],
) -> list[str]:
    """The names of a fleet's nodes, sorted.

    Args:
        available: The nodes that the engine knows.
        nodes: The nodes that the user named; they count also where the engine doesn't know them.
        selector: `site` and `gpu` (a part of a GPU's model, in any case) that a node's record must have.
        records: The nodes' records.

    Raises:
        UsageError: No node is left, or a node's name or the selector's key can't be one.
    """
    if unknown := set(selector or ()) - set(KEYS):
        word = sorted(unknown)[0]
        raise UsageError(f"A selector has no key {word!r}", hint=f"About {word!r}: {did_you_mean(word, KEYS)}.")
    for node in nodes or ():
        if not NODE_NAME.fullmatch(node):
            raise UsageError(f"{node!r} is no name of a node", hint="`stagegate nodes` lists the nodes' names.")
    # Workers that nobody gave a name have one of Prefect's, which no node can have.
    chosen = {node for node in available if NODE_NAME.fullmatch(node)} if nodes is None else set(nodes)
    if selector:
        chosen &= {record.name for record in records if _matches(record, selector)}
    if not chosen:
        known = ", ".join(sorted(available)[:NAMED]) or "no node"
        raise UsageError(
            "The fleet has no node", hint=f"The engine knows {known}; `stagegate nodes` lists the nodes' records."
        )
    return sorted(chosen)


def _matches(record: NodeRecord, selector: Mapping[str, str]) -> bool:
    site, gpu = selector.get("site"), selector.get("gpu")
    has_gpu = gpu is None or any(gpu.lower() in model.lower() for model in record.gpus)
    return has_gpu and (site is None or record.site == site)


def reports_of_full_nodes(
    workspace: Workspace, dataset: str, digest: str, nodes: Collection[str], records: Iterable[NodeRecord]
) -> Iterator[NodeReport]:
    """The nodes on which a version can't fit, even if everything else in their cache were collected.

    Each node makes room for itself. Nodes whose record is too old are asked, since the record says nothing of them now.
    """
    size = read_seal(workspace.catalog, dataset, digest).bytes
    time, timeout = now(), record_timeout(workspace.settings)
    for record in records:
        held, most = record.version(dataset, digest), record.room + record.used
        # Of files of the same bytes, a node has one: it may hold a version that is larger than its cache.
        is_full = most < size and not (held and held.is_complete)
        if record.name in nodes and is_full and record.is_current(time, timeout):
            problem = (
                f"no room: the version has {bytes_text(size)}, and the node has room for {bytes_text(most)} at most"
            )
            yield NodeReport(record.name, NodeOutcome.FAILED, problem=problem)


def require_committed(workspace: Workspace, dataset: str, ref: str, digest: str) -> None:
    """Raise unless the catalog's ref still names the version that the nodes were brought.

    Raises:
        NotReady: It names another version by now, or this one was withdrawn.
    """
    head = workspace.catalog.resolve(Address(dataset, ref))
    if head != digest:
        raise NotReady(
            f"{dataset}@{ref} names {digest_text(head)} by now, not {digest_text(digest)}: "
            "no node's copy may move to it",
            hint=f"Stage the fleet again: it brings what {ref} names.",
            dataset=dataset,
        )
    if withdrawal := withdrawal_of(workspace.catalog, dataset, ref, digest):
        raise NotReady(
            f"{dataset}@{digest_text(digest)} was withdrawn by {withdrawal.who} ({withdrawal.reason}): "
            "no node's copy may move to it",
            dataset=dataset,
        )
