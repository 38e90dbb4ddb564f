"""The cache.

Checks on this node's cache: the room on its volume, and the bytes that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from pydantic import Field

from prefect_stagegate.gate.base import Ceilings, CheckResult, Floors, NoParameters, Renewal, one_finding
from prefect_stagegate.gate.context import CheckContext, Volume
from prefect_stagegate.gate.registry import check
from prefect_stagegate.model import Outcome, Scope
from prefect_stagegate.units import bytes_text, count_text

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


class CacheFit(Floors):
    """A fifth more than the data itself leaves room for the next delivery."""

    warn: float = Field(default=1.2, gt=0, description="The ratio below which it warns.", examples=[1.5])
    fail: float = Field(default=1.0, gt=0, description="The ratio below which it fails.", examples=[1.0])


@check("cache_fit", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def cache_fit(context: CheckContext, parameters: CacheFit) -> CheckResult:
    """Whether the version fits into the cache: (free above the floor + bytes already held) ÷ bytes of the version.

    Under a limit, free is at most what that leaves once a collection took what nobody needs.

    At least `warn` (1.2) passes, at least `fail` (1.0) warns, less fails.
    """
    if context.bytes < 1:
        return CheckResult(Outcome.INCONCLUSIVE, "the version has 0 bytes")
    volume = context.volume()
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


@check("space", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def space(context: CheckContext, parameters: UsedShare) -> CheckResult:
    """How full the cache's volume is: up to `warn` (0.80) used passes, up to `fail` (0.85) warns, more fails."""
    volume = context.volume()
    if volume.total < 1:
        return CheckResult(Outcome.INCONCLUSIVE, f"{volume.path} reports no size")
    used = 1 - volume.free / volume.total
    return _evaluate_use(volume, parameters, used, f"{used:.0%} of {bytes_text(volume.total)} used", _measured(volume))


@check("inodes", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def inodes(context: CheckContext, parameters: UsedShare) -> CheckResult:
    """How many of the files that the cache's volume can hold are there: up to `warn` (0.80) of them passes, up to
    `fail` (0.85) warns, more fails.

    A volume without inodes takes no further file, however much space is free. Not applicable where the file system
    makes inodes as needed (Btrfs, ZFS).
    """  # noqa: D205 - the first sentence is long
    volume = context.volume()
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


@check("cache_integrity", owner="infra", scope=Scope.NODE, ttl=INTEGRITY_HOLDS, binds=("rotten",), waivable=False)
def cache_integrity(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether every file of the version on this node still has the bytes that its manifest names, by hashing them all.

    All of them pass, one less fails; a version that isn't on this node is inconclusive. It reads the whole version, and
    holds a day, as long as the checks that a GPU's own diagnosis repeats daily, or until `stagegate verify` finds one
    of the version's files rotten.
    """
    integrity = context.integrity()
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
