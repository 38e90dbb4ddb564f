"""The progress of a running job: a file beside its writer's lease, which any process of the node may read.

    leases/<lease>.progress       {"phase": "fetching", "bytes": …, "object": …, …}
    leases/<lease>.progress-new   on its way to that name

The job replaces the file by renames, so a reader finds it whole and waits for nobody. Nothing rests on it: it is not
synced, and a reader trusts none of its values. It counts while the lease does, and goes with it.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect_stagegate.cache.layout import GROUP_FILE, PRIVATE_FILE, Layout

LONGEST_TEXT = 512
"""Characters of each text in the file, at most: of a longer path the end stays, which tells more."""
_LARGEST_FILE = 16 << 10
"""Bytes that are read of a file, at most. JSON writes a character in up to 12 bytes."""
_LARGEST_NUMBER = 1 << 63
_COUNTS = ("objects", "objects_done", "bytes", "bytes_moved", "bytes_reused")
_TEXTS = ("object", "wait", "bottleneck", "at")
_NEW = "-new"


class Phase(StrEnum):
    """What a job does now."""

    LISTING = "listing"
    """It lists its sources, and may fetch what they listed so far."""
    FETCHING = "fetching"
    """The objects and bytes to come are known."""
    PUBLISHING = "publishing"
    """All bytes are here; the view and the records are written."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What a job has done so far, and how fast it goes. Sizes are bytes."""

    phase: Phase
    objects: int = 0
    """Objects that the sources listed so far."""
    objects_done: int = 0
    bytes: int = 0
    """Bytes of all listed objects."""
    bytes_moved: int = 0
    """Bytes that came over the wire, or that an interrupted run had fetched."""
    bytes_reused: int = 0
    """Bytes that the cache had already."""
    rate: float = 0.0
    """Bytes a second, over the last seconds."""
    seconds_left: float | None = None
    """Estimated seconds until all bytes are here; None while that is unknown."""
    object: str = ""
    """The path of the object that was begun last, of those under way."""
    wait: str = ""
    """For whom the job waits; empty while something moves."""
    bottleneck: str = ""
    """What took most of the time lately: `network`, `hashing`, `disk` or `waiting`; empty while it is unknown."""
    at: str = ""
    """When this was written."""

    @property
    def bytes_done(self) -> int:
        """Bytes that are in the cache, at most `bytes`."""
        # Bytes that an interrupted run had fetched count as moved and as reused.
        return min(self.bytes_moved + self.bytes_reused, self.bytes)


def write_progress(layout: Layout, lease: str, progress: JobProgress) -> None:
    """Replace the progress of a lease's job.

    Raises:
        OSError: It can't be written.
    """
    path = _path(layout, lease)
    draft = path.with_name(path.name + _NEW)
    with suppress(FileNotFoundError):
        draft.unlink()  # of a job that could not finish it
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(draft, flags, PRIVATE_FILE)
    try:
        layout.share(descriptor, GROUP_FILE)
        short = {name: getattr(progress, name)[-LONGEST_TEXT:] for name in ("object", "wait")}
        os.write(descriptor, json.dumps({**asdict(progress), **short}).encode())
    finally:
        os.close(descriptor)
    draft.rename(path)


def read_progress(layout: Layout, lease: str) -> JobProgress | None:
    """The progress of a lease's job; None where it has none, or none that makes sense. Never waits."""
    try:
        # Non-blocking, since the open of a pipe would wait for its writer.
        descriptor = os.open(_path(layout, lease), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file, suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _parse(json.loads(file.read(_LARGEST_FILE)))
    return None


def remove_progress(layout: Layout, lease: str) -> None:
    """Remove the progress of a lease's job, where it has one.

    Raises:
        OSError: It can't be removed.
    """
    path = _path(layout, lease)
    for each in (path, path.with_name(path.name + _NEW)):
        each.unlink(missing_ok=True)


def _path(layout: Layout, lease: str) -> Path:
    return layout.leases / f"{lease}.progress"


def _parse(values: Any) -> JobProgress:
    """Progress of a file's values, which anybody may have written.

    Raises:
        ValueError, TypeError, KeyError: They are not those of a job's progress.
    """
    left = values["seconds_left"]
    checked: dict[str, Any] = {name: _count(values[name]) for name in _COUNTS}
    checked |= {name: _text(values[name]) for name in _TEXTS}
    checked |= {"rate": _number(values["rate"]), "seconds_left": None if left is None else _number(left)}
    return JobProgress(Phase(values["phase"]), **checked)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST_NUMBER:
        raise ValueError("is no count")
    return value


def _number(value: object) -> float:
    # NaN is in no range.
    if not isinstance(value, int | float) or not 0 <= value < _LARGEST_NUMBER:
        raise ValueError("is no number")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ValueError("is no text")
    return value
