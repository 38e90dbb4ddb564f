"""Showing a transfer's progress on standard error: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from prefect_stagegate.model import Receipt
from prefect_stagegate.units import bytes_text

LINE_SECONDS = 10.0
"""Between two plain lines."""


class Totals:
    """A transfer's progress, added up over its threads; `show` is called with it after each change."""

    def __init__(self, show: Callable[[Totals], None]) -> None:
        self._show = show
        self._lock = threading.Lock()
        self.objects = 0
        self.objects_done = 0
        self.bytes = 0
        self.bytes_moved = 0
        self.bytes_reused = 0

    def listed(self, objects: int, size: int) -> None:
        """Add what was found at a source."""
        with self._lock:
            self.objects += objects
            self.bytes += size
            self._show(self)

    def moved(self, size: int) -> None:
        """Add bytes that came over the wire."""
        with self._lock:
            self.bytes_moved += size
            self._show(self)

    def done(self, receipt: Receipt) -> None:
        """Add an object that is in the cache."""
        with self._lock:
            self.objects_done += 1
            if not receipt.fetched:
                self.bytes_reused += receipt.object.size
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
        yield Totals(_Lines(title))


@contextmanager
def _bar(title: str) -> Iterator[Totals]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    counts = TextColumn("{task.fields[objects]}")
    with Progress(*columns, counts, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, objects="")

        def show(totals: Totals) -> None:
            moved = totals.bytes_moved + totals.bytes_reused
            counted = f"{totals.objects_done}/{totals.objects} objects"
            bars.update(task, total=totals.bytes, completed=moved, objects=counted)

        yield Totals(show)


class _Lines:
    """Says where a transfer stands, at most every few seconds, for logs."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = time.monotonic() + LINE_SECONDS

    def __call__(self, totals: Totals) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_SECONDS
        moved, reused, listed = map(bytes_text, (totals.bytes_moved, totals.bytes_reused, totals.bytes))
        objects = f"{totals.objects_done}/{totals.objects} objects"
        print(f"{self._title}: {objects}, {moved} fetched, {reused} reused of {listed}", file=sys.stderr)
