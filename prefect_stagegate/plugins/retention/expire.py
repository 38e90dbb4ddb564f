"""Expiring: versions that nothing keeps leave the catalog, and then this node's cache.

    tombstones of all that go → SETTLING → what keeps them, again → manifest, origins, … → tombstone → views

The first tombstone comes before everything, so the next `expire` finishes what a killed one began. Promotions refuse
versions with one; one that did not see it is done by the time that the refs are read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from prefect_stagegate.cache.gc import collect
from prefect_stagegate.catalog import gate_records, moves
from prefect_stagegate.catalog.refs import REFS, ref_heads
from prefect_stagegate.catalog.version_records import has_version, read_seal, remove_version, version_digests
from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.doors import declared, load
from prefect_stagegate.errors import UnknownRef
from prefect_stagegate.gate.approval_counting import why_request_ended
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.jobs.gating.policy import adopted_spec
from prefect_stagegate.jobs.upkeep.maintain import report_collection
from prefect_stagegate.model import LATEST
from prefect_stagegate.plugins.retention.retention_keys import RetainSpec
from prefect_stagegate.plugins.retention.tombstones import (
    Step,
    Tombstone,
    buried,
    conclude,
    condemn,
    newest_tombstone,
    unfinished,
)
from prefect_stagegate.units import age_text, count_text, format_duration, listed
from prefect_stagegate.unreadable import UnreadableRecords, skipping
from prefect_stagegate.workspace import Workspace

SETTLING = 30.0
"""Seconds from a tombstone to the removal: longer than a promotion takes after it asked whether there is one."""
READERS = 8
"""Versions whose records are read at a time."""


@dataclass(frozen=True, slots=True)
class VersionFate:
    """What becomes of a version, and why."""

    dataset: str
    digest: str
    files: int
    bytes: int
    staged_at: str
    """When `latest` was moved to it last; empty where it never was."""
    kept_by: tuple[str, ...]
    """What keeps it, a line each; empty where it goes."""
    why: str
    """Why it goes."""
    is_gone: bool = False
    """Whether it is removed from the catalog."""


class _Keepers:
    """What keeps the versions of a dataset: read once, when it is made, or for plugins when they are asked first.

    Raises:
        StagegateError: Something that may keep a version can't be read.
    """

    def __init__(self, workspace: Workspace, dataset: str) -> None:
        self._workspace, self._dataset = workspace, dataset
        catalog, cache, spec = workspace.catalog, workspace.cache, adopted_spec(workspace, dataset)
        self.rules: RetainSpec | None = getattr(spec, "retain", None)
        self._heads = ref_heads(catalog, dataset)
        logs = {ref: moves(catalog.ref_log(dataset, ref).entries()) for ref in catalog.folders(REFS, dataset)}
        self.staged = {entry.digest: entry.at for entry in logs.pop(LATEST, [])}
        self._named = {ref: {entry.digest for entry in entries} for ref, entries in logs.items()}
        by_age = sorted(version_digests(catalog, dataset), key=lambda digest: (self.staged.get(digest, ""), digest))
        self._newest = {*by_age[-self.rules.newest :]} if self.rules else set[str]()
        self._leases = [lease for lease in cache.leases.live() if lease.dataset == dataset]
        self._copies = cache.refs.of(dataset)
        targets = {*spec.gates, *logs}
        self._requested = [pair for target in sorted(targets) for pair in self._open_requests(target)]
        self._time = now()
        self._lock, self._plugins = Lock(), list[Callable[[str], str]]()

    def of(self, digest: str) -> tuple[str, ...]:
        """What keeps a version, a line each."""
        # Plugins last, and only where nothing else keeps it: each lists the catalog.
        return (*self._reasons(digest),) or (*self._by_plugins(digest),)

    def is_named(self, digest: str) -> bool:
        """Whether a ref names a version now. Reads the refs again."""
        heads = ref_heads(self._workspace.catalog, self._dataset)
        return any(head.entry.digest == digest for head in heads.values())

    def _reasons(self, digest: str) -> Iterator[str]:
        refs = [ref for ref, head in self._heads.items() if head.entry.digest == digest]
        yield from (f"{ref} names it" for ref in refs)
        behind = (ref for ref, named in self._copies.items() if named == digest and ref not in refs)
        yield from (f"this node's copy of {ref} names it" for ref in behind)
        asked = (target for target, about in self._requested if about == digest)
        yield from (f"a request to promote it to {target} waits" for target in asked)
        if digest not in self.staged:
            yield "latest never named it: it may be being staged"
        yield from (str(lease) for lease in self._leases if lease.keeps(self._dataset, digest))
        if not (rules := self.rules):
            yield "the policy has no `retain`"
            return
        if digest in self._newest:
            yield "it was staged last" if rules.newest == 1 else f"it is one of the {rules.newest} staged last"
        if rules.named and (targets := [ref for ref, named in self._named.items() if digest in named]):
            yield f"{listed(targets)} named it"
        age = self._time - moment(self.staged[digest]) if digest in self.staged else None
        if rules.younger_than and age is not None and age < rules.younger_than:
            yield f"it was staged {age_text(age)} ago, within {format_duration(rules.younger_than)}"

    def _by_plugins(self, digest: str) -> Iterator[str]:
        used = self.rules and self.rules.used
        places = [place for name, place in declared("keeps").items() if name != "used" or used]
        with self._lock:  # several versions are planned at a time
            self._plugins = self._plugins or [load(place)(self._workspace, self._dataset) for place in places]
        yield from filter(None, (why(digest) for why in self._plugins))

    def _open_requests(self, target: str) -> Iterator[tuple[str, str]]:
        catalog, dataset, head = self._workspace.catalog, self._dataset, self._heads.get(target)
        since = moment(head.move.at) - CLOCKS_DIFFER if head else None
        for record in gate_records.recorded_requests(catalog, dataset, target, since):
            request = gate_records.read_request(catalog, dataset, target, record.id)
            named, number = (head.entry.digest, head.entry.seq) if head else ("", 0)
            if not why_request_ended(request, policy=request.policy, named=named, moves=number):
                yield target, request.digest


def _planned(workspace: Workspace, dataset: str, unreadable: UnreadableRecords) -> list[VersionFate]:
    """What keeps each version or why it goes, in the order of their staging. Damaged ones stay."""
    keepers = _Keepers(workspace, dataset)

    def fate_of(digest: str) -> VersionFate | None:
        with suppress(UnknownRef), unreadable.skip(dataset):  # another call may have removed it just now
            sums, kept_by = read_seal(workspace.catalog, dataset, digest), keepers.of(digest)
            why = "" if kept_by or not keepers.rules else _why(keepers.rules)
            staged_at = keepers.staged.get(digest, "")
            return VersionFate(dataset, digest, sums.files, sums.bytes, staged_at, kept_by, why)
        return None

    with ThreadPoolExecutor(READERS, "stagegate-expire") as pool:
        fates = [fate for fate in pool.map(fate_of, version_digests(workspace.catalog, dataset)) if fate]
    return sorted(fates, key=lambda fate: (fate.staged_at, fate.digest))


def _why(rules: RetainSpec) -> str:
    """Why a version goes that nothing keeps."""
    whole = count_text(rules.newest, "version")
    reasons = [f"not among the {whole} staged last" if rules.newest > 1 else "not the one staged last"]
    reasons += ["named by no target"] if rules.named else ["named by no target now"]
    reasons += ["used by no recorded run"] if rules.used else []
    reasons += [f"older than {format_duration(rules.younger_than)}"] if rules.younger_than else []
    return listed(reasons)


def expire(
    workspace: Workspace,
    datasets: Iterable[str],
    unreadable: UnreadableRecords,
    *,
    dry_run: bool = False,
    settling: float = SETTLING,
) -> list[VersionFate]:
    """Remove the versions that nothing keeps from the catalog, and then from this node's cache.

    Also goes on with what an earlier call began. Records of a version's judgments and uses, specs and all logs stay.

    Args:
        workspace: Cache and catalog. Only this node's leases, pins and copies of refs keep a version.
        datasets: Their names.
        unreadable: Collects what can't be read or written. Then the versions that it may be about stay.
        dry_run: Say what would go, and change nothing.
        settling: Seconds from a version's tombstone to its removal.

    Raises:
        CacheError: The cache can't be changed, after the catalog was.
    """
    names, fates = list(datasets), list[VersionFate]()
    condemned: dict[str, list[Tombstone]] = {}
    for dataset in names:
        with skipping(unreadable, dataset):
            fates += (planned := _planned(workspace, dataset, unreadable))
            if not dry_run:
                condemned[dataset] = _condemned(workspace, planned, list(unfinished(workspace.catalog, dataset)))
    if dry_run:
        return fates
    # Clocks may differ, so the time of an older tombstone is bounded, too.
    ages = [(now() - moment(stone.at)).total_seconds() for stones in condemned.values() for stone in stones]
    time.sleep(max(min(settling, settling - age) for age in [*ages, settling]))
    ended: dict[tuple[str, str], VersionFate] = {}
    for dataset, stones in condemned.items():
        with skipping(unreadable, dataset):
            if stones:
                ended |= _finished(workspace, dataset, stones, unreadable)
    _clear_cache(workspace, names, unreadable)
    # Those of which a killed call left no manifest are in no plan.
    return [*(ended.pop((fate.dataset, fate.digest), fate) for fate in fates), *ended.values()]


def _condemned(workspace: Workspace, planned: list[VersionFate], begun: list[Tombstone]) -> list[Tombstone]:
    """Put up tombstones for the versions that go. Returns these and the ones of an earlier call."""
    known, who, node = {stone.digest for stone in begun}, workspace.identity, workspace.settings.node
    stones = list(begun)
    for fate in planned:
        if not fate.kept_by and fate.digest not in known:
            facts = (fate.why, fate.files, fate.bytes, fate.staged_at, who, node, stamp(now()), 0)
            stone = condemn(workspace, fate.dataset, Tombstone(fate.digest, Step.BEGUN, *facts))
            stones += [stone] if stone else []
    return stones


def _finished(
    workspace: Workspace, dataset: str, stones: list[Tombstone], unreadable: UnreadableRecords
) -> dict[tuple[str, str], VersionFate]:
    """Remove what still nothing keeps, and say what became of each version."""
    keepers, ended = _Keepers(workspace, dataset), dict[tuple[str, str], VersionFate]()
    for stone in stones:
        with unreadable.skip(dataset):
            kept_by = _finish(workspace, dataset, stone, keepers)
            facts = (stone.digest, stone.files, stone.bytes, stone.staged_at)
            why = "" if kept_by else stone.why
            ended[dataset, stone.digest] = VersionFate(dataset, *facts, kept_by, why, is_gone=not kept_by)
    return ended


def _finish(workspace: Workspace, dataset: str, stone: Tombstone, keepers: _Keepers) -> tuple[str, ...]:
    """Remove a version from the catalog, unless something keeps it by now. Returns what does."""
    catalog, digest = workspace.catalog, stone.digest
    newest, is_whole = newest_tombstone(catalog, dataset, digest), has_version(catalog, dataset, digest)
    if newest is None or newest.step is not Step.BEGUN:
        return ("another `stagegate expire` decided about it",) if is_whole else ()
    # Nothing keeps what a killed call left of it.
    reasons = keepers.of(digest) if is_whole else ()
    if reasons or not remove_version(catalog, dataset, digest, lambda: is_whole and keepers.is_named(digest)):
        reasons = reasons or ("a ref names it since",)
        conclude(workspace, dataset, stone, Step.STAYS, reasons[0])
        return reasons
    conclude(workspace, dataset, stone, Step.REMOVED, stone.why)
    return ()


def _clear_cache(workspace: Workspace, datasets: Iterable[str], unreadable: UnreadableRecords) -> None:
    """Remove this node's views of versions that expired. What a ref's copy, a lease or a pin needs stays."""
    catalog, views, gone = workspace.catalog, workspace.cache.views, set[tuple[str, str]]()
    for dataset in datasets:
        with unreadable.skip(dataset):
            if held := {*views.of(dataset)}:
                ended = held & buried(catalog, dataset)
                gone |= {(dataset, digest) for digest in ended if not has_version(catalog, dataset, digest)}
    if gone:
        collect(workspace.cache.layout, may_go=lambda dataset, digest: (dataset, digest) in gone)
        report_collection(lambda: workspace)
