"""The cache.

Checks on this node's cache: the room on its volume, and the bytes that it holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from prefect_stagegate.cache.blob_verification import Pace, file_problem
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import SpaceRules, used_bytes
from prefect_stagegate.gate.base import Ceilings, CheckResult, Floors, NoParameters, one_finding
from prefect_stagegate.gate.check_context import Binding, CheckContext, Fact, FreshFact
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.jobs.read import keep_dataset
from prefect_stagegate.model import Address, Finding, Outcome, Scope
from prefect_stagegate.units import bytes_text, count_text
from prefect_stagegate.workspace import Workspace

HOLDS = timedelta(minutes=5)
"""A volume that others write to too can fill up in minutes."""
MANY = 100
"""How many times a version may fit before its number says nothing any more."""
INTEGRITY_HOLDS = timedelta(days=1)
SHOWN = 50
"""Damaged files that are named; the rest is only counted."""
MORE_ROOM = (
    "Run `stagegate gc`, or give the cache a larger volume with --cache or STAGEGATE_CACHE, or a larger limit with "
    "STAGEGATE_MAX_SIZE."
)


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume that holds this node's cache. All figures in bytes."""

    path: Path
    total: int
    free: int
    """What this user can still write."""
    floor: int
    """What the cache leaves free for others."""
    held: int
    """Bytes of this version that are already in the cache."""
    inodes: int = 0
    """How many files it can hold; 0 where the file system makes inodes as needed, as Btrfs does."""
    free_inodes: int = 0
    """How many more files this user can create."""
    quota_left: int | None = None
    """Bytes that the cache's own limit leaves once what nobody needs is collected; None without a limit."""

    @property
    def room(self) -> int:
        """Bytes of this version that the cache has or can take."""
        left = self.free - self.floor
        if self.quota_left is not None:
            left = min(left, self.quota_left)
        return max(left, 0) + self.held


@dataclass(frozen=True, slots=True)
class Integrity:
    """The result of hashing a version's files on this node again."""

    files: int
    bytes: int
    damaged: tuple[Finding, ...] = ()
    """The files whose bytes differ from the manifest."""


@FreshFact
def cache_volume(context: CheckContext) -> Volume:
    """The volume of this node's cache."""
    workspace = context.workspace
    root = workspace.cache.root
    stat = os.statvfs(root)
    total = stat.f_blocks * stat.f_frsize
    is_here = workspace.cache.views.path(context.dataset, context.digest) is not None
    blobs = workspace.cache.blobs
    held = context.bytes if is_here else sum(e.size for e in context.entries() if blobs.holds(e.digest, e.size))
    # `f_bavail` and not `f_bfree`: the rest is kept for root.
    free, floor = stat.f_bavail * stat.f_frsize, SpaceRules(workspace.settings.free_floor).kept_free(total)
    quota_left = _quota_left(workspace, held, context.bytes)
    return Volume(root, total, free, floor, held, stat.f_files, stat.f_favail, quota_left)


def _quota_left(workspace: Workspace, held: int, size: int) -> int | None:
    """Bytes that the cache's own limit leaves for a version of `size` bytes, `held` of them here, or None."""
    limit = workspace.settings.max_size
    if limit is None:
        return None
    left = limit - used_bytes(workspace.cache.layout)
    # A collection is foreseen only where it may matter, since it looks at every file.
    if left + held < 2 * size:
        # What is held may be part of what a collection would free, and counts once.
        left += max(0, collect(workspace.cache.layout, dry_run=True).bytes - held)
    return min(left, limit - held)


@Fact
def copy_integrity(context: CheckContext) -> Integrity:
    """Hash the version's files on this node. Unlike `stagegate verify` it quarantines nothing: a check only reads.

    Raises:
        StagegateError: This node has no copy.
    """
    pace = Pace(context.workspace.settings.verify_rate, context.cancel)
    with keep_dataset(context.workspace.cache, Address(context.dataset, context.digest), "check") as held:
        problems = ((entry.path, file_problem(held.path / entry.path, entry, pace)) for entry in context.entries())
        damaged = tuple(Finding(path, problem) for path, problem in problems if problem)
    return Integrity(context.files, pace.bytes, damaged)


@Fact
def rotten_blobs(context: CheckContext) -> tuple[str, ...]:
    """Names of the version's blobs in this node's quarantine."""
    quarantined = Quarantine(context.workspace.cache.layout).all()
    if not quarantined:
        return ()  # seldom is anything in there, and reading the manifest takes long
    digests = {entry.digest for entry in context.entries()}
    return tuple(sorted(file.name for file in quarantined if file.digest in digests))


ROTTEN = Binding("rotten", lambda context: ", ".join(rotten_blobs(context)) or "none")
"""Each quarantined blob gets a name of its own, so every new find ends the evidence."""


class CacheFit(Floors):
    """A fifth more than the data itself leaves room for the next delivery."""

    warn: float = Field(default=1.2, gt=0, description="The ratio below which it warns.", examples=[1.5])
    fail: float = Field(default=1.0, gt=0, description="The ratio below which it fails.", examples=[1.0])


@Check("cache_fit", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def cache_fit(context: CheckContext, parameters: CacheFit) -> CheckResult:
    """Whether the version fits into the cache: (free above the floor + bytes already held) ÷ bytes of the version.

    A limit of the cache counts, as after a collection. At least `warn` (1.2) passes, at least `fail` (1.0) warns, less
    fails.
    """
    if context.bytes < 1:
        return CheckResult(Outcome.INCONCLUSIVE, "the version has 0 bytes")
    volume = cache_volume(context)
    room = volume.room
    ratio = room / context.bytes
    measured = _measured(volume) | {"bytes": context.bytes, "ratio": round(ratio, 4)}
    times = f"{ratio:.1f}" if ratio < MANY else f"more than {MANY}"
    summary = f"room for {times} times the version: {bytes_text(room)} for {bytes_text(context.bytes)}"
    if ratio >= parameters.warn:
        return CheckResult(Outcome.PASS, summary, measured=measured)
    outcome = Outcome.WARN if ratio >= parameters.fail else Outcome.FAIL
    wanted = (parameters.warn if outcome is Outcome.WARN else parameters.fail) * context.bytes
    problem = f"it has room for {bytes_text(room)} of this version; {bytes_text(wanted)} are required"
    return one_finding(outcome, str(volume.path), problem, MORE_ROOM, measured, summary=summary)


class UsedShare(Ceilings):
    """Many file systems slow down above 80 to 85 %."""

    warn: float = Field(default=0.80, gt=0, le=1, description="The used share above which it warns.", examples=[0.8])
    fail: float = Field(default=0.85, gt=0, le=1, description="The used share above which it fails.", examples=[0.9])


@Check("space", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def space(context: CheckContext, parameters: UsedShare) -> CheckResult:
    """How full the cache's volume is: up to `warn` (0.80) used passes, up to `fail` (0.85) warns, more fails."""
    volume = cache_volume(context)
    if volume.total < 1:
        return CheckResult(Outcome.INCONCLUSIVE, f"{volume.path} reports no size")
    used = 1 - volume.free / volume.total
    return _evaluate_use(volume, parameters, used, f"{used:.0%} of {bytes_text(volume.total)} used", _measured(volume))


@Check("inodes", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def inodes(context: CheckContext, parameters: UsedShare) -> CheckResult:
    """How many of the files that the cache's volume can hold are there: up to `warn` (0.80) of them passes, up to
    `fail` (0.85) warns, more fails.

    A volume without inodes takes no further file, however much space is free. Not applicable where the file system
    makes inodes as needed (Btrfs, ZFS).
    """  # noqa: D205 - the first sentence is long
    volume = cache_volume(context)
    if volume.inodes < 1:
        return CheckResult(Outcome.NOT_APPLICABLE, f"the file system of {volume.path} has no fixed number of inodes")
    used = 1 - volume.free_inodes / volume.inodes
    measured = {"inodes": volume.inodes, "free_inodes": volume.free_inodes}
    return _evaluate_use(volume, parameters, used, f"{used:.0%} of {volume.inodes:,} inodes used", measured)


def _evaluate_use(
    volume: Volume, limits: UsedShare, used: float, summary: str, measured: Mapping[str, int]
) -> CheckResult:
    figures = {**measured, "used_share": round(used, 4)}
    if used <= limits.warn:
        return CheckResult(Outcome.PASS, summary, measured=figures)
    outcome = Outcome.WARN if used <= limits.fail else Outcome.FAIL
    limit = limits.warn if outcome is Outcome.WARN else limits.fail
    problem = f"{used:.1%} is used; the limit is {limit:.0%}"
    return one_finding(outcome, str(volume.path), problem, MORE_ROOM, figures, summary=summary)


@Check("cache_integrity", owner="infra", scope=Scope.NODE, ttl=INTEGRITY_HOLDS, binds=(ROTTEN,), waivable=False)
def cache_integrity(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether every file of the version on this node still has the bytes that its manifest names, by hashing them all.

    One less fails; a version that isn't on this node is inconclusive. It holds a day, or until `stagegate verify` finds
    one of its files rotten.
    """
    integrity = copy_integrity(context)
    measured = {"files": integrity.files, "bytes": integrity.bytes, "damaged": len(integrity.damaged)}
    if integrity.files < 1 or integrity.bytes < 1:
        return CheckResult(Outcome.INCONCLUSIVE, "no bytes were read", measured=measured)
    if integrity.damaged:
        repair = f"stagegate verify {context.address} --repair"
        damaged = tuple(replace(finding, fix=repair) for finding in integrity.damaged[:SHOWN])
        summary = f"{len(integrity.damaged):,} of {count_text(integrity.files, 'file')} differ from the manifest"
        return CheckResult(Outcome.FAIL, summary, damaged, measured)
    summary = f"{count_text(integrity.files, 'file')}, {bytes_text(integrity.bytes)}: as the manifest says"
    return CheckResult(Outcome.PASS, summary, measured=measured)


def _measured(volume: Volume) -> dict[str, int]:
    measured = {"total": volume.total, "free": volume.free, "floor": volume.floor, "held": volume.held}
    return measured if volume.quota_left is None else measured | {"quota_left": volume.quota_left}
