"""Listing a source, and starting the listing again when its server is busy."""

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
"""How often a listing starts again. Clients of object stores repeat each of its requests, too."""


def begin_listing(source: Source, wanted: Wanted, cancel: Event | None = None) -> Iterator[SourceObject]:
    """List a source. Until the first object came, start again when the server says that it is busy.

    Raises:
        SourceBusy: The server was busy in every try, or in the middle of the listing.
        Cancelled: `cancel` was set.
    """

    def start() -> tuple[SourceObject | None, Iterator[SourceObject]]:
        stream = iter(source.list(wanted))
        return next(stream, None), stream

    # Only the start is repeated: later, nobody knows which objects the caller has already.
    first, rest = Retrier(RETRIES, Stop(cancel), TransferStats()).run(start, again=(SourceBusy,))
    if first is not None:
        yield first
        yield from rest
