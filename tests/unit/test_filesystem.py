import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from threading import Barrier

import duckdb
import fsspec
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from prefect_stagegate import open_dataset
from prefect_stagegate.cache import Cache
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.errors import CacheError, UnknownRef, UsageError
from prefect_stagegate.filesystem import StagegateFileSystem
from prefect_stagegate.model import Entry
from tests.support.moves import move_target

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


FILE, FOLDER = "stagegate://things@production/planes.csv", "stagegate://things@production/new"
WRITES: dict[str, Callable[[StagegateFileSystem], object]] = {
    "open to write": lambda files: files.open(FILE, "wb"),
    "open to append": lambda files: files.open(FILE, "a"),
    "open to create": lambda files: files.open(FOLDER, "xb"),
    "open to update": lambda files: files.open(FILE, "r+b"),
    "open in a transaction": lambda files: files.start_transaction() and files.open(FILE, "wb"),
    "write_text": lambda files: files.write_text(FILE, "text"),
    "write_bytes": lambda files: files.write_bytes(FILE, b"bytes"),
    "pipe": lambda files: files.pipe(FILE, b"bytes"),
    "pipe many": lambda files: files.pipe({FILE: b"bytes"}),
    "pipe_file": lambda files: files.pipe_file(path=FILE, value=b"bytes"),
    "put": lambda files: files.put(__file__, FOLDER),
    "upload": lambda files: files.upload(__file__, FOLDER),
    "put_file": lambda files: files.put_file(__file__, FOLDER),
    "cp": lambda files: files.cp(FILE, FOLDER),
    "copy": lambda files: files.copy(FILE, FOLDER),
    "cp_file": lambda files: files.cp_file(FILE, FOLDER),
    "mv": lambda files: files.mv(FILE, FOLDER),
    "mv to itself": lambda files: files.mv(FILE, FILE),
    "rename": lambda files: files.rename(FILE, FOLDER),
    "rm": lambda files: files.rm(FILE),
    "rm of all": lambda files: files.rm("stagegate://things@production", recursive=True),
    "rm of nothing": lambda files: files.rm(FOLDER + "/*"),
    "delete": lambda files: files.delete(FILE),
    "rm_file": lambda files: files.rm_file(FILE),
    "rmdir": lambda files: files.rmdir(FOLDER),
    "mkdir": lambda files: files.mkdir(FOLDER),
    "mkdirs": lambda files: files.mkdirs(FOLDER, exist_ok=True),
    "touch": lambda files: files.touch(FILE),
    "mapper": lambda files: files.get_mapper("things@production").__setitem__("planes.csv", b"bytes"),
}


@pytest.mark.parametrize("write", WRITES)
def test_writing_is_refused_with_why(files: StagegateFileSystem, write: str) -> None:
    with pytest.raises(PermissionError, match=r"A version is immutable.*stagegate stage SPEC") as caught:
        WRITES[write](files)
    assert "things@production" in str(caught.value) or write == "pipe many"
    assert files.cat(FILE) == FILES["planes.csv"]


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


def test_threads_at_first_use_share_one_lease(files: StagegateFileSystem, cache: Cache) -> None:
    together = Barrier(16)

    def read(number: int) -> bytes:
        together.wait()
        return bytes(files.cat(f"stagegate://things@production/{['planes.csv', 'flights/01.csv'][number % 2]}"))

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(read, range(16)))) == 16
    assert len(cache.leases.live()) == 1


def test_a_filesystem_that_is_gone_holds_nothing(files: StagegateFileSystem, cache: Cache) -> None:
    other = StagegateFileSystem()
    other.cat("stagegate://things@production/planes.csv")
    assert len(cache.leases.live()) == 1
    del other
    gc.collect()
    assert list(cache.layout.leases.iterdir()) == []


def test_an_open_file_keeps_its_version_leased(cache: Cache) -> None:
    with fsspec.open("stagegate://things@production/planes.csv") as file:
        gc.collect()
        assert len(cache.leases.live()) == 1
        assert file.read() == FILES["planes.csv"]
    del file
    gc.collect()
    assert cache.leases.live() == []


def test_a_process_that_ends_leaves_no_lease(cache: Cache) -> None:
    script = (
        "from prefect_stagegate.filesystem import StagegateFileSystem\n"
        "files = StagegateFileSystem(); files.itself = files\n"
        "print(files.cat('stagegate://things@production/planes.csv'), len(files._cache.leases.live()))\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "b'tail\\n' 1\n"
    assert list(cache.layout.leases.iterdir()) == []


def test_unknown_names_say_what_to_do(files: StagegateFileSystem) -> None:
    with pytest.raises(UnknownRef, match="stagegate stage things@pilot"):
        files.ls("stagegate://things@pilot")
    with pytest.raises(UsageError):
        files.ls("stagegate://Things")


def test_what_is_not_here_is_a_file_not_found(files: StagegateFileSystem) -> None:
    unknown = "stagegate://things@pilot/planes.csv"
    for read in (files.info, files.ls, files.cat, files.open, files.size, files.ukey, files.modified):
        with pytest.raises(FileNotFoundError, match="things@pilot") as caught:
            read(unknown)
        assert isinstance(caught.value, UnknownRef)
        with pytest.raises(FileNotFoundError, match=f"things@{DIGEST} has no such file.*things@production/none"):
            read("stagegate://things@production/none")
        with pytest.raises(FileNotFoundError, match=r"planes\.csv/none"):
            read("stagegate://things@production/planes.csv/none")
    assert not files.exists(unknown)
    assert not files.isdir(unknown)
    assert not files.isfile(unknown)


@pytest.mark.parametrize("method", ["glob", "find", "walk"])
def test_an_unknown_version_is_no_empty_tree(files: StagegateFileSystem, method: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no ref `prod`.*Did you mean `production`\?"):
        getattr(files, method)("stagegate://things@prod/*.csv")


def test_the_error_of_an_unknown_version_crosses_processes(files: StagegateFileSystem) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        files.info("things@prod")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))


def test_a_url_of_an_unknown_version_fails_at_once(cache: Cache) -> None:
    with pytest.raises(FileNotFoundError, match=r"Did you mean `production`\?"):
        fsspec.url_to_fs("stagegate://things@prod/planes.csv")
    files, path = fsspec.url_to_fs("stagegate://things@*/planes.csv")
    assert files.glob(path) == ["things@production/planes.csv"]
    files, path = fsspec.url_to_fs("stagegate://things@production/none")
    assert not files.exists(path)
    assert len(cache.leases.live()) == 1
    assert pickle.loads(pickle.dumps(files)).isfile("things@production/planes.csv")
    assert len(fsspec.open_files("stagegate://things@production/flights/*.csv")) == 2


def test_files_and_folders_are_told_apart(files: StagegateFileSystem) -> None:
    root = "stagegate://things@production"
    assert files.isdir(root)
    assert files.isdir(f"{root}/flights/")
    assert not files.isfile(f"{root}/flights")
    assert files.isfile(f"{root}/planes.csv")
    assert not files.isdir(f"{root}/planes.csv")
    assert [info["name"] for info in files.ls(f"{root}/planes.csv")] == ["things@production/planes.csv"]
    assert files.find(root) == [f"things@production/{name}" for name in FILES]
    assert [(folders, names) for _, folders, names in files.walk(root)] == [
        (["flights"], ["planes.csv"]),
        ([], ["01.csv", "02.csv"]),
    ]
    assert files.du(root) == sum(map(len, FILES.values()))
    with pytest.raises(IsADirectoryError):
        files.open(f"{root}/flights")


def test_the_root_lists_what_the_node_has(files: StagegateFileSystem) -> None:
    assert files.ls("stagegate://", detail=False) == ["things@production"]
    assert files.isdir("stagegate://")
    assert files.glob("stagegate://things@*/planes.csv") == ["things@production/planes.csv"]


def test_ranges_are_cut_out_of_files(files: StagegateFileSystem) -> None:
    paths = [f"things@production/{name}" for name in ("planes.csv", "flights/01.csv")]
    assert files.cat_ranges(paths, [0, -2], [2, None]) == [b"ta", b"1\n"]
    assert files.head(paths[0], 3) == b"tai"
    assert files.tail(paths[0], 2) == b"l\n"
    assert files.read_block(paths[1], 0, 4, delimiter=b"\n") == b"month\n"
    assert isinstance(files.cat_ranges(["things@production/none"], [0], [1], on_error="return")[0], FileNotFoundError)


def test_times_are_those_of_the_bytes(files: StagegateFileSystem, cache: Cache) -> None:
    path = "things@production/planes.csv"
    written = files.modified(path)
    assert written.tzinfo is UTC
    assert files.created(path) == written
    same = Entry("planes.csv", 5, "blake3:" + blake3(FILES["planes.csv"]).hexdigest())
    cache.views.publish("things", "sha256:" + "2" * 64, [same])  # a second link, which changes the file's ctime
    assert (files.modified(path), files.created(path)) == (written, written)


def test_keys_and_checksums_follow_the_version(files: StagegateFileSystem, cache: Cache) -> None:
    by_ref, by_digest = "things@production/planes.csv", f"things@{DIGEST.replace(':', '-')}/planes.csv"
    assert files.ukey(by_ref) == files.ukey(by_digest) == StagegateFileSystem().ukey(by_ref)
    assert files.checksum(by_ref) == int(files.ukey(by_ref), 16)
    assert files.ukey(by_ref) != files.ukey("things@production/flights/01.csv")
    before = files.ukey(by_ref)
    other = "sha256:" + "2" * 64
    publish(cache, other, {"planes.csv": b"new\n"})
    cache.refs.put("things", "production", other)
    assert files.ukey(by_ref) == before
    assert StagegateFileSystem().ukey(by_ref) != before


def test_abbreviated_digests_work_in_urls(cache: Cache) -> None:
    with fsspec.open("stagegate://things@sha256-111111111111/planes.csv") as file:
        assert file.read() == FILES["planes.csv"]


def test_a_tilde_counts_back_only_behind_a_ref(files: StagegateFileSystem, cache: Cache) -> None:
    names = {"a~1.csv": b"a\n", "~1": b"b\n", "~/x": b"c\n"}
    publish(cache, "sha256:" + "4" * 64, names)
    root = "stagegate://things@sha256-" + "4" * 64
    for name, data in names.items():
        with fsspec.open(f"{root}/{name}") as file:
            assert file.read() == data
    assert files.glob(f"{root}/*~*") == [f"things@sha256-{'4' * 64}/{name}" for name in ("a~1.csv", "~", "~1")]
    with pytest.raises(UsageError):
        files.ls("stagegate://things~1@production")


def test_moves_back_work_in_urls(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog.open(str(tmp_path / "catalog"))
    for digest in (DIGEST, "sha256:" + "5" * 64):
        move_target(catalog, "things", "production", digest)
    options = {"catalog": str(tmp_path / "catalog")}
    with fsspec.open("stagegate://things@production~1/planes.csv", **options) as file:
        assert file.read() == FILES["planes.csv"]
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "catalog"))
    url = "stagegate://things@production~1/planes.csv"
    assert len(pd.read_csv(url, header=None)) == 1
    assert ds.dataset(f"fsspec+{url}", format="csv").schema.names == ["tail"]
    with duckdb.connect() as database:
        database.register_filesystem(StagegateFileSystem())
        assert database.sql(f"SELECT * FROM read_csv('{url}', header=false)").fetchall() == [("tail",)]
    again = pickle.loads(pickle.dumps(StagegateFileSystem(catalog=tmp_path / "catalog")))
    assert again.isfile("things@production~1/planes.csv")


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
