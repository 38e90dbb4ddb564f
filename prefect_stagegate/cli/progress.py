"""Showing a transfer's progress: bars on a terminal, a plain line now and then elsewhere. Standard error only."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

from prefect_stagegate.cli.common import size
from prefect_stagegate.model import Receipt

LINE_EVERY = 10.0
"""Seconds between two plain lines."""


@contextmanager
def shown_progress(title: str, *, quiet: bool = False) -> Iterator[_Shown | None]:
    """Show what a job lists and moves during the block; nothing when `quiet`."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield _Bars(bars, title)
    else:
        yield _Lines(title)


class _Shown(Protocol):
    def listed(self, objects: int, size: int) -> None: ...

    def moved(self, size: int) -> None: ...

    def done(self, receipt: Receipt) -> None: ...
