"""`stagegate ls --held` and `--quarantine`: this node's leases and rotten blobs. Asks no catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Column, Table
from rich.text import Text

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cli.printing import end_unreadable, escaped, print_json, print_table, say, unreadable_lines
from prefect_stagegate.units import bytes_text
from prefect_stagegate.unreadable import UnreadableRecords


def list_held(cache: Cache, dataset: str | None, *, json: bool) -> None:
    """List the leases of live readers and writers, and the pins, the oldest first."""
    unreadable = UnreadableRecords()
    leases = [lease for lease in cache.leases.live(unreadable) if dataset in (None, lease.dataset)]
    if json:
        print_json([*map(asdict, leases), *unreadable_lines(unreadable.all)])
    else:
        _print_held(leases)
    end_unreadable(unreadable.all)


def _print_held(leases: Sequence[Lease]) -> None:
    if not leases:
        say("No lease or pin is held on this node.")
        return
    version = Column("version", no_wrap=True)
    table = Table("kind", "since", "pid", "who", "reserved", "dataset", version, box=None, pad_edge=False)
    for lease in leases:
        who, reserved = lease.what or "-", bytes_text(lease.reserved) if lease.reserved else "-"
        held = lease.digest or "all, and what it makes"
        cells = (lease.kind, lease.since[:19] + "Z", str(lease.pid or "-"), who, reserved, lease.dataset, held)
        table.add_row(*(Text(escaped(cell)) for cell in cells))
    print_table(table)


def list_quarantine(cache: Cache, dataset: str | None, *, json: bool) -> None:
    """List the blobs that rotted, the one that was found first on top."""
    blobs = sorted(Quarantine(cache.layout).all(), key=lambda blob: blob.since)
    if dataset is not None:
        blobs = [blob for blob in blobs if any(entry.startswith(f"{dataset}@") for entry in blob.entries)]
    if json:
        print_json([asdict(blob) for blob in blobs])
        return
    if not blobs:
        say("Nothing is in quarantine.")
    for blob in blobs:
        say(f"{blob.digest}  {bytes_text(blob.bytes)}, since {blob.since[:19]}Z: {blob.problem}")
        for entry in blob.entries:
            say(f"    {entry}")
