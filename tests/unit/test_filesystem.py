from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from prefect_stagegate import open_dataset
from prefect_stagegate.cache import Cache
from prefect_stagegate.errors import CacheError, UnknownRef, UsageError
from prefect_stagegate.filesystem import StagegateFileSystem
from prefect_stagegate.model import Entry

DIGEST = "sha256:" + "1" * 64
FILES = {"flights/01.csv": b"month\n1\n", "flights/02.csv": b"month\n2\n", "planes.csv": b"tail\n"}


def publish(cache: Cache, digest: str, files: dict[str, bytes]) -> None:
    entries = []
    for path, data in sorted(files.items()):
        name = "blake3:" + blake3(data).hexdigest()
        blob = cache.layout.blob(name)
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(data)
        entries.append(Entry(path, len(data), name))
    cache.views.publish("things", digest, entries)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "cache"))
    cache = Cache.open(tmp_path / "cache")
    publish(cache, DIGEST, FILES)
    cache.refs.put("things", "production", DIGEST)
    return cache


@pytest.fixture
def files(cache: Cache) -> StagegateFileSystem:
    return StagegateFileSystem()


def test_fsspec_finds_it_by_its_scheme(cache: Cache) -> None:
    with fsspec.open("stagegate://things@production/planes.csv") as file:
        assert file.read() == b"tail\n"


def test_a_digest_is_written_with_a_dash(files: StagegateFileSystem) -> None:
    assert files.cat("stagegate://things@sha256-" + "1" * 64 + "/planes.csv") == b"tail\n"


def test_folders_globs_and_sizes_work(files: StagegateFileSystem) -> None:
    assert files.ls("things@production", detail=False) == ["things@production/flights", "things@production/planes.csv"]
    assert files.glob("stagegate://things@production/**/*.csv") == [f"things@production/{name}" for name in FILES]
    assert files.info("things@production/flights")["type"] == "directory"
    assert files.size("things@production/planes.csv") == 5


@pytest.mark.parametrize("inside", ["../../../../refs/things/production", "flights/../../x", "/etc/passwd"])
def test_paths_do_not_lead_out_of_the_version(files: StagegateFileSystem, inside: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.cat(f"stagegate://things@production/{inside}")


def test_it_is_read_only(files: StagegateFileSystem) -> None:
    with pytest.raises(PermissionError, match="read-only"):
        files.open("stagegate://things@production/new", "wb")


def test_one_filesystem_reads_one_version_though_the_ref_moves(files: StagegateFileSystem, cache: Cache) -> None:
    assert files.cat("stagegate://things@production/planes.csv") == b"tail\n"
    other = "sha256:" + "2" * 64
    publish(cache, other, {"planes.csv": b"new\n"})
    cache.refs.put("things", "production", other)
    assert files.cat("stagegate://things@production/planes.csv") == b"tail\n"
    assert StagegateFileSystem().cat("stagegate://things@production/planes.csv") == b"new\n"


def test_what_it_reads_is_leased(files: StagegateFileSystem, cache: Cache) -> None:
    files.cat("stagegate://things@production/planes.csv")
    assert [lease.digest for lease in cache.leases.live()] == [DIGEST]


def test_unknown_names_say_what_to_do(files: StagegateFileSystem) -> None:
    with pytest.raises(UnknownRef, match="stagegate stage things@pilot"):
        files.ls("stagegate://things@pilot")
    with pytest.raises(UsageError):
        files.ls("stagegate://Things")


def test_pyarrow_reads_through_it(cache: Cache, tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t.parquet")
    publish(cache, "sha256:" + "3" * 64, {"t.parquet": (tmp_path / "t.parquet").read_bytes()})
    name = "things@sha256-" + "3" * 64
    assert pq.read_table(f"{name}/t.parquet", filesystem=StagegateFileSystem()).num_rows == 2


def test_open_dataset_gives_a_folder_and_holds_it(cache: Cache) -> None:
    with open_dataset("things@production") as dataset:
        assert (dataset.path / "planes.csv").read_bytes() == b"tail\n"
        assert [lease.what for lease in cache.leases.live()] == ["open_dataset"]
    assert cache.leases.live() == []


def test_open_dataset_without_a_cache_says_so(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="--cache or STAGEGATE_CACHE"), open_dataset("things", cache=tmp_path / "none"):
        pass
