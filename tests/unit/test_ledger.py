"""Long lists in temporary tables: paths that are taken, and receipts in order."""

from __future__ import annotations

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Action, Pin, PlannedObject, Receipt, SourceObject
from prefect_stagegate.operations.ledger import BATCH, Ledger, Paths

URLS = ("s3://lake/", "file:///mnt/nas/")


def wanted(path: str, source: int = 0, key: str = "") -> PlannedObject:
    return PlannedObject(path, SourceObject(key or path, 3, Pin("etag", "e", "strong")), source, Action.FETCH)


def test_two_objects_that_want_one_path_are_named_wherever_they_stand() -> None:
    within, across = Paths(URLS), Paths(URLS)

    with pytest.raises(UsageError, match=r"'b': 'b' of s3://lake/ and 'x/b' of file:///mnt/nas/"):
        within.take([wanted("a"), wanted("b"), wanted("b", 1, "x/b")])
    across.take([wanted("a"), wanted("b")])
    with pytest.raises(UsageError, match=r"'b': 'b' of s3://lake/ and 'x/b' of file:///mnt/nas/"):
        across.take([wanted("c"), wanted("b", 1, "x/b")])


def test_a_source_that_lists_an_object_twice_is_told() -> None:
    with pytest.raises(UsageError, match="'a' of s3://lake/ and 'a' of s3://lake/"):
        Paths(URLS).take([wanted("a"), wanted("a")])


def test_receipts_come_back_by_their_paths_however_many_there_are() -> None:
    ledger = Ledger(URLS)
    count = 2 * BATCH + 1
    for number in reversed(range(count)):
        listed = SourceObject(f"key-{number}", number, Pin("etag", f"e{number}", "strong"), float(number))
        ledger.add(Receipt(f"path-{number:04}", listed, number % 2, f"blake3:{number:064x}", "server", number // 2))

    entries, origins = list(ledger.entries()), list(ledger.origins())

    assert [entry.path for entry in entries] == [f"path-{number:04}" for number in range(count)]
    assert [(entry.size, entry.digest) for entry in entries] == [(n, f"blake3:{n:064x}") for n in range(count)]
    assert [(one.path, one.key, one.source, str(one.pin), one.modified, one.proof) for one in origins] == [
        (f"path-{n:04}", f"key-{n}", URLS[n % 2], f"etag:e{n}", float(n), "server") for n in range(count)
    ]
    assert (ledger.fetched, ledger.fetched + ledger.reused) == (sum(n // 2 for n in range(count)), sum(range(count)))
