"""Making room: which versions go when a writer needs space, and what is said when that is not enough."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, partial
from itertools import islice

from prefect_stagegate.cache.gc import Collection as Collected
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.cache.space import Available, Space, SpaceRules, room
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.errors import CacheError, NoSpace
from prefect_stagegate.model import Action, Entry, PlannedObject
from prefect_stagegate.operations.staging.origins import can_be_fetched
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.transfer.job import Job, SourceGroup
from prefect_stagegate.units import bytes_text

PATIENCE = 0.5
"""Seconds that a transfer waits for the end of its plan, so that what can't fit is told before the first byte."""
BATCH = 512
"""Objects whose space is claimed at once after that."""
HOLDERS = 5
"""How many of those who hold what may not go are named."""


def space_for(workspace: Workspace, writer: Lease, *, mends: bool = False) -> Space:
    """The space that a writer may fill. Versions that nothing needs go when there is too little of it.

    The least recently used go first; never one whose origin can't be read any more, since it could not come back.
    `stagegate gc` takes those too.

    Args:
        workspace: The cache.
        writer: Whose space it is.
        mends: What is written takes the place of what rotted, so what is kept free otherwise may be used.
    """
    rules = SpaceRules(workspace.settings.free_floor, workspace.settings.max_size, mends)
    return Space(workspace.cache.layout, rules, writer, partial(_make_room, workspace, writer.id))


def claimed(
    workspace: Workspace, space: Space, planned: Iterator[PlannedObject], groups: Sequence[SourceGroup], kept: Draft
) -> Iterator[PlannedObject]:
    """Pass a plan on when the space for what is fetched is claimed: all of it at once, unless the plan takes long.

    Args:
        workspace: The cache.
        space: What the writer may fill.
        planned: What it is going to do.
        groups: The sources, by the position that planned objects name.
        kept: Holds what is reused, when room must be made: a version that has it would free too little, and what is
            reused would be fetched again. Nobody else may use this draft.

    Raises:
        NoSpace: It can't be had.
    """
    missing = partial(_missing, workspace, groups)
    until = time.monotonic() + PATIENCE
    ahead: deque[PlannedObject] = deque()
    for one in planned:
        ahead.append(one)
        if time.monotonic() > until:
            break
    _claim(space, ahead, missing, kept)
    while ahead:
        yield ahead.popleft()
    while batch := list(islice(planned, BATCH)):
        _claim(space, batch, missing, kept)
        yield from batch


def _claim(
    space: Space, planned: Collection[PlannedObject], missing: Callable[[PlannedObject], int], kept: Draft
) -> None:
    def hold_reused() -> None:
        for one in planned:
            if one.action is Action.REUSE:
                kept.hold(Entry(one.path, one.object.size, one.digest))

    space.claim(sum(missing(one) for one in planned if one.action is Action.FETCH), hold_reused)


def _missing(workspace: Workspace, groups: Sequence[SourceGroup], one: PlannedObject) -> int:
    """Bytes that an object is yet to take: what an interrupted run left of a large one is on the volume already."""
    size = room(one.object.size)
    if one.object.size <= workspace.settings.part_size:
        return size
    job = Job(one, groups[one.source].members(), listed=one.object)
    return max(0, size - workspace.cache.blobs.begun(*job.claim_words()))


def _make_room(workspace: Workspace, own: str, size: int, missing: int, found: Available) -> None:
    """Collect `missing` bytes of the `size` that are needed, or refuse without having taken anything."""
    may_go = cache(partial(can_be_fetched, workspace))
    needs = f"{bytes_text(size)} are needed, {bytes_text(missing)} too few: {found}"
    try:
        could = collect(workspace.cache.layout, dry_run=True, own=own, may_go=may_go)
        if could.bytes >= missing:
            collect(workspace.cache.layout, enough=missing, own=own, may_go=may_go)
            return
        rest = collect(workspace.cache.layout, dry_run=True, own=own)
    except CacheError as error:
        raise NoSpace(f"{needs}; nothing can be collected: {error.message}", hint=error.hint) from error
    raise NoSpace(needs + _told(could, rest), hint=_advice(could, rest))


def _told(could: Collected, rest: Collected) -> str:
    said = f". Collecting could free {bytes_text(could.bytes)}"
    if rest.bytes > could.bytes:
        said += f", and {bytes_text(rest.bytes - could.bytes)} more that could not be fetched again"
    held = "; ".join(could.kept[:HOLDERS])
    if len(could.kept) > HOLDERS:
        held += f"; and {len(could.kept) - HOLDERS} more, which `stagegate ls --held` names"
    return said + (f". In use: {held}" if held else "")


def _advice(could: Collected, rest: Collected) -> str:
    choose = "choose a larger volume with --cache or STAGEGATE_CACHE, or unpin what is not needed"
    if rest.bytes > could.bytes:
        return f"`stagegate gc` also takes what its source has no more; else {choose}."
    return f"Free some space, {choose}."
