"""`stagegate progress`: the jobs that write into this node's cache, of any process. Asks no catalog."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.live import Live
from rich.text import Text

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import OUTPUT, end_unreadable, escaped, print_json, say_line, unreadable_lines
from prefect_stagegate.cli.progress import LINE_SECONDS, progress_text, transfer_rows
from prefect_stagegate.jobs.running_jobs import RunningJob, running_jobs
from prefect_stagegate.units import age_text, bytes_text
from prefect_stagegate.unreadable import UnreadableRecords

WATCH_SECONDS = 1.0
"""Seconds between two looks: as often as jobs record their progress."""
NOTHING = "No job writes into this node's cache."


def progress(
    dataset: Annotated[str | None, Parameter(name="DATASET")] = None,
    /,
    *,
    watch: Annotated[bool, Parameter(negative="", help="Go on until no job runs any more.")] = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Show what jobs of any process fetch into this node's cache, and how far they are.

    A job records its progress once a second, beside its lease. One that ended, or was killed, is not shown. The
    bottleneck is what took most of the job's time in the last seconds: network, hashing, disk or waiting.

    For example:

    - `stagegate progress`
    - `stagegate progress nycflights --watch`

    Parameters
    ----------
    dataset
        Only the jobs on this dataset.
    """
    cache, unreadable = (places or Places()).open_cache(), UnreadableRecords()

    def look() -> list[RunningJob]:
        return [job for job in running_jobs(cache, unreadable) if dataset in (None, job.dataset)]

    if watch:
        _watch(look, json=json)
    elif json:
        print_json([*map(asdict, look()), *unreadable_lines(unreadable.all)])
    else:
        _print(look())
    end_unreadable(unreadable.all)


def _watch(look: Callable[[], list[RunningJob]], *, json: bool) -> None:
    """Look again and again until no job runs: redrawn at a terminal; else JSON lines, or plain lines now and then."""
    jobs = look()
    if not (jobs or json):
        say_line(NOTHING)
    elif sys.stdout.isatty() and not json:
        with Live(_rows(jobs), transient=True) as live:
            while jobs:
                time.sleep(WATCH_SECONDS)
                jobs = look()
                live.update(_rows(jobs))
    else:
        while jobs:
            if json:
                OUTPUT.is_compact = True  # a line for each look
                print_json([asdict(job) for job in jobs])
            else:
                _print(jobs)
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS if json else LINE_SECONDS)
            jobs = look()


def _rows(jobs: Sequence[RunningJob]) -> Group:
    """Two rows for each job that records its progress, and one for each of the others."""
    return Group(
        *(
            transfer_rows(f"{job.what} {job.dataset} ({_state(job)})", job.progress)
            if job.progress
            else Text(escaped(_title(job)), no_wrap=True, overflow="ellipsis")
            for job in jobs
        )
    )


def _print(jobs: Sequence[RunningJob]) -> None:
    if not jobs:
        say_line(NOTHING)
    for job in jobs:
        say_line(_title(job))
        if job.progress:
            say_line(f"  {job.progress.phase}: {progress_text(job.progress)}")
            rate = f"{bytes_text(job.progress.rate)}/s"
            bottleneck = f"bottleneck: {job.progress.bottleneck}" if job.progress.bottleneck else ""
            say_line("  " + ", ".join(filter(None, (rate, bottleneck, job.progress.object))))


def _title(job: RunningJob) -> str:
    return f"{job.what} {job.dataset} ({_state(job)}) since {job.since[:19]}Z"


def _state(job: RunningJob) -> str:
    """Which process does it, and whether it seems to hang: `pid 71, alice, stopped`."""
    quiet = f"recorded nothing for {age_text(timedelta(seconds=job.quiet_seconds))}" if job.is_quiet else ""
    return ", ".join(filter(None, (f"pid {job.pid}", job.user, "stopped" if job.is_stopped else "", quiet)))
