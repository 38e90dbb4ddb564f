"""Which bytes are read, that all of them are, and where they came from: real files, on the volume of the tests."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from prefect_stagegate.errors import CacheError
from prefect_stagegate.model import Entry
from prefect_stagegate.mounts import MEMORY
from prefect_stagegate.plugins.node.feed import BLOCK, Piece, Reader, cut, read_cold, sample
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.pagecache import cached, forget
from prefect_stagegate.plugins.node.tiers import TierMeter, Tiers, split_by_tier

Files = Sequence[tuple[Path, int]]
SIZES = (3 * BLOCK, BLOCK + 4097, 1, 70_000)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    for number, size in enumerate(SIZES):
        (tmp_path / str(number)).write_bytes(os.urandom(size))
    return [(tmp_path / str(number), size) for number, size in enumerate(SIZES)]


def entries(*sizes: int) -> list[Entry]:
    return [Entry(f"part-{number}", size, "blake3:0") for number, size in enumerate(sizes)]


def test_sample_depends_on_the_seed_and_not_on_the_order() -> None:
    many = entries(*[10] * 100)
    taken = sample(Path("/v"), many, files=10, limit=1000, seed="a")
    assert len(taken) == 10
    assert taken == sample(Path("/v"), reversed(many), files=10, limit=1000, seed="a")
    assert taken != sample(Path("/v"), many, files=10, limit=1000, seed="b")


def test_sample_ends_with_the_bytes_and_leaves_empty_files_out() -> None:
    taken = sample(Path("/v"), entries(0, 100, 0, 100, 100), files=10, limit=250, seed="a")
    assert [size for _, size in taken] == [100, 100, 50]
    assert sample(Path("/v"), entries(0, 0), files=10, limit=250, seed="a") == ()


def test_files_are_cut_into_pieces_that_cover_them_once() -> None:
    assert list(cut([(Path("a"), 5), (Path("b"), 2)], 2)) == [
        Piece(Path("a"), 0, 2),
        Piece(Path("a"), 2, 2),
        Piece(Path("a"), 4, 1),
        Piece(Path("b"), 0, 2),
    ]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("length", [BLOCK, 4096, 1000])
def test_reader_reads_every_byte_of_files_of_any_size(files: Files, direct: bool, length: int) -> None:
    reader = Reader(direct=direct)
    assert sum(reader.read(piece) for piece in cut(files, length)) == sum(SIZES)


def test_file_shorter_than_its_manifest_gives_what_it_has(files: Files) -> None:
    file, size = files[1]
    os.truncate(file, 5000)
    assert Reader(direct=True).read(Piece(file, 0, size)) == 5000


def test_file_that_is_gone_is_named_with_what_to_do(files: Files) -> None:
    files[0][0].unlink()
    with pytest.raises(CacheError, match=f"{files[0][0]} can't be read") as caught:
        read_cold(files, readers=2, seconds=60, machine=Machine())
    assert "stagegate verify" in caught.value.hint


def test_link_is_not_followed(tmp_path: Path, files: Files) -> None:
    (tmp_path / "link").symlink_to(files[0][0])
    with pytest.raises(CacheError):
        Reader(direct=False).read(Piece(tmp_path / "link", 0, 1))


def disk_only(files: Files) -> bool:
    """Whether the tests' volume is a disk, whose pages can be dropped; memory has nothing else."""
    mount = Machine().mount(files[0][0].parent)
    return mount is not None and mount.kind not in MEMORY


def test_page_cache_holds_what_was_written_and_forgets_it(files: Files) -> None:
    file, size = files[0]
    assert cached(file, size) == size
    assert forget(file, size) == size
    assert cached(file, size) == (0 if disk_only(files) else size)


@pytest.mark.parametrize("readers", [1, 5])
def test_all_bytes_are_read_once_past_the_page_cache(files: Files, readers: int) -> None:
    reading = read_cold(files, readers=readers, seconds=60, machine=Machine())
    assert reading.tiers == Tiers(local=sum(SIZES))
    assert reading.cached_before == sum(SIZES)
    assert reading.rate > 0


def test_buffered_bytes_that_the_page_cache_gave_are_told_apart(files: Files) -> None:
    meter = TierMeter(files, time.monotonic() + 60, Machine())
    reader = Reader(direct=False)
    for _ in range(4):
        read = sum(reader.read(piece) for piece in cut(files, BLOCK))
    tiers = meter.reading(4 * read).tiers
    assert tiers.total == 4 * sum(SIZES)
    if disk_only(files):
        assert sum(SIZES) <= tiers.local <= 1.1 * sum(SIZES) + 16 * 4096  # whole pages, and a little read ahead
        assert meter.reading(4 * read).warm


def test_files_that_there_is_no_time_to_drop_are_left_out(files: Files) -> None:
    assert TierMeter(files, time.monotonic(), Machine()).files == files[:1]


def test_no_time_is_no_byte(files: Files) -> None:
    reading = read_cold(files, readers=2, seconds=0, machine=Machine())
    assert (reading.tiers.total, reading.rate) == (0, 0.0)


@pytest.mark.parametrize(
    ("read", "storage", "still", "kind", "tiers"),
    [
        (100, 100, 0, "ext4", Tiers(local=100)),
        (100, 160, 0, "ext4", Tiers(local=100)),  # read ahead
        (100, 30, 0, "xfs", Tiers(local=30, page_cache=70)),
        (100, 30, 0, "nfs4", Tiers(source=30, page_cache=70)),
        (100, 0, 100, "tmpfs", Tiers(local=100)),
        (100, None, 40, "ext4", Tiers(local=60, page_cache=40)),
        (100, None, 400, "lustre", Tiers(page_cache=100)),
        (0, 0, 0, "ext4", Tiers()),
    ],
)
def test_tiers_are_told_by_what_storage_gave(
    read: int, storage: int | None, still: int, kind: str, tiers: Tiers
) -> None:
    assert split_by_tier(read, storage, still, kind) == tiers


def test_process_without_an_io_account_goes_by_the_page_cache(files: Files, tmp_path: Path) -> None:
    machine = Machine(proc=tmp_path / "nothing")
    assert read_cold(files, readers=1, seconds=60, machine=machine).tiers.total == sum(SIZES)
    assert machine.read_from_storage() is None
