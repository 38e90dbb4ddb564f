"""The catalog's records of erasures: which entries' bytes have to go, and which nodes proved that they have none.

    retention.erasures/<dataset>/<n>.json                         the entries, by path, size and digest; who, when, why
    datasets/<dataset>/retention.erased/<n>/<node>/<m>.json       what a node found and did; its newest counts

`<node>` is a hash of the node's name. Erasures lie beside the datasets, so that an agent finds all by one listing.
Manifests stay as they are, so digests and logs verify as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.records import corrupt, newest_record
from prefect_stagegate.catalog.version_records import read_manifest, version_digests
from prefect_stagegate.clock import now, stamp, written_moment
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.model import Approval, ApprovalRequest, Entry, Identity
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.patterns import matcher
from prefect_stagegate.plugins.retention.tombstones import require_not_condemned
from prefect_stagegate.show.legible import short_line, time_text
from prefect_stagegate.workspace import Workspace

MOST_ENTRIES = 20_000
"""Entries of one erasure, at most: they are one record."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """Entries whose bytes have to go from every node."""

    number: int
    """From 1, in each dataset; 0 for one that is only asked for."""
    versions: tuple[str, ...]
    """The versions that had them, by digest."""
    entries: tuple[Entry, ...]
    reason: str
    who: Identity
    at: str
    request: ApprovalRequest | None = None
    """The request to those who had to agree; None where nobody had to."""
    approvals: tuple[Approval, ...] = ()
    """Their answers."""

    def __post_init__(self) -> None:
        """Take no record without a readable time, since the policy of that time says whether it counts."""
        written_moment(self.at)

    @property
    def digests(self) -> frozenset[str]:
        """The digests of the blobs."""
        return frozenset(entry.digest for entry in self.entries)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of what is erased and why, by which a request names it."""
        return digest_of({"versions": self.versions, "entries": list(map(asdict, self.entries)), "reason": self.reason})


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


ERASURES = Record("retention.erasures", Erasure, is_shared=True)
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
        manifest = read_manifest(workspace.catalog, dataset, version)
        same = [entry for entry in manifest.entries() if entry.digest in blobs]
        versions += [version] if same else []
        entries |= {(entry.path, entry.digest): entry for entry in same}
        if len(entries) > MOST_ENTRIES:
            raise UsageError(f"More than {MOST_ENTRIES:,} entries can't be erased at once", hint="Erase them in parts.")
    if not entries:
        raise UsageError(f"{dataset} has no such entry", hint=f"`stagegate show {dataset} --all` lists its entries.")
    return tuple(versions), tuple(entries[key] for key in sorted(entries))


def glob_of(patterns: Iterable[str], paths: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path is one of `paths`, or matches one of the patterns as `include:` of a spec reads them."""
    matchers, listed = [matcher(pattern) for pattern in patterns], frozenset(paths)
    return lambda path: path in listed or any(matches(path) for matches in matchers)


def record_erasure(
    workspace: Workspace,
    dataset: str,
    versions: tuple[str, ...],
    entries: tuple[Entry, ...],
    reason: str,
    *,
    request: ApprovalRequest | None = None,
    approvals: tuple[Approval, ...] = (),
) -> Erasure:
    """Record that the bytes of entries have to go. `request` and `approvals` prove that people agreed.

    Raises:
        UsageError: There is no reason.
        CatalogError: The catalog can't be read or written.
    """
    require_reason(reason)
    who = request.requester if request else workspace.identity
    facts = (versions, entries, short_line(reason), who, stamp(now()), request, approvals)
    number = max(workspace.catalog.numbers(ERASURES, dataset), default=0)
    while True:
        number += 1
        if workspace.catalog.create(ERASURES, erasure := Erasure(number, *facts), dataset, number):
            return erasure


def require_reason(reason: str) -> None:
    """Raise `UsageError` where an erasure has no reason."""
    if not reason.strip():
        raise UsageError("An erasure needs a reason", hint="Give one with --reason.")


def erasure_rule(policy: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The parameters of the approval that a policy requires before entries are erased; None when it has no rule."""
    rule: Mapping[str, Any] | None = policy.get("policy", {}).get("erasure", {}).get("approval")
    return rule


def erasures_of(catalog: Catalog, dataset: str) -> list[Erasure]:
    """The erasures of a dataset, the oldest first, without those that lack the answers which the policy asks for.

    Raises:
        CorruptRecord: One is damaged.
    """
    recorded = catalog.all(ERASURES, dataset)
    policies = policy_log(catalog, dataset).entries() if recorded else []
    if all(erasure_rule(entry.policy) is None for entry in policies):
        return recorded
    from prefect_stagegate.plugins.retention.erasure_requests import is_agreed  # late: it loads all checks

    return [erasure for erasure in recorded if is_agreed(erasure, policies, catalog)]


def put_node_erasure(catalog: Catalog, dataset: str, report: NodeErasure) -> None:
    """Add what a node found."""
    catalog.add(NODE_ERASURES, report, dataset, report.number, node_key(report.node))


def node_erasure(catalog: Catalog, dataset: str, number: int, key: str) -> NodeErasure | None:
    """What the node of a key found last; None where it never answered."""
    newest = newest_record(catalog, NODE_ERASURES, dataset, number, key)
    if newest and (newest.number, node_key(newest.node)) != (number, key):
        raise corrupt(NODE_ERASURES.path(dataset, number, key), "is about something else")
    return newest


def node_key(node: str) -> str:
    """The key of a node's answers."""
    return hashlib.sha256(node.encode(errors="surrogateescape")).hexdigest()


def require_lasting(workspace: Workspace, dataset: str, digest: str, ref: str) -> None:
    """Refuse to move a target to a version that is about to expire, or had an entry whose bytes were erased.

    Raises:
        GateFailed: It is, or had one.
    """
    require_not_condemned(workspace, dataset, digest, ref)
    require_whole(workspace, dataset, digest, ref)


def require_whole(workspace: Workspace, dataset: str, digest: str, _ref: str) -> None:
    """Refuse to fetch a version that had an entry whose bytes were erased.

    Raises:
        GateFailed: It had one.
    """
    hint = "Take it out of the source, then stage and promote a version without it."
    problem = f"{dataset}@{digest} is no longer whole"
    _refuse_erased(
        workspace, dataset, lambda: read_manifest(workspace.catalog, dataset, digest).entries(), problem, hint
    )


def require_none_erased(
    workspace: Workspace, dataset: str, digest: str, ref: str, entries: Callable[[], Iterable[Entry]]
) -> None:
    """Refuse to stage entries whose bytes were erased, and remove from this node what was fetched of them.

    Raises:
        GateFailed: There is one.
    """
    hint = (
        "Take it out of the source, or add its key to the source's `exclude:` in the spec, and stage again. "
        "What was fetched of it is removed."
    )
    try:
        _refuse_erased(workspace, dataset, entries, f"{dataset}@{digest} can't become {ref}", hint)
    except GateFailed:
        from prefect_stagegate.plugins.retention.erase_on_node import remove_refused  # late: each staging comes here

        remove_refused(workspace.cache.layout, erasures_of(workspace.catalog, dataset))
        raise


def _refuse_erased(
    workspace: Workspace, dataset: str, entries: Callable[[], Iterable[Entry]], problem: str, hint: str
) -> None:
    by_blob = {blob: erasure for erasure in erasures_of(workspace.catalog, dataset) for blob in erasure.digests}
    for entry in entries() if by_blob else ():
        if erasure := by_blob.get(entry.digest):
            erased = f"{entry.path} was erased on {time_text(erasure.at)}, by {erasure.who}: {erasure.reason}"
            raise GateFailed(f"{problem}: {erased}", hint=hint, dataset=dataset, object=entry.path)
