"""A job's progress on standard error, in a bar, plain lines or JSON lines; `stagegate progress`: that of all jobs."""

from __future__ import annotations

import json as jsons
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.cache.job_progress import JobProgress, Phase
from prefect_stagegate.cli.flags import Json, Places, ProgressForm
from prefect_stagegate.cli.printing import OUTPUT, end_unreadable, escaped, print_json, print_records, say_line
from prefect_stagegate.jobs.running_jobs import RunningJob, running_jobs
from prefect_stagegate.transport.transfer.progress import Meter, Progress, Speed, repeating, seconds_left
from prefect_stagegate.units import LONGEST_DURATION, age_text, bytes_text, count_text
from prefect_stagegate.unreadable import UnreadableRecords

if TYPE_CHECKING:
    from rich.console import Group  # late: only a terminal needs Rich

LINE_SECONDS = 10.0
"""Seconds between two plain lines."""
DRAWN_PER_SECOND = 5
JSON_SECONDS = 1.0
"""Seconds between two JSON lines."""
WATCH_SECONDS = 1.0
"""Seconds between two looks: as often as jobs record their progress."""
NOTHING = "No job writes into this node's cache."


@contextmanager
def shown_progress(title: str, form: ProgressForm = "auto") -> Iterator[Progress | None]:
    """Show what a job lists and moves during the block."""
    if form == "none":
        yield None
        return
    meter = Meter()
    with _shown(
        form,
        lambda: asdict(meter.snapshot()),
        lambda: transfer_rows(title, meter.snapshot()),
        lambda: f"{title}: {progress_text(meter.snapshot())}",
    ):
        yield meter


def progress_text(progress: JobProgress) -> str:
    """A job's progress as a line of text."""
    moved, reused, listed = map(bytes_text, (progress.bytes_moved, progress.bytes_reused, progress.bytes))
    objects = f"{progress.objects_done:,} of {count_text(progress.objects, 'object')}"
    left = f", {left_text(progress.seconds_left)}" if progress.seconds_left else ""
    wait = f", {progress.wait}" if progress.wait else ""
    return f"{objects}, {moved} fetched, {reused} reused of {listed}{left}{wait}"


def left_text(seconds: float) -> str:
    """How long a job will take, for people: `12 min left`."""
    return f"{age_text(timedelta(seconds=min(seconds, LONGEST_DURATION.total_seconds())))} left"


def transfer_rows(title: str, progress: JobProgress) -> Group:
    """A transfer in two rows: what it does, and a bar with its speed and the time that is left."""
    counts = f"{progress.objects_done:,} of {count_text(progress.objects, 'object')}"
    what = progress.phase if progress.phase is Phase.PUBLISHING else progress.wait or progress.object
    head = ", ".join(filter(None, (f"{title}: {counts}", what)))
    return _rows(head, progress.bytes_done, progress.bytes, progress.rate, progress.seconds_left)


def _rows(head: str, done: int, total: int, rate: float, left: float | None) -> Group:
    """Two rows that fit a terminal of 60 columns: a text, which is cut, and a bar, which shrinks."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table
    from rich.text import Text

    bar = Table.grid(Column(ratio=1), padding=(0, 2, 0, 0), expand=True)
    figures = [f"{bytes_text(done)} of {bytes_text(total)}", f"{bytes_text(rate)}/s"]
    if total:
        figures.insert(0, f"{int(100 * done / total)}%")
    if left is not None:
        figures.append(left_text(left))
    for _ in figures:
        bar.add_column(no_wrap=True)
    # Not Rich's own colour, which is a red that people take for an error.
    drawn = ProgressBar(
        total=total or None, completed=done, complete_style="cyan", finished_style="green", pulse_style="cyan"
    )
    bar.add_row(drawn, *map(Text, figures))
    line = Text(escaped(" ".join(head.split())), no_wrap=True, overflow="ellipsis")
    return Group(line, bar)


def _shown(
    form: ProgressForm, values: Callable[[], Mapping[str, Any]], rows: Callable[[], Group], line: Callable[[], str]
) -> AbstractContextManager[object]:
    """Show progress during a block: as JSON, at a terminal in rows that are removed at the end, else in plain lines."""
    if form == "json":
        return _json_lines(values)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        return Live(get_renderable=rows, console=console, transient=True, refresh_per_second=DRAWN_PER_SECOND)
    return repeating(lambda: print(escaped(line()), file=sys.stderr), LINE_SECONDS)


def _json_lines(values: Callable[[], Mapping[str, Any]]) -> AbstractContextManager[None]:
    """Print an object a second on standard error while the block lasts, and one when it ends, however it ends."""

    def write() -> None:
        # In one write, so that no line of another thread comes in between. ASCII only, which acts on no terminal.
        sys.stderr.write(jsons.dumps({"progress": values()}) + "\n")
        sys.stderr.flush()

    return repeating(write, JSON_SECONDS, last=True)


class Hashing:
    """A verification's progress."""

    def __init__(self) -> None:
        self._speed = Speed()
        self.bytes = 0
        self.bytes_read = 0

    def expect(self, size: int) -> None:
        """Add bytes that are to be read."""
        self.bytes += size

    def read(self, size: int) -> None:
        """Add bytes that were read."""
        self.bytes_read += size

    def rows(self, title: str) -> Group:
        """Its progress as two rows."""
        return _rows(title, self.bytes_read, self.bytes, *self._speed_now())

    def values(self) -> dict[str, Any]:
        """Its progress for programs."""
        rate, left = self._speed_now()
        return {
            "phase": "hashing",
            "bytes": self.bytes,
            "bytes_read": self.bytes_read,
            "rate": rate,
            "seconds_left": left,
        }

    def __str__(self) -> str:
        return f"{bytes_text(self.bytes_read)} of about {bytes_text(self.bytes)} hashed"

    def _speed_now(self) -> tuple[float, float | None]:
        rate = self._speed.rate(self.bytes_read)
        return rate, seconds_left(max(0, self.bytes - self.bytes_read), rate)


@contextmanager
def shown_hashing(title: str, form: ProgressForm = "auto") -> Iterator[Hashing | None]:
    """Show how many bytes of all are hashed during the block."""
    if form == "none":
        yield None
        return
    hashing = Hashing()
    with _shown(form, hashing.values, lambda: hashing.rows(title), lambda: f"{title}: {hashing}"):
        yield hashing


@contextmanager
def shown_work(title: str, form: ProgressForm = "auto") -> Iterator[Callable[[str], None] | None]:
    """Show at a terminal, or as JSON, what a job does; the job calls the yielded function with each step."""
    if form == "json":
        with _json_steps(title.partition(" ")[0]) as step:
            yield step
        return
    if form == "none" or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Tasks
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    # No markup, since paths and names of tables stand in the line, and one may be called `[red]`.
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Tasks(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda line: bars.update(task, description=escaped(f"{title}: {' '.join(line.splitlines())}"))


@contextmanager
def shown_waiting(phase: str, form: ProgressForm) -> Iterator[Callable[[str], None]]:
    """Show why a command waits; it calls the yielded function with each new reason."""
    if form == "json":
        with _json_steps(phase) as step:
            yield step
    elif form == "none":
        yield lambda _: None
    else:
        yield lambda reason: print(escaped(f"waiting: {reason}"), file=sys.stderr)


@contextmanager
def _json_steps(phase: str) -> Iterator[Callable[[str], None]]:
    """Print the newest step of a phase as JSON; the job calls the yielded function with each."""
    steps = deque([""], 1)
    with _json_lines(lambda: {"phase": phase, "step": steps[-1]}):
        yield steps.append


def progress(
    dataset: Annotated[str | None, Parameter(name="DATASET")] = None,
    /,
    *,
    watch: Annotated[bool, Parameter(negative="", help="Go on until no job runs any more.")] = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Show what jobs of any process fetch into this node's cache, and how far they are.

    The bottleneck is what took most of the job's time in the last seconds: network, hashing, disk or waiting.

    For example:

    - `stagegate progress`
    - `stagegate progress nycflights --watch`

    Parameters
    ----------
    dataset
        Only the jobs on this dataset.
    """
    cache, unreadable = places.open_cache(), UnreadableRecords()

    def look() -> list[RunningJob]:
        return [job for job in running_jobs(cache, unreadable) if dataset in (None, job.dataset)]

    if not watch:
        print_records(look(), _print_jobs, unreadable, json=json)
        return
    _watch(look, json=json)
    end_unreadable(unreadable.all)


def _watch(look: Callable[[], list[RunningJob]], *, json: bool) -> None:
    """Look again and again until no job runs: redrawn at a terminal; else JSON lines, or plain lines now and then."""
    jobs = look()
    if not (jobs or json):
        say_line(NOTHING)
    elif sys.stdout.isatty() and not json:
        from rich.live import Live

        with Live(_job_rows(jobs), transient=True) as live:
            while jobs:
                time.sleep(WATCH_SECONDS)
                jobs = look()
                live.update(_job_rows(jobs))
    else:
        while jobs:
            if json:
                OUTPUT.is_compact = True  # a line for each look
                print_json(jobs)
            else:
                _print_jobs(jobs)
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS if json else LINE_SECONDS)
            jobs = look()


def _job_rows(jobs: Sequence[RunningJob]) -> Group:
    """Two rows for each job that records its progress, and one for each of the others."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        *(
            transfer_rows(f"{job.what} {job.dataset} ({_state(job)})", job.progress)
            if job.progress
            else Text(escaped(_title(job)), no_wrap=True, overflow="ellipsis")
            for job in jobs
        )
    )


def _print_jobs(jobs: Sequence[RunningJob]) -> None:
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
