"""A job's progress on standard error: a bar on a terminal, elsewhere a plain line every few seconds, or JSON lines."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress as Tasks
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from prefect_stagegate.cache.job_progress import JobProgress, Phase
from prefect_stagegate.cli.common import ProgressForm, escaped
from prefect_stagegate.model import Receipt
from prefect_stagegate.readiness.wording import age_text
from prefect_stagegate.transfer.meter import Meter, Speed, seconds_left
from prefect_stagegate.transfer.progress import Progress
from prefect_stagegate.units import LONGEST_DURATION, bytes_text, count_text

LINE_SECONDS = 10.0
"""Seconds between two plain lines."""
DRAWN_PER_SECOND = 5
JSON_SECONDS = 1.0
"""Seconds between two JSON lines."""


@contextmanager
def shown_progress(title: str, form: ProgressForm = "auto") -> Iterator[Progress | None]:
    """Show what a job lists and moves during the block."""
    if form == "none":
        yield None
    elif form == "json":
        meter = Meter()
        with _json_lines(lambda: asdict(meter.snapshot())):
            yield meter
    elif sys.stderr.isatty():
        meter = Meter()
        with _live(lambda: transfer_rows(title, meter.snapshot())):
            yield meter
    else:
        yield PlainProgress(title)


class PlainProgress(Meter):
    """A transfer's progress as plain lines on standard error, one every few seconds."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._is_due = Periodic()
        self._printing = threading.Lock()

    def listed(self, objects: int, size: int) -> None:
        """Add objects that a source lists, and their bytes."""
        super().listed(objects, size)
        self._print()

    def moved(self, size: int) -> None:
        """Add bytes that came over the wire."""
        super().moved(size)
        self._print()

    def done(self, receipt: Receipt) -> None:
        """Add an object that is in the cache."""
        super().done(receipt)
        self._print()

    def waiting(self, message: str) -> None:
        """Note for whom the transfer waits."""
        super().waiting(message)
        self._print()

    def _print(self) -> None:
        with self._printing:  # one line for all threads
            if self._is_due():
                print(escaped(f"{self._title}: {progress_text(self.snapshot())}"), file=sys.stderr)


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


@contextmanager
def _live(rows: Callable[[], Group]) -> Iterator[None]:
    """Draw rows at the terminal while the block lasts, and remove them then."""
    with Live(get_renderable=rows, console=Console(stderr=True), transient=True, refresh_per_second=DRAWN_PER_SECOND):
        yield


@contextmanager
def _json_lines(values: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Print an object a second on standard error while the block lasts, and one when it ends, however it ends."""
    ended = threading.Event()

    def write() -> None:
        # In one write, so that no line of another thread comes in between. ASCII only, which acts on no terminal.
        sys.stderr.write(json.dumps({"progress": values()}) + "\n")
        sys.stderr.flush()

    def write_each_second() -> None:
        with suppress(OSError):  # nobody reads any more
            while not ended.wait(JSON_SECONDS):
                write()

    thread = threading.Thread(target=write_each_second, name="stagegate-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(JSON_SECONDS)
        with suppress(OSError):
            write()


class Hashing:
    """A verification's progress; `show` is called with it after each change."""

    def __init__(self, show: Callable[[Hashing], None] = lambda _: None) -> None:
        self._show = show
        self._speed = Speed()
        self.bytes = 0
        self.bytes_read = 0

    def expect(self, size: int) -> None:
        """Add bytes that are to be read."""
        self.bytes += size
        self._show(self)

    def read(self, size: int) -> None:
        """Add bytes that were read."""
        self.bytes_read += size
        self._show(self)

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

    def _speed_now(self) -> tuple[float, float | None]:
        rate = self._speed.rate(self.bytes_read)
        return rate, seconds_left(max(0, self.bytes - self.bytes_read), rate)


@contextmanager
def shown_hashing(title: str, form: ProgressForm = "auto") -> Iterator[Hashing | None]:
    """Show how many bytes of all are hashed during the block."""
    if form == "none":
        yield None
    elif form == "json":
        hashing = Hashing()
        with _json_lines(hashing.values):
            yield hashing
    elif sys.stderr.isatty():
        hashing = Hashing()
        with _live(lambda: hashing.rows(title)):
            yield hashing
    else:
        is_due = Periodic()

        def show(hashing: Hashing) -> None:
            if is_due():
                print(
                    f"{title}: {bytes_text(hashing.bytes_read)} of about {bytes_text(hashing.bytes)} hashed",
                    file=sys.stderr,
                )

        yield Hashing(show)


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


class Periodic:
    """Tells every few seconds that the next line of a log is due."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_SECONDS

    def __call__(self) -> bool:
        """Whether a line is due; if so, the next is due in `LINE_SECONDS`."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + LINE_SECONDS
        return True
