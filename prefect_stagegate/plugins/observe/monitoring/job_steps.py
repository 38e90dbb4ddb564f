"""Counting on this node what the steps of jobs did.

Jobs are short processes that nobody scrapes. So the counters lie in the cache's `index.sqlite`, and add up over jobs.
"""

from __future__ import annotations

import sys
from bisect import bisect_left

from prefect_stagegate.cache.memory import Count
from prefect_stagegate.doors import Job, Observer
from prefect_stagegate.errors import kind_of
from prefect_stagegate.plugins.observe.monitoring.families import (
    BUCKET,
    BUCKETS,
    BYTES,
    CHECKS,
    DECISIONS,
    ERRORS,
    FAILED_OBJECTS,
    LONGEST,
    OBJECTS,
    RETRIES,
    STEP_SECONDS,
    STEPS,
    SUM,
    THREAD_SECONDS,
    Family,
)
from prefect_stagegate.sources.adapter import server_of
from prefect_stagegate.transport.transfer import TransferStats


class StepCounters(Observer):
    """Adds to the counters of this node when a step ends."""

    def __init__(self) -> None:
        self._counts: list[Count] = []

    def ended(self, job: Job) -> None:
        """Count the step, its time, its error, and what it did."""
        # A stream that nobody ended is closed at last, when another thread may have stopped for ever in the database.
        if sys.is_finalizing():
            return
        # Once, where it arose: the steps around this one see the same error.
        if job.outcome == "error" and vars(job.error).setdefault("_counted_in", id(job)) == id(job):
            self._add(ERRORS, job.name, kind_of(job.error))
        self._add(STEPS, job.name, job.dataset, job.outcome)
        if job.name == "check" and job.subject and job.outcome == "ok":
            self._add(DECISIONS, job.dataset, job.target, str(job.facts["outcome"]))
        elif job.name == "evidence" and job.outcome == "ok":
            self._add(CHECKS, str(job.facts["check"]), str(job.facts["outcome"]))
        elif isinstance(job.result, TransferStats):
            self._add_transfer(job.result)
        self._counts.append((STEP_SECONDS.name + BUCKET, (job.name, str(bisect_left(BUCKETS, job.seconds))), 1.0))
        self._counts.append((STEP_SECONDS.name + SUM, (job.name,), job.seconds))
        job.workspace.cache.memory.count(self._counts)

    def _add(self, family: Family, *labels: str, amount: float = 1.0) -> None:
        self._counts.append((family.name, labels, amount))

    def _add_transfer(self, stats: TransferStats) -> None:
        """Count the bytes of a transfer by where they came from."""
        rows: list[tuple[str, str, int]] = [("cache", "", stats.reused), ("resumed", "", stats.resumed)]
        # A copy: a thread that was left behind may add still. By server, since every folder of it would be a series.
        places = dict(stats.places)
        rows += [(tier, server_of(name), size) for (tier, name), (_, size) in places.items() if tier != "cache"]
        for tier, source, size in rows:
            if size:
                self._add(BYTES, tier, source[:LONGEST], amount=size)
        self._add(OBJECTS, amount=stats.objects)
        self._add(RETRIES, amount=stats.retries)
        for side, seconds in stats.seconds.items():
            self._add(THREAD_SECONDS, side, amount=seconds)
        for failure in stats.failures:
            self._add(FAILED_OBJECTS, kind_of(failure))
