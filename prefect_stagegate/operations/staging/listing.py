"""Listing a source whose server is busy: begun again, after the time that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from prefect_stagegate.errors import SourceBusy
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources import Source, Wanted
from prefect_stagegate.transfer.progress import TransferStats
from prefect_stagegate.transfer.retry import Retrier
from prefect_stagegate.transfer.stop import Stop

RETRIES = 3
"""How often a listing is begun again. Clients of object stores repeat each of its requests, too."""


def begin_listing(source: Source, wanted: Wanted, cancel: Event | None = None) -> Iterator[SourceObject]:
    """List a source, begun again while its server says that it is too busy, until the first object came.

    Raises:
        SourceBusy: It said so to the end, or in the middle, where nobody knows what was listed.
        Cancelled: It was time to stop.
    """

    def begun() -> tuple[SourceObject | None, Iterator[SourceObject]]:
        stream = iter(source.list(wanted))
        return next(stream, None), stream

    first, rest = Retrier(RETRIES, Stop(cancel), TransferStats()).run(begun, again=(SourceBusy,))
    if first is not None:
        yield first
        yield from rest
