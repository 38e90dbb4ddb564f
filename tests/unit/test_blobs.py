"""From a claim to a blob: what can be seen, and when."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from blake3 import blake3

from prefect_stagegate.cache.blobs import Blobs
from prefect_stagegate.cache.ingest import PART, UPTO, Claim, Journal, Note
from prefect_stagegate.cache.layout import Layout
from prefect_stagegate.errors import CacheError, ChecksumMismatch

DATA = b"some bytes"
AA, BB = Note(UPTO, "aa"), Note(PART, "bb")
DIGEST = f"blake3:{blake3(DATA).hexdigest()}"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.open(tmp_path / "cache")


@pytest.fixture
def blobs(layout: Layout) -> Blobs:
    return Blobs(layout)


def claimed(blobs: Blobs, name: str = "one", data: bytes = DATA) -> Claim:
    claim = blobs.claim(name)
    assert claim
    os.pwrite(claim.file, data, 0)
    return claim


def stored(blobs: Blobs, name: str = "one") -> None:
    claim = claimed(blobs, name)
    blobs.commit(claim, DIGEST, len(DATA), sync=False)
    claim.drop()


def test_a_blob_appears_read_only_and_the_ingest_folder_is_clean(blobs: Blobs, layout: Layout) -> None:
    claim = claimed(blobs)
    assert not blobs.holds(DIGEST, len(DATA))
    assert Path(claim.path).stat().st_mode & 0o777 == 0o600
    blobs.commit(claim, DIGEST, len(DATA), sync=True)
    claim.drop()
    assert blobs.holds(DIGEST, len(DATA))
    assert not blobs.holds(DIGEST, len(DATA) + 1)
    assert layout.blob(DIGEST).stat().st_mode & 0o777 == 0o444
    assert layout.blob(DIGEST).read_bytes() == DATA
    assert list(layout.ingest.iterdir()) == []


def test_a_claim_is_one_persons_until_it_is_dropped(blobs: Blobs) -> None:
    claim = claimed(blobs)
    assert blobs.claim("one") is None
    blobs.commit(claim, DIGEST, len(DATA), sync=False)
    assert blobs.claim("one") is None, "it is remembered only when the claim is dropped"
    claim.drop()
    again = blobs.claim("one")
    assert again
    assert again.size == 0
    again.drop()


def test_file_committed_by_a_dead_stager_is_never_rewritten(blobs: Blobs, layout: Layout) -> None:
    dead = claimed(blobs)
    blobs.commit(dead, DIGEST, len(DATA), sync=False)
    os.close(dead.file)  # as a kill does: the name stays in the ingest folder, and is a link to the blob
    claim = claimed(blobs, data=b"other bytes")
    assert layout.blob(DIGEST).read_bytes() == DATA
    claim.drop()


def test_a_file_of_the_wrong_size_does_not_become_a_blob(blobs: Blobs, layout: Layout) -> None:
    claim = claimed(blobs)
    with pytest.raises(ChecksumMismatch):
        blobs.commit(claim, DIGEST, len(DATA) - 1, sync=False)
    assert not layout.blob(DIGEST).exists()


def test_the_same_content_is_one_file(blobs: Blobs, layout: Layout) -> None:
    stored(blobs, "one")
    inode = layout.blob(DIGEST).stat().st_ino
    stored(blobs, "two")
    assert layout.blob(DIGEST).stat().st_ino == inode


@pytest.mark.parametrize("damage", [b"same length", b"short", b""])
def test_rotten_blob_is_replaced_when_its_bytes_come_again(blobs: Blobs, layout: Layout, damage: bytes) -> None:
    stored(blobs)
    layout.blob(DIGEST).chmod(0o644)
    layout.blob(DIGEST).write_bytes(damage[: len(DATA)])
    layout.blob(DIGEST).chmod(0o444)
    stored(blobs, "two")
    assert layout.blob(DIGEST).read_bytes() == DATA


def test_twins_replace_a_rotten_blob_at_once(blobs: Blobs, layout: Layout) -> None:
    stored(blobs)
    for _ in range(20):
        layout.blob(DIGEST).unlink()
        layout.blob(DIGEST).write_bytes(b"same length")
        layout.blob(DIGEST).chmod(0o444)
        start = Barrier(4)

        def store(name: str, start: Barrier = start) -> None:
            start.wait()
            stored(blobs, name)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store, "abcd"))
        assert layout.blob(DIGEST).read_bytes() == DATA


def test_a_link_in_the_place_of_a_claim_is_not_followed(blobs: Blobs, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    claim = claimed(blobs)
    claim.drop()
    Path(claim.path).symlink_to(tmp_path / "victim")
    with pytest.raises(CacheError):
        blobs.claim("one")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert layout.blobs.is_dir()


def test_only_files_of_a_dead_stager_are_orphans(blobs: Blobs) -> None:
    left, held = claimed(blobs, "left"), claimed(blobs, "held")
    os.close(left.file)
    assert list(blobs.orphans(older_than=60)) == []
    for claim in (left, held):
        os.utime(claim.path, (1, 1))
    assert [str(path) for path in blobs.orphans(older_than=60)] == [left.path]
    held.drop()


class TestJournal:
    """Which parts are recorded survives whatever ended the process that wrote them."""

    def journal(self, blobs: Blobs, size: int = 100, part: int = 10, *, believed: bool = True) -> tuple[Claim, Journal]:
        claim = blobs.claim("one")
        assert claim
        return claim, Journal(claim, size, part, lambda began: believed and abs(time.time() - began) < 60)

    def test_recorded_parts_are_found_again(self, blobs: Blobs) -> None:
        claim, journal = self.journal(blobs)
        journal.record(0, AA)
        journal.record(7, BB)
        journal.close()
        claim.keep()
        assert self.journal(blobs)[1].parts == {0: AA, 7: BB}

    def test_half_a_line_does_not_count_nor_spoil_what_follows(self, blobs: Blobs) -> None:
        claim, journal = self.journal(blobs)
        journal.record(0, AA)
        journal.close()
        with Path(claim.journal).open("a") as file:
            file.write("upto 1 b")
        claim.keep()
        claim, journal = self.journal(blobs)
        assert journal.parts == {0: AA}
        journal.record(2, BB)
        journal.close()
        claim.keep()
        assert self.journal(blobs)[1].parts == {0: AA, 2: BB}

    def test_parts_that_are_not_believed_do_not_count(self, blobs: Blobs) -> None:
        claim, journal = self.journal(blobs)
        journal.record(0, AA)
        journal.close()
        claim.keep()
        assert self.journal(blobs, believed=False)[1].parts == {}

    @pytest.mark.parametrize(("size", "part"), [(101, 10), (100, 20)])
    def test_parts_of_another_division_do_not_count(self, blobs: Blobs, size: int, part: int) -> None:
        claim, journal = self.journal(blobs)
        journal.record(0, AA)
        journal.close()
        claim.keep()
        assert self.journal(blobs, size, part)[1].parts == {}

    def test_a_journal_of_nonsense_is_an_empty_one(self, blobs: Blobs) -> None:
        claim = blobs.claim("one")
        assert claim
        Path(claim.journal).write_bytes(bytes(range(256)))
        assert Journal(claim, 100, 10, lambda _: True).parts == {}
