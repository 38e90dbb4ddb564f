"""Show a transfer's live progress as an artifact of its run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any
from uuid import UUID

from prefect.artifacts import ProgressArtifact, update_progress_artifact

from prefect_stagegate.model import Receipt
from prefect_stagegate.tasks._support.notify import in_a_run, run_log
from prefect_stagegate.units import bytes_text, count_text

INTERVAL = 2.0
"""Seconds between two updates, so that the number of files does not matter to the API."""
GRACE = 10.0
"""Seconds that the end of a transfer waits for its last update."""


class LiveProgress:
    """Counts the progress of a transfer's threads. Another thread shows it, so that transfers never wait for the API.

    Nothing is shown before bytes move, so a staging that finds nothing new does not call the API.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._log = run_log()
        self._lock = threading.Lock()
        self._listed = self._size = self._moved = self._finished = self._reused = 0
        self._artifact: UUID | None = None
        self._shown = ""
        self._waits: set[str] = set()
        self._mute = not in_a_run()
        self._stop = threading.Event()

    def listed(self, objects: int, size: int) -> None:
        """Count objects that have to be fetched."""
        with self._lock:
            self._listed += objects
            self._size += size

    def started(self, path: str) -> None:
        """Do nothing: the counts are shown."""

    def moved(self, size: int) -> None:
        """Count bytes."""
        with self._lock:
            self._moved += size

    def done(self, receipt: Receipt) -> None:
        """Count a finished object, and log it at the level DEBUG."""
        with self._lock:
            self._finished += 1
            self._reused += 0 if receipt.fetched else receipt.object.size
        self._log.debug("%s is %s, fetched %s", receipt.path, receipt.digest, bytes_text(receipt.fetched))

    def waiting(self, message: str) -> None:
        """Log a message about a wait; the same message only once."""
        if message not in self._waits:
            self._waits.add(message)
            self._log.info("%s", message)

    def watch(self) -> None:
        """Show the counts until `stop`, and a last time after it."""
        while not self._stop.wait(INTERVAL):
            self._show()
        self._show()

    def stop(self) -> None:
        """Make `watch` return."""
        self._stop.set()

    def _show(self) -> None:
        if self._mute or not self._moved:
            return
        share, text = self._state()
        # Nothing moved since the last look, so the API is left alone.
        if text == self._shown:
            return
        try:
            if self._artifact is None:
                artifact: Any = ProgressArtifact(key=self._key, description=text, progress=share)
                self._artifact = artifact.create(_sync=True).id  # else an async flow would get a coroutine
            else:
                update: Any = update_progress_artifact
                update(self._artifact, share, description=text, _sync=True)
            self._shown = text
        except Exception as error:  # noqa: BLE001 - whatever ails the API, bytes move on
            # Stop after the first error, so that a broken API does not fill the log.
            self._mute = True
            self._log.warning("Progress is no longer shown: %s", error)

    def _state(self) -> tuple[float, str]:
        """The share of the bytes that is on this node, in percent, and the figures as text."""
        with self._lock:
            # Bytes that an interrupted run had fetched are counted as moved and as reused, so cap the sum.
            done = min(self._moved + self._reused, self._size)
            share = 100.0 * done / self._size if self._size else 0.0
            objects = f"{self._finished:,} of {count_text(self._listed, 'object')}"
            text = f"{bytes_text(done)} of {bytes_text(self._size)}, {objects}"
        return share, text


@contextmanager
def live_progress(key: str) -> Iterator[LiveProgress]:
    """Show the progress of the block's transfer while it lasts.

    Args:
        key: The artifact's key: lowercase letters, digits and dashes.
    """
    progress = LiveProgress(key)
    # The context has the run that the artifact belongs to, and the API's address.
    thread = threading.Thread(target=copy_context().run, args=(progress.watch,), name=f"progress of {key}", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        progress.stop()
        thread.join(GRACE)
