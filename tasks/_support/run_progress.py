"""Show a transfer's live progress as an artifact of its run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import ProgressArtifact, update_progress_artifact

from prefect_stagegate.model import Receipt
from prefect_stagegate.tasks._support.notify import in_a_run, run_log
from prefect_stagegate.transport.transfer.progress import Meter, repeating
from prefect_stagegate.units import bytes_text, count_text

INTERVAL = 2.0
"""Seconds between two updates, so that the number of files does not matter to the API."""
GRACE = 10.0
"""Seconds that the end of a transfer waits for its last update."""


class LiveProgress(Meter):
    """Counts the progress of a transfer's threads. Another thread shows it, so that transfers never wait for the API.

    Nothing is shown before bytes move, so a staging that finds nothing new does not call the API.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key
        self._log = run_log()
        self._artifact: UUID | None = None
        self._shown = ""
        self._waits: set[str] = set()
        self._mute = not in_a_run()

    def done(self, receipt: Receipt) -> None:
        """Count a finished object, and log it at the level DEBUG."""
        super().done(receipt)
        self._log.debug("%s is %s, fetched %s", receipt.path, receipt.digest, bytes_text(receipt.fetched))

    def waiting(self, message: str) -> None:
        """Log a message about a wait; the same message only once."""
        super().waiting(message)
        if message not in self._waits:
            self._waits.add(message)
            self._log.info("%s", message)

    def show(self) -> None:
        """Show the counts, if bytes moved since they were shown last."""
        progress = self.snapshot()
        if self._mute or not progress.bytes_moved:
            return
        share = 100.0 * progress.bytes_done / progress.bytes if progress.bytes else 0.0
        objects = f"{progress.objects_done:,} of {count_text(progress.objects, 'object')}"
        text = f"{bytes_text(progress.bytes_done)} of {bytes_text(progress.bytes)}, {objects}"
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


@contextmanager
def live_progress(key: str) -> Iterator[LiveProgress]:
    """Show the progress of the block's transfer while it lasts.

    Args:
        key: The artifact's key: lowercase letters, digits and dashes.
    """
    progress = LiveProgress(key)
    # Its thread has the caller's context: the run that the artifact belongs to, and the API's address.
    with repeating(progress.show, INTERVAL, grace=GRACE, last=True):
        yield progress
