"""A job's progress on standard error: a bar on a terminal, elsewhere a plain line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from prefect_stagegate.cli.common import escaped
from prefect_stagegate.model import Receipt
from prefect_stagegate.units import bytes_text, count_text

LINE_SECONDS = 10.0
"""Seconds between two plain lines."""


class Totals:
    """A transfer's progress, added up over its threads; `show` is called with it after each change."""

    def __init__(self, show: Callable[[Totals], None]) -> None:
        self._show = show
        # Held while `show` runs, too: the display is drawn by one thread at a time, and never from half a change.
        self._lock = threading.Lock()
        self.objects = 0
        self.objects_done = 0
        self.bytes = 0
        self.bytes_moved = 0
        self.bytes_reused = 0
        self.wait = ""
        """For whom the transfer waits; empty while something moves."""

    def listed(self, objects: int, size: int) -> None:
        """Add objects that a source lists, and their bytes."""
        with self._lock:
            self.objects += objects
            self.bytes += size
            self._show(self)

    def moved(self, size: int) -> None:
        """Add bytes that came over the wire."""
        with self._lock:
            self.bytes_moved += size
            self.wait = ""
            self._show(self)

    def done(self, receipt: Receipt) -> None:
        """Add an object that is in the cache."""
        with self._lock:
            self.objects_done += 1
            self.wait = ""
            if not receipt.fetched:
                self.bytes_reused += receipt.object.size
            self._show(self)

    def waiting(self, message: str) -> None:
        """Note for whom the transfer waits."""
        with self._lock:
            self.wait = message
            self._show(self)


@contextmanager
def shown_progress(title: str, *, quiet: bool = False) -> Iterator[Totals | None]:
    """Show what a job lists and moves during the block; nothing when `quiet`."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar(title) as totals:
            yield totals
    else:
        is_due = Periodic()

        def show(totals: Totals) -> None:
            if not is_due():
                return
            moved, reused, listed = map(bytes_text, (totals.bytes_moved, totals.bytes_reused, totals.bytes))
            objects = f"{totals.objects_done:,} of {count_text(totals.objects, 'object')}"
            wait = f", {totals.wait}" if totals.wait else ""
            print(f"{title}: {objects}, {moved} fetched, {reused} reused of {listed}{wait}", file=sys.stderr)

        yield Totals(show)


@contextmanager
def _bar(title: str) -> Iterator[Totals]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    counts = TextColumn("{task.fields[objects]}")
    with Progress(*columns, counts, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, objects="")

        def show(totals: Totals) -> None:
            # Without reused bytes the bar would end short of its total.
            moved = totals.bytes_moved + totals.bytes_reused
            counted = f"{totals.objects_done:,} of {count_text(totals.objects, 'object')}"
            bars.update(task, total=totals.bytes, completed=moved, objects=totals.wait or counted)

        yield Totals(show)


class Hashing:
    """A verification's progress; `show` is called with it after each change."""

    def __init__(self, show: Callable[[Hashing], None]) -> None:
        self._show = show
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


@contextmanager
def shown_hashing(title: str, *, quiet: bool = False) -> Iterator[Hashing | None]:
    """Show how many bytes of all are hashed during the block; nothing when `quiet`."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(title, total=None)
            yield Hashing(lambda hashing: bars.update(task, total=hashing.bytes, completed=hashing.bytes_read))
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
def shown_work(title: str, *, quiet: bool = False) -> Iterator[Callable[[str], None] | None]:
    """Show at a terminal what a job does, and for how long; the job calls the yielded function with each step."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    # No markup, since paths and names of tables stand in the line, and one may be called `[red]`.
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda line: bars.update(task, description=escaped(f"{title}: {' '.join(line.splitlines())}"))


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
