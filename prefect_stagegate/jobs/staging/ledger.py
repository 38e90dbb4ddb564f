"""The receipts of a staging, sorted by path in a temporary table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefect_stagegate.jobs.staging.temporary_tables import BATCH, insert, temporary
from prefect_stagegate.model import Entry, Origin, Pin, Pins, Receipt


class Ledger:
    """Collects the receipts of one staging and gives them back in the order of their paths."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._new: list[tuple[object, ...]] = []
        self._database = temporary(
            "CREATE TABLE receipts (path TEXT PRIMARY KEY, size INT, digest TEXT, source INT, key TEXT, pin_kind TEXT, "
            "pin_value TEXT, pin_strength TEXT, modified REAL, proof TEXT, state TEXT) WITHOUT ROWID",
            self,
        )
        self.fetched = 0
        """Bytes that came over the wire."""
        self.reused = 0
        """Bytes that the cache had."""

    def add(self, receipt: Receipt) -> None:
        """Add a receipt."""
        listed, pin = receipt.object, receipt.object.pin
        row = (receipt.path, listed.size, receipt.digest, receipt.source, listed.key)
        self._new.append((*row, pin.kind, pin.value, pin.strength, listed.modified, receipt.proof, listed.state))
        if len(self._new) >= BATCH:
            self._flush()
        self.fetched += receipt.fetched
        self.reused += max(0, listed.size - receipt.fetched)

    def entries(self) -> Iterator[Entry]:
        """The manifest's rows."""
        self._flush()
        return (Entry(*row) for row in self._database.execute("SELECT path, size, digest FROM receipts ORDER BY path"))

    def pins(self) -> Pins | None:
        """The weakest of the pins that fix the entries at their sources; None without receipts."""
        self._flush()
        select = "SELECT pin_kind, pin_strength, count(*) FROM receipts GROUP BY 1, 2"
        return Pins.of({(kind, strength): count for kind, strength, count in self._database.execute(select)})

    def origins(self) -> Iterator[Origin]:
        """The origin of each entry."""
        self._flush()
        for row in self._database.execute("SELECT * FROM receipts ORDER BY path"):
            path, size, digest, source, key, kind, value, strength, modified, proof, state = row
            pin = Pin(kind, value, strength)
            yield Origin(path, self._urls[source], key, size, pin, proof, digest, modified, source, state)

    def _flush(self) -> None:
        insert(self._database, "INSERT INTO receipts", self._new)
        self._new.clear()
