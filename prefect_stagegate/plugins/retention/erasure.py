"""The catalog's records of erasures: which entries' bytes have to go, and which nodes proved that they have none.

    datasets/<dataset>/retention.erasures/<n>.json              the entries, by path, size and digest; who, when, why
                       retention.erased/<n>/<node>/<m>.json     what a node found and did; its newest counts

`<node>` is a hash of the node's name. Manifests stay as they are, so digests and logs verify as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import corrupt, newest_record
from prefect_stagegate.catalog.refs import ref_heads
from prefect_stagegate.catalog.version_records import read_manifest, version_digests
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record, load, plugins
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.jobs.review.status import find_holders
from prefect_stagegate.model import Entry, Identity
from prefect_stagegate.patterns import matcher
from prefect_stagegate.plugins.retention.tombstones import require_not_condemned
from prefect_stagegate.show.legible import short_line, time_text
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

MOST_ENTRIES = 20_000
"""Entries of one erasure, at most: they are one record."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """Entries whose bytes have to go from every node."""

    number: int
    """From 1, in each dataset."""
    versions: tuple[str, ...]
    """The versions that had them, by digest."""
    entries: tuple[Entry, ...]
    reason: str
    who: Identity
    at: str

    @property
    def digests(self) -> frozenset[str]:
        """The digests of the blobs."""
        return frozenset(entry.digest for entry in self.entries)


@dataclass(frozen=True, slots=True)
class NodeErasure:
    """What a node found and did about an erasure."""

    number: int
    node: str
    is_proved: bool
    """Whether it looked afterwards, and neither the blobs nor a view of the dataset had them."""
    blobs: int
    """Blobs that it removed this time."""
    left: tuple[str, ...]
    """Why something is left, a line each."""
    at: str


class NodeStanding(StrEnum):
    """What is known of a node."""

    PROVED = "proved"
    LEFT = "left"
    """It answered that something is left."""
    CONTRADICTED = "contradicted"
    """It answered that nothing is left, and by its own record it holds one of the versions complete."""
    UNANSWERED = "no answer"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Where an erasure stands on one node."""

    number: int
    node: str
    standing: NodeStanding
    at: str
    """When it answered last; empty where it never did."""
    why: str


ERASURES = Record("retention.erasures", Erasure)
NODE_ERASURES = Record("retention.erased", NodeErasure)


def plan_erasure(
    workspace: Workspace, dataset: str, digest: str, wanted: Callable[[str], bool]
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    """The versions and entries that an erasure is about.

    That is each entry of the dataset, under any path and in any version, that has the bytes of a wanted one. Empty
    files have none.

    Args:
        workspace: The catalog.
        dataset: The dataset.
        digest: The version whose entries are wanted; empty for all versions.
        wanted: Whether the entry of a path is.

    Raises:
        UsageError: No entry is wanted, or more are than one record takes.
    """
    every = version_digests(workspace.catalog, dataset)
    blobs = {
        entry.digest
        for version in ([digest] if digest else every)
        for entry in read_manifest(workspace.catalog, dataset, version).entries()
        if entry.size and wanted(entry.path)
    }
    versions: list[str] = []
    entries: dict[tuple[str, str], Entry] = {}
    for version in every if blobs else ():
        same = [entry for entry in _entries(workspace.catalog, dataset, version) if entry.digest in blobs]
        versions += [version] if same else []
        entries |= {(entry.path, entry.digest): entry for entry in same}
        if len(entries) > MOST_ENTRIES:
            raise UsageError(f"More than {MOST_ENTRIES:,} entries can't be erased at once", hint="Erase them in parts.")
    if not entries:
        raise UsageError(f"{dataset} has no such entry", hint=f"`stagegate show {dataset} --all` lists its entries.")
    return tuple(versions), tuple(entries[key] for key in sorted(entries))


def _entries(catalog: Catalog, dataset: str, digest: str) -> Iterator[Entry]:
    return read_manifest(catalog, dataset, digest).entries()


def glob_of(patterns: Iterable[str], paths: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path is one of `paths`, or matches one of the patterns as `include:` of a spec reads them."""
    matchers, listed = [matcher(pattern) for pattern in patterns], frozenset(paths)
    return lambda path: path in listed or any(matches(path) for matches in matchers)


def record_erasure(
    workspace: Workspace, dataset: str, versions: tuple[str, ...], entries: tuple[Entry, ...], reason: str
) -> Erasure:
    """Record that the bytes of entries have to go.

    Raises:
        UsageError: There is no reason.
        CatalogError: The catalog can't be read or written.
    """
    if not reason.strip():
        raise UsageError("An erasure needs a reason", hint="Give one with --reason.")
    number = max(workspace.catalog.numbers(ERASURES, dataset), default=0)
    while True:
        number += 1
        erasure = Erasure(number, versions, entries, short_line(reason), workspace.identity, stamp(now()))
        if workspace.catalog.create(ERASURES, erasure, dataset, number):
            return erasure


def erasures_of(catalog: Catalog, dataset: str) -> list[Erasure]:
    """All erasures of a dataset, the oldest first.

    Raises:
        CorruptRecord: One is damaged.
    """
    return catalog.all(ERASURES, dataset)


def put_node_erasure(catalog: Catalog, dataset: str, report: NodeErasure) -> None:
    """Add what a node found."""
    catalog.add(NODE_ERASURES, report, dataset, report.number, _node_key(report.node))


def node_erasure(catalog: Catalog, dataset: str, number: int, node: str) -> NodeErasure | None:
    """What a node found last; None where it never answered."""
    key = (dataset, number, _node_key(node))
    newest = newest_record(catalog, NODE_ERASURES, *key)
    if newest and (newest.number, newest.node) != (number, node):
        raise corrupt(NODE_ERASURES.path(*key), "is about something else")
    return newest


def _node_key(node: str) -> str:
    return hashlib.sha256(node.encode(errors="surrogateescape")).hexdigest()


def erasure_status(workspace: Workspace, dataset: str, unreadable: UnreadableRecords) -> list[NodeStatus]:
    """Where each erasure of a dataset stands on each node that the catalog knows, and on each that answered."""
    catalog, found = workspace.catalog, list[NodeStatus]()
    holders = find_holders(workspace, unreadable)
    known = {name for plugin in plugins() if plugin.nodes for name in load(plugin.nodes)(catalog)}
    for erasure in erasures_of(catalog, dataset):
        answers = _answers(catalog, dataset, erasure.number, known, unreadable)
        holding = {node: version for version in erasure.versions for node in holders(dataset, version)}
        found += [
            _status(erasure, node, answers.get(node), holding.get(node, ""))
            for node in sorted({*known, *answers, *holding})
        ]
    return found


def _answers(
    catalog: Catalog, dataset: str, number: int, known: Iterable[str], unreadable: UnreadableRecords
) -> dict[str, NodeErasure]:
    """The newest answers of all nodes to an erasure, by the nodes' names."""
    answers = {}
    keys = {_node_key(node) for node in known} | {*catalog.folders(NODE_ERASURES, dataset, number)}
    for key in sorted(keys):
        with unreadable.skip(dataset):
            if answer := newest_record(catalog, NODE_ERASURES, dataset, number, key):
                if (answer.number, _node_key(answer.node)) != (number, key):
                    raise corrupt(NODE_ERASURES.path(dataset, number, key), "is about something else")
                answers[answer.node] = answer
    return answers


def _status(erasure: Erasure, node: str, answer: NodeErasure | None, holding: str) -> NodeStatus:
    if answer is None:
        why = f"its record says that it holds {digest_text(holding)} complete" if holding else ""
        return NodeStatus(erasure.number, node, NodeStanding.UNANSWERED, "", why)
    if not answer.is_proved:
        return NodeStatus(erasure.number, node, NodeStanding.LEFT, answer.at, "; ".join(answer.left))
    if holding:
        why = f"its record says that it holds {digest_text(holding)} complete"
        return NodeStatus(erasure.number, node, NodeStanding.CONTRADICTED, answer.at, why)
    return NodeStatus(erasure.number, node, NodeStanding.PROVED, answer.at, "")


def erased_entry(catalog: Catalog, dataset: str, digest: str) -> tuple[Entry, Erasure] | None:
    """An entry of a version whose bytes were erased, with the erasure; None where none was."""
    by_blob = {blob: erasure for erasure in erasures_of(catalog, dataset) for blob in erasure.digests}
    if not by_blob:
        return None
    return next(
        ((entry, by_blob[entry.digest]) for entry in _entries(catalog, dataset, digest) if entry.digest in by_blob),
        None,
    )


def require_lasting(workspace: Workspace, dataset: str, digest: str, ref: str) -> None:
    """Refuse to move a target to a version that is about to expire, or had an entry whose bytes were erased.

    Raises:
        GateFailed: It is, or had one.
    """
    require_not_condemned(workspace, dataset, digest, ref)
    require_whole(workspace, dataset, digest, ref)


def require_whole(workspace: Workspace, dataset: str, digest: str, ref: str) -> None:
    """Refuse to fetch a version that had an entry whose bytes were erased.

    Raises:
        GateFailed: It had one.
    """
    del ref
    if found := erased_entry(workspace.catalog, dataset, digest):
        entry, erasure = found
        raise GateFailed(
            f"{dataset}@{digest} is no longer whole: {entry.path} was erased on {time_text(erasure.at)}, by "
            f"{erasure.who}: {erasure.reason}",
            hint="Take it out of the source, then stage and promote a version without it.",
            dataset=dataset,
            object=entry.path,
        )


def refs_naming(catalog: Catalog, dataset: str, versions: Iterable[str], unreadable: UnreadableRecords) -> list[str]:
    """The refs that name one of the versions now, sorted."""
    named, heads = {*versions}, ref_heads(catalog, dataset, unreadable)
    return sorted(ref for ref, head in heads.items() if head.entry.digest in named)
