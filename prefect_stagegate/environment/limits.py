"""The limits of this process: its resource limits, shared memory, and its control group's limits.

    /proc/self/cgroup      0::/system.slice/x       the group of this process (version 2), below
    /sys/fs/cgroup/…/      memory.max  cpu.max      limits of each group; the narrowest of a group and those above holds
    /sys/fs/cgroup/memory  memory.limit_in_bytes    version 1
    /sys/fs/cgroup/cpu     cpu.cfs_quota_us, cpu.cfs_period_us

Of a soft and a hard limit, the soft one counts: it holds now.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from prefect_stagegate.environment.difference import UNKNOWN, EnvironmentDifference, Weight
from prefect_stagegate.units import bytes_text

UNLIMITED = "unlimited"
NO_LIMIT_V1 = 1 << 62
"""Version 1 writes "no limit" as the largest number of pages."""
ULIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nproc": resource.RLIMIT_NPROC,
    "stack": resource.RLIMIT_STACK,
}
"""Open files, bytes of locked memory, processes and bytes of stack: what data loaders and NCCL run into."""
IN_BYTES = ("memlock", "memory", "shm", "stack")
DECLARED = ("nofile", "memlock", "stack", "shm")
"""Limits that block when there is less here, unless the caller declares others."""

Limit = int | float | str
"""A figure, unlimited or unknown."""


def capture_limits(root: Path = Path("/")) -> dict[str, Limit]:
    """The soft limits, by name; bytes, numbers of things, or processors."""
    soft = {name: resource.getrlimit(number)[0] for name, number in ULIMITS.items()}
    limits: dict[str, Limit] = {
        name: UNLIMITED if value == resource.RLIM_INFINITY else value for name, value in soft.items()
    }
    groups = list(_groups(root))
    return limits | {
        "shm": _size(root / "dev/shm"),
        "memory": _narrowest(filter(None, (_memory(group) for group in groups))),
        "cpus": _narrowest(filter(None, (_cpus(group) for group in groups))),
    }


def available_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use: those of its affinity, or of its control group's share of time."""
    cpus = _narrowest(filter(None, (_cpus(group) for group in _groups(root))))
    cores = len(os.sched_getaffinity(0))
    return cores if isinstance(cpus, str) else max(1, min(cores, round(cpus)))


def _size(folder: Path) -> Limit:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return UNKNOWN
    return stat.f_blocks * stat.f_frsize


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, of either version, and of the groups above them."""
    top = root / "sys/fs/cgroup"
    # The top also counts: in a container, the mount may begin at its own group, whose limits then stand there.
    yield from (top, top / "memory", top / "cpu", top / "cpu,cpuacct")
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        group = (top / controllers / path.lstrip("/")) if controllers else (top / path.lstrip("/"))
        while group != top and top in group.parents:
            yield group
            group = group.parent


def _memory(group: Path) -> Limit | None:
    text = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
    if not text.isdigit():
        return UNLIMITED if text == "max" else None
    return UNLIMITED if int(text) >= NO_LIMIT_V1 else int(text)


def _cpus(group: Path) -> Limit | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    quota, period = quota or _read(group / "cpu.cfs_quota_us"), period or _read(group / "cpu.cfs_period_us")
    if quota in ("max", "-1"):
        return UNLIMITED
    return round(int(quota) / int(period), 2) if quota.isdigit() and period.isdigit() and int(period) else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _narrowest(limits: Iterator[Limit]) -> Limit:
    # Groups without a number have no limit; without any group the limit is unknown.
    known = list(limits)
    return min((limit for limit in known if not isinstance(limit, str)), default=UNLIMITED if known else UNKNOWN)


def compare_limits(
    there: Mapping[str, Limit], here: Mapping[str, Limit], declared: Collection[str] = DECLARED
) -> Iterator[EnvironmentDifference]:
    """Yield the limits that differ: more is harmless, less blocks where it is declared and else warns."""
    for name in sorted(there.keys() | here.keys()):
        was, now = there.get(name, UNKNOWN), here.get(name, UNKNOWN)
        if was != now or was == UNKNOWN:
            weight, why = _weigh(was, now, declared=name in declared)
            fix = "" if weight in (Weight.HARMLESS, Weight.UNKNOWN) else f"Raise {name} here to {_text(name, was)}."
            yield EnvironmentDifference("limits", name, _text(name, was), _text(name, now), weight, why, fix)


def _weigh(was: Limit, now: Limit, *, declared: bool) -> tuple[Weight, str]:
    if UNKNOWN in (was, now):
        return Weight.UNKNOWN, "the system does not report it"
    if now == UNLIMITED or not (isinstance(was, str) or isinstance(now, str) or now < was):
        return Weight.HARMLESS, "there is at least as much here"
    if declared:
        return Weight.BLOCKING, "declared to be the same, but there is less here"
    return Weight.WARNING, "there is less here, and it is not declared to be the same"


def _text(name: str, limit: Limit) -> str:
    return bytes_text(limit) if name in IN_BYTES and isinstance(limit, int) else str(limit)
