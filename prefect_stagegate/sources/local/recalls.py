"""Offline files, of which only name and size lie on the disk: AFM, Lustre HSM and tape systems recall the rest.

A read of such a file makes the file system recall it. The read blocks until then, and nothing can interrupt it. So a
thread that can be abandoned waits for the first byte, for a bounded number of files at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from heapq import heappop, heappush
from pathlib import Path
from threading import Condition
from typing import Any

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.sources.wrappers.timeout import call_with_timeout
from prefect_stagegate.units import format_duration, parse_duration

AT_ONCE = 4
"""Default of the option `recalls`: files that are recalled at a time."""
TIMEOUT = "1h"
"""Default of the option `recall_timeout`: how long the recall of one file may take."""


def is_away(status: os.stat_result) -> bool:
    """Whether none of a file's bytes lie on the disk. A sparse file of holes looks the same, and is read at once."""
    return status.st_size > 0 and status.st_blocks == 0


class Recalls:
    """The recalls of one source: a queue of offline files, in the order of their paths.

    Args:
        options: `recalls`, the most at a time, and `recall_timeout`, such as `4h`, for each file.
        url: For errors.

    Raises:
        UsageError: An option can't be used.
    """

    def __init__(self, options: Mapping[str, Any], *, url: str) -> None:
        self._url = url
        at_once = options.get("recalls", AT_ONCE)
        if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
            raise UsageError(f"The option recalls is {at_once!r}", hint="It is a number from 1.", source=url)
        try:
            self._timeout: timedelta = parse_duration(str(options.get("recall_timeout", TIMEOUT)))
        except ValueError as error:
            raise UsageError(f"The option recall_timeout: {error}", hint="It looks like 4h.", source=url) from error
        self._at_once = at_once
        self._changed = Condition()
        self._busy = 0
        self.waiting: list[str] = []
        """A heap of the keys that wait for their turn. The first by path is next: tapes read neighbours fastest."""

    def wait(self, path: Path, key: str) -> None:
        """Make the file system recall a file, and return when its first byte is on the disk.

        Raises:
            SourceError: The recall took too long.
            OSError: It can't be read.
        """

        def read_first_byte() -> None:
            with path.open("rb", buffering=0) as file:
                file.read(1)

        with self._turn(key):
            # An abandoned thread stays blocked in its read until the file system answers.
            try:
                call_with_timeout(read_first_byte, self._timeout.total_seconds())
            except TimeoutError as error:
                raise SourceError(
                    f"The file system did not recall the offline file within {format_duration(self._timeout)}",
                    hint="Look up where it is (mmlsattr -L, lfs hsm_state), recall it (mmafmctl "
                    "… prefetch, lfs hsm_restore) and stage again, or raise the option `recall_timeout`.",
                    source=self._url,
                    object=key,
                ) from error

    @contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """Wait until a slot is free and no key that sorts earlier waits; hold the slot for the block."""
        with self._changed:
            heappush(self.waiting, key)
            self._changed.wait_for(lambda: self._busy < self._at_once and self.waiting[0] == key)
            heappop(self.waiting)
            self._busy += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()
