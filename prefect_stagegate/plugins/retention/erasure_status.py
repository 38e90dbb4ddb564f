"""Where erasures stand: which nodes proved them, which did not answer, and which refs name versions that lost bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.refs import ref_heads
from prefect_stagegate.doors import load, plugins
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.jobs.review.status import find_holders
from prefect_stagegate.plugins.retention.erasure import (
    ERASURES,
    NODE_ERASURES,
    Erasure,
    NodeErasure,
    erasures_of,
    node_erasure,
    node_key,
)
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace


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


def erasure_status(workspace: Workspace, dataset: str, unreadable: UnreadableRecords) -> list[NodeStatus]:
    """Where each erasure of a dataset stands on each node that the catalog knows, and on each that answered.

    `unreadable` also collects those without the answers that the policy asks for, which no node does.
    """
    catalog, found = workspace.catalog, list[NodeStatus]()
    holders = find_holders(workspace, unreadable)
    known = {name for plugin in plugins() if plugin.nodes for name in load(plugin.nodes)(catalog)}
    erasures = erasures_of(catalog, dataset)
    for number in sorted({*catalog.numbers(ERASURES, dataset)} - {erasure.number for erasure in erasures}):
        problem = f"Erasure {number} of {dataset} lacks the answers that the policy asks for, so no node does it"
        unreadable.add(CorruptRecord(problem, hint="Ask again with `stagegate erase`."), dataset)
    for erasure in erasures:
        answers = dict[str, NodeErasure]()
        for key in sorted({*map(node_key, known), *catalog.folders(NODE_ERASURES, dataset, erasure.number)}):
            with unreadable.skip(dataset):
                if answer := node_erasure(catalog, dataset, erasure.number, key):
                    answers[answer.node] = answer
        holding = {node: version for version in erasure.versions for node in holders(dataset, version)}
        found += [
            _status(erasure, node, answers.get(node), holding.get(node, ""))
            for node in sorted({*known, *answers, *holding})
        ]
    return found


def _status(erasure: Erasure, node: str, answer: NodeErasure | None, holding: str) -> NodeStatus:
    why = f"its record says that it holds {digest_text(holding)} complete" if holding else ""
    if answer is None:
        return NodeStatus(erasure.number, node, NodeStanding.UNANSWERED, "", why)
    if not answer.is_proved:
        return NodeStatus(erasure.number, node, NodeStanding.LEFT, answer.at, "; ".join(answer.left))
    standing = NodeStanding.CONTRADICTED if holding else NodeStanding.PROVED
    return NodeStatus(erasure.number, node, standing, answer.at, why)


def refs_naming(catalog: Catalog, dataset: str, versions: Iterable[str], unreadable: UnreadableRecords) -> list[str]:
    """The refs that name one of the versions now, sorted."""
    named, heads = {*versions}, ref_heads(catalog, dataset, unreadable)
    return sorted(ref for ref, head in heads.items() if head.entry.digest in named)
