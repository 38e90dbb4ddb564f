"""Making room for a writer: which versions go, and what the error says when that is not enough."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import cache, partial
from itertools import islice

from prefect_stagegate.cache.gc import Collection as Collected
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.cache.space import LARGER, Available, Space, SpaceRules, room
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.catalog.version_records import has_version
from prefect_stagegate.doors import why_gone
from prefect_stagegate.errors import CacheError, NoSpace
from prefect_stagegate.jobs.staging.origins import can_be_fetched
from prefect_stagegate.model import Action, Entry, PlannedObject
from prefect_stagegate.transport.transfer.job import FetchJob, SourceGroup
from prefect_stagegate.transport.transfer_limits import Limits
from prefect_stagegate.units import bytes_text
from prefect_stagegate.workspace import Workspace

PATIENCE = 0.5
"""Seconds that a transfer waits for the end of its plan, so that too little space shows before the first byte."""
BATCH = 512
"""Objects whose space is claimed at once after that."""
HOLDERS = 5
"""How many holders of versions an error names at most."""


def space_for(workspace: Workspace, writer: Lease, *, is_repair: bool = False) -> Space:
    """The space that a writer may fill. When it is too little, versions that nothing needs are collected.

    The least recently used go first. One that can't be fetched again stays, unless the catalog let it expire: only
    `stagegate gc` takes it.

    A writer that replaces rotten files (`is_repair`) may also use the bytes that are kept free otherwise.
    """
    settings = workspace.settings
    rules = SpaceRules(settings.free_floor, settings.max_size, is_repair)
    return Space(workspace.cache.layout, rules, writer, partial(_make_room, workspace, writer.id))


def claim_space(
    workspace: Workspace, space: Space, planned: Iterator[PlannedObject], groups: Sequence[SourceGroup], kept: Draft
) -> Iterator[PlannedObject]:
    """Pass a plan on once space is claimed for what it fetches.

    All of it at once, unless the plan takes long or the volume has far more room than its first `BATCH` objects need.

    `kept` holds the reused blobs when room must be made; nobody else may use it.

    Raises:
        NoSpace: There is too little space, and not enough can be freed.
    """
    missing = partial(_missing, workspace, groups, workspace.settings.of(Limits).part)

    def needed(part: Collection[PlannedObject]) -> int:
        return sum(missing(entry) for entry in part if entry.action is Action.FETCH)

    def hold_reused(part: Collection[PlannedObject]) -> None:
        # Before versions are evicted: a blob that goes with its last version would have to be fetched again.
        for reused in (entry for entry in part if entry.action is Action.REUSE):
            kept.hold(Entry(reused.path, reused.object.size, reused.digest))

    deadline = time.monotonic() + PATIENCE
    ahead: deque[PlannedObject] = deque()
    for planned_object in planned:
        ahead.append(planned_object)
        # A listing may take long: claim what is planned by now, and let the copying begin.
        if time.monotonic() > deadline or (len(ahead) == BATCH and space.is_ample(needed(ahead))):
            break
    space.claim(needed(ahead), partial(hold_reused, ahead))
    # Taken out one by one, so that a long plan does not stay in memory during the transfer.
    while ahead:
        yield ahead.popleft()
    while batch := list(islice(planned, BATCH)):
        space.claim(needed(batch), partial(hold_reused, batch))
        yield from batch


def _missing(workspace: Workspace, groups: Sequence[SourceGroup], part: int, planned: PlannedObject) -> int:
    """Bytes of the volume that an object is yet to take."""
    size = room(planned.object.size)
    # Only large objects are resumed, so nothing of a small one is on the volume yet.
    if planned.object.size <= part:
        return size
    # Of a large object, an interrupted run may have left some bytes on the volume.
    job = FetchJob(planned, groups[planned.source].members(), listed=planned.object)
    return max(0, size - workspace.cache.blobs.partial_bytes(*job.claim_words()))


def _make_room(workspace: Workspace, writer_id: str, size: int, missing: int, available: Available) -> None:
    """Collect `missing` bytes of the `size` that are needed, or raise `NoSpace` and collect nothing."""
    # Remembered, because the dry run and the collection both ask: each answer lists sources.
    may_go = cache(partial(_may_go, workspace))
    layout = workspace.cache.layout
    needs = f"No space left: needs {bytes_text(size)}, {bytes_text(missing)} more than there is: {available}"
    try:
        # A dry run comes first: when the space is too little anyway, no version is lost for nothing.
        evictable = collect(layout, dry_run=True, writer_id=writer_id, may_go=may_go)
        if evictable.bytes >= missing:
            collect(layout, enough=missing, writer_id=writer_id, may_go=may_go)
            return
        # Without the condition, so that the message can say what `stagegate gc` would free.
        collectable = collect(layout, dry_run=True, writer_id=writer_id)
    except CacheError as error:
        raise NoSpace(f"{needs}; garbage can't be collected: {error.message}", hint=error.hint) from error
    raise NoSpace(needs + _outlook(evictable, collectable), hint=_advice(evictable, collectable))


def _may_go(workspace: Workspace, dataset: str, digest: str) -> bool:
    """Whether a version that nothing needs here can be fetched again, or expired in the catalog."""
    catalog = workspace.catalog
    is_gone = not has_version(catalog, dataset, digest) and why_gone(catalog, dataset, digest)
    return bool(is_gone) or can_be_fetched(workspace, dataset, digest)


def _outlook(evictable: Collected, collectable: Collected) -> str:
    """How much a collection could free, and who holds the rest."""
    text = f". Collecting could free {bytes_text(evictable.bytes)}"
    if collectable.bytes > evictable.bytes:
        text += f", and {bytes_text(collectable.bytes - evictable.bytes)} more that could not be fetched again"
    holders = "; ".join(evictable.kept[:HOLDERS])
    if len(evictable.kept) > HOLDERS:
        holders += f"; and {len(evictable.kept) - HOLDERS} more, which `stagegate ls --held` names"
    return text + (f". In use: {holders}" if holders else "")


def _advice(evictable: Collected, collectable: Collected) -> str:
    choose = f"unpin what is not needed, {LARGER}"
    if collectable.bytes > evictable.bytes:
        return f"`stagegate gc` also removes what its source no longer has; else {choose}."
    return f"Free some space, {choose}."
