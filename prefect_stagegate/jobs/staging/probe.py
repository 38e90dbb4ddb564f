"""Probing a source: list it up to the first object that the spec takes, and read the beginning of that object."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.gate import Probe
from prefect_stagegate.sources import Source
from prefect_stagegate.sources.selection.selection import Selection

PROBE_BYTES = 64 * 1024
"""How much of one object a probe of its source reads."""


def probe(url: str, reopen: Callable[[], Source], selection: Selection) -> Probe:
    """Open, list and read a source with this process's credentials. Ignores `limit`, which needs the whole listing."""
    started = time.monotonic()
    answer = Probe(url)
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
