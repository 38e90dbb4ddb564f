"""The jobs that write into this node's cache now, in any process, and how far each is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.arrivals import Arrival
from prefect_stagegate.cache.job_progress import JobProgress, read_progress
from prefect_stagegate.cache.leases import Lease, LeaseKind, holder_of
from prefect_stagegate.clock import moment, now
from prefect_stagegate.unreadable import UnreadableRecords

QUIET_SECONDS = 10.0
"""A job that recorded nothing for so long hangs, or was stopped."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that writes into this node's cache. Its texts are what other processes wrote: escape them."""

    lease: str
    """The id of its lease."""
    dataset: str
    what: str
    """What it does, for people: `stage`."""
    pid: int
    user: str
    """Who runs it; empty where that is unknown."""
    since: str
    is_stopped: bool
    """Whether its process is stopped, as by SIGSTOP."""
    quiet_seconds: float
    """Seconds since it recorded its progress last; 0 where it recorded none yet."""
    progress: JobProgress | None
    """None in its first second, and where the record can't be read."""

    @property
    def is_quiet(self) -> bool:
        """Whether it has recorded nothing for so long that it may hang."""
        return self.is_stopped or self.quiet_seconds >= QUIET_SECONDS


def running_jobs(cache: Cache, unreadable: UnreadableRecords | None = None) -> list[RunningJob]:
    """The jobs that hold a writer's lease, the oldest first. Asks no catalog and waits for nobody.

    A job that ended, however it ended, is not among them: its lease ended with it.

    Args:
        cache: This node's cache.
        unreadable: Collects the leases that can't be read. With None, the first of them raises.

    Raises:
        CacheError: The leases can't be read.
    """
    return [_job(cache, lease) for lease in cache.leases.live(unreadable) if lease.kind is LeaseKind.WRITER]


def share_arrived(cache: Cache, digest: str) -> float | None:
    """How much of a version that readers open early is here, from 0.0 to 1.0; None where no job fetches it.

    Raises:
        CacheError: The leases can't be read.
    """
    arrival = Arrival(cache.layout, digest)
    if not arrival.is_fetched():
        return None
    holder = arrival.holder()
    jobs = (job.progress for job in running_jobs(cache, UnreadableRecords()) if holder and job.pid == holder.pid)
    progress = next(filter(None, jobs), None)  # none in the job's first second
    return (
        min(1.0, (progress.bytes_moved + progress.bytes_reused) / progress.bytes)
        if progress and progress.bytes
        else 0.0
    )


def why_stopped(cache: Cache, digest: str) -> str:
    """Why nobody fetches a version further that readers opened early; empty where somebody does, or nobody opened it.

    The text is what another process wrote: escape it.
    """
    arrival = Arrival(cache.layout, digest)
    if not arrival.folder.is_dir() or arrival.is_fetched():
        return ""
    if failure := arrival.failure(""):
        return str(failure).removesuffix(".")
    return ": ".join(filter(None, ("the process that fetched it ended without a word", arrival.last_line())))


def _job(cache: Cache, lease: Lease) -> RunningJob:
    holder = holder_of(str(cache.layout.leases / lease.id))
    progress = read_progress(cache.layout, lease.id)
    return RunningJob(
        lease.id,
        lease.dataset,
        lease.what,
        lease.pid,
        holder.user if holder else "",
        lease.since,
        bool(holder and holder.stopped),
        _age(progress.at) if progress else 0.0,
        progress,
    )


def _age(at: str) -> float:
    """Seconds since a time that a job wrote; 0 for a text that is none."""
    try:
        return max(0.0, (now() - moment(at)) / timedelta(seconds=1))
    except (ValueError, OverflowError, TypeError):
        return 0.0
