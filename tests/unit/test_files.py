"""Local directories as a source: links, special files, and files that change."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from prefect_stagegate.errors import AccessDenied, ObjectChanged, SourceError, UsageError
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.adapter import read_pieces
from prefect_stagegate.sources.local.local_source import local_path
from prefect_stagegate.sources.selection.globs import GlobFilter
from prefect_stagegate.testing.sources import listed, read


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "nas"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.csv").write_bytes(b"1,2\n")
    return folder


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///mnt/nas/x", "/mnt/nas/x"),
        ("file:///mnt/a%20b%23", "/mnt/a b#"),
        ("file://localhost/mnt", "/mnt"),
        ("/mnt/a%20b", "/mnt/a%20b"),
    ],
)
def test_urls_and_plain_paths(url: str, path: str) -> None:
    assert local_path(url) == Path(path)


def test_another_host_is_refused() -> None:
    with pytest.raises(UsageError, match="nas"):
        local_path("file://nas/flights")


def test_links_inside_are_followed(root: Path) -> None:
    (root / "latest").symlink_to("data")
    (root / "b.csv").symlink_to("data/a.csv")
    source = open_source(str(root))
    objects = listed(source, GlobFilter(exclude=("data/",)))
    assert sorted(objects) == ["b.csv", "latest/a.csv"]
    assert {read(source, obj) for obj in objects.values()} == {b"1,2\n"}


@pytest.mark.parametrize("target", ["/etc", "/etc/hostname", "../outside"])
def test_a_link_that_leads_out_is_refused_by_name(root: Path, target: str) -> None:
    (root.parent / "outside").mkdir()
    (root / "escape").symlink_to(target)
    with pytest.raises(SourceError, match="escape") as caught:
        listed(open_source(str(root)))
    assert "exclude" in caught.value.hint


def test_what_is_not_wanted_is_not_refused(root: Path) -> None:
    (root / "escape").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    objects = open_source(str(root)).list(lambda key: key.startswith("data"))
    assert [obj.key for obj in objects] == ["data/a.csv"]


def test_a_broken_link_is_named(root: Path) -> None:
    (root / "broken").symlink_to("nothing")
    with pytest.raises(SourceError, match="broken"):
        listed(open_source(str(root)))


def test_pipes_and_sockets_are_refused_by_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(SourceError, match=r"'pipe' is no file but a pipe"):
        listed(open_source(str(root)))
    (root / "pipe").unlink()
    monkeypatch.chdir(root)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(SourceError, match="a socket"):
            listed(open_source(str(root)))


def test_an_empty_directory_holds_nothing_and_is_no_error(tmp_path: Path) -> None:
    assert listed(open_source(str(tmp_path))) == {}


def test_a_rewrite_of_the_same_size_is_seen(root: Path) -> None:
    source = open_source(str(root))
    obj = listed(source)["data/a.csv"]
    (root / "data" / "a.csv").write_bytes(b"3,4\n")
    with pytest.raises(ObjectChanged):
        read(source, obj)


def test_a_file_that_shrinks_while_it_is_read_is_seen(root: Path) -> None:
    path = root / "data" / "a.csv"
    path.write_bytes(bytes(3 << 20))
    source = open_source(str(root))
    obj = listed(source)["data/a.csv"]
    pieces = read_pieces(source, obj, 0, obj.size)
    next(pieces)
    os.truncate(path, 1 << 20)
    with pytest.raises(ObjectChanged):
        list(pieces)


def test_a_replaced_file_of_the_same_time_is_seen(root: Path) -> None:
    path = root / "data" / "a.csv"
    source = open_source(str(root))
    obj, times = listed(source)["data/a.csv"], path.stat()
    (root / "new").write_bytes(b"3,4\n")
    os.utime(root / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (root / "new").replace(path)
    with pytest.raises(ObjectChanged):
        read(source, obj)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be somebody to whom the modes of files apply, which they do not to root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_file_that_may_not_be_read_is_named() -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "a.csv").touch(mode=0o000)
        source = open_source(folder)
        with as_nobody(), pytest.raises(AccessDenied, match=r"a\.csv"):
            read(source, listed(source)["a.csv"])


def test_sparse_files_read_as_what_they_stand_for(root: Path) -> None:
    with (root / "holes").open("wb") as file:
        file.truncate(5_000_000)
    with (root / "late").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"data")
    assert (root / "holes").stat().st_blocks == 0
    source = open_source(f"file://{root}/")
    objects = listed(source)
    assert read(source, objects["holes"]) == bytes(5_000_000)
    assert read(source, objects["late"]) == bytes(3_000_000) + b"data"
    assert read(source, objects["late"], 2_999_999, 3_000_002) == b"\0da"


def test_two_names_of_one_file_are_two_objects(root: Path) -> None:
    os.link(root / "data" / "a.csv", root / "again.csv")
    source = open_source(f"file://{root}/")
    assert {key: read(source, obj) for key, obj in listed(source).items()} == {
        "again.csv": b"1,2\n",
        "data/a.csv": b"1,2\n",
    }


@pytest.mark.parametrize("mode", [0o400, 0o444, 0o755, 0o4755, 0o2640, 0o1666])
def test_modes_change_nothing_of_what_is_read(root: Path, mode: int) -> None:
    (root / "data" / "a.csv").chmod(mode)
    source = open_source(f"file://{root}/")
    assert read(source, listed(source)["data/a.csv"]) == b"1,2\n"
