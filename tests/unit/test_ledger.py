"""The receipts of a staging, in order."""

from __future__ import annotations

from prefect_stagegate.jobs.staging.temporary_tables import BATCH, Ledger
from prefect_stagegate.model import Pin, Receipt, SourceObject

URLS = ("s3://lake/", "file:///mnt/nas/")


def test_many_receipts_come_back_sorted_by_path() -> None:
    ledger = Ledger(URLS)
    count = 2 * BATCH + 1
    for number in reversed(range(count)):
        listed = SourceObject(f"key-{number}", number, Pin("etag", f"e{number}", "strong"), float(number))
        ledger.add(Receipt(f"path-{number:04}", listed, number % 2, f"blake3:{number:064x}", "server", number // 2))

    entries, origins = list(ledger.entries()), list(ledger.origins())

    assert [entry.path for entry in entries] == [f"path-{number:04}" for number in range(count)]
    assert [(entry.size, entry.digest) for entry in entries] == [(n, f"blake3:{n:064x}") for n in range(count)]
    assert [
        (origin.path, origin.key, origin.source, str(origin.pin), origin.modified, origin.proof) for origin in origins
    ] == [(f"path-{n:04}", f"key-{n}", URLS[n % 2], f"etag:e{n}", float(n), "server") for n in range(count)]
    assert (ledger.fetched, ledger.fetched + ledger.reused) == (sum(n // 2 for n in range(count)), sum(range(count)))
