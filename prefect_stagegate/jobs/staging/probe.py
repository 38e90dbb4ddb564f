"""Probing a source: list it up to the first object that the spec takes, and read the beginning of that object."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Pin
from prefect_stagegate.sources import Source
from prefect_stagegate.sources.selection.object_selection import Selection

PROBE_BYTES = 64 * 1024
"""How much of one object a probe of its source reads."""


@dataclass(slots=True)
class SourceProbe:
    """The result of listing one source and reading one range of one object, with the credentials of this process."""

    url: str
    """The source, without credentials."""
    object: str = ""
    """The key that was read; empty when the listing was empty."""
    read: int = 0
    """Bytes that were received."""
    seconds: float = 0.0
    """Time of listing and reading."""
    error: StagegateError | None = None
    who: str = ""
    """The kind of credentials that opened it; empty when it was not opened."""
    listed: float = 0.0
    """Seconds until the first object was listed; part of `seconds`."""
    pin: Pin | None = None
    """The pin of the object that was read."""


def probe(url: str, reopen: Callable[[], Source], selection: Selection) -> SourceProbe:
    """Open, list and read a source with this process's credentials. Ignores `limit`, which needs the whole listing."""
    started = time.monotonic()
    answer = SourceProbe(url)
    try:
        with closing(reopen()) as source:
            life = source.credential_life()
            answer.who = life.what if life.kind != "none" else f"this user ({life.what})"
            first = next(filter(selection.takes, source.list(selection.wants)), None)
            answer.listed = time.monotonic() - started
            if first is not None:
                answer.object, answer.pin = first.key, first.pin
                end = min(PROBE_BYTES, first.size)
                source.read_into(first, 0, memoryview(bytearray(end)))
                answer.read = end
    except StagegateError as error:
        answer.error = error
    answer.seconds = time.monotonic() - started
    return answer
