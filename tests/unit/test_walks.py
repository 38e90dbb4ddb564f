"""Folder trees that have no end: each folder is entered once, and depth and number of entries are bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.catalog.records import DirectoryRecords
from prefect_stagegate.errors import CacheError, CatalogError, SourceError
from prefect_stagegate.sources import Terms, open_source
from prefect_stagegate.sources.fsspec.fsspec_source import FsspecSource
from prefect_stagegate.sources.selection.globs import GlobFilter
from prefect_stagegate.sources.walk import DEEPEST, Walk
from prefect_stagegate.testing.sources import listed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "nas"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.csv").write_bytes(b"1,2\n")
    return folder


def test_folders_that_link_to_one_another_are_listed_once(root: Path) -> None:
    names = [f"d{number}" for number in range(10)]
    for name in names:
        (root / name).mkdir()
    (root / "d0" / "only.csv").touch()
    for first, other in permutations(names, 2):
        (root / first / other).symlink_to(f"../{other}")
    source = open_source(str(root))
    listing = source.list()
    assert sorted(obj.key for obj in islice(listing, 2)) == ["d0/only.csv", "data/a.csv"]
    with pytest.raises(SourceError, match=r"d0/d1 -> d1, .*, and 70 more") as caught:
        next(listing)
    assert "exclude" in caught.value.hint
    assert caught.value.object == "d0/d1"
    assert sorted(listed(source, GlobFilter(exclude=("d?/d?/",)))) == ["d0/only.csv", "data/a.csv"]


def test_a_second_way_to_a_folder_is_refused_by_name(root: Path) -> None:
    (root / "a-link").symlink_to("data")
    with pytest.raises(SourceError, match=r"listed already: a-link -> data .*exclude"):
        listed(open_source(str(root)))


def test_a_second_way_is_left_out_where_only_names_are_asked_for(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "a-link").symlink_to("data")
    source = open_source(str(root))
    assert list(listed(source, GlobFilter(("*.csv",)))) == ["data/a.csv"]
    assert "not followed: a-link -> data" in caplog.text
    for include in (("*.csv", "a-link/*.csv"), ("**/*.csv",)):
        with pytest.raises(SourceError, match="listed already: a-link -> data"):
            listed(source, GlobFilter(include))
    assert list(listed(source, GlobFilter(("*.csv", "data/*.json")))) == ["data/a.csv"]


def test_a_link_back_is_named_and_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "data" / "up").symlink_to("..")
    (root / "self").symlink_to(".")
    assert list(listed(open_source(str(root)))) == ["data/a.csv"]
    assert "data/up -> ., self -> ." in caplog.text or "self -> ., data/up -> ." in caplog.text


def test_the_other_way_is_taken_when_a_folder_is_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "latest").symlink_to("data")
    source = open_source(str(root))
    assert list(listed(source, GlobFilter(exclude=("data/",)))) == ["latest/a.csv"]
    assert list(listed(source, GlobFilter(include=("latest/**",)))) == ["latest/a.csv"]
    assert list(listed(source, GlobFilter(include=("latest/*.csv",), exclude=("*.json",)))) == ["latest/a.csv"]
    assert not caplog.text


def test_a_pattern_of_names_reaches_behind_folder_links(root: Path) -> None:
    (root / "data").rename(root / ".stored")
    (root / "latest").symlink_to(".stored")
    assert list(listed(open_source(str(root)), GlobFilter(("*.csv",), (".*/",)))) == ["latest/a.csv"]


def test_a_link_to_itself_is_named(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    (root / "there").symlink_to("back")
    (root / "back").symlink_to("there")
    with pytest.raises(SourceError, match=r"'back' leads to itself") as caught:
        listed(open_source(str(root)))
    assert "exclude" in caught.value.hint
    assert caught.value.object == "back"


@pytest.mark.parametrize("patterns", [("loop", "hang"), ("loop/", "hang/"), ("loop/**", "hang/**")])
def test_what_is_excluded_is_never_looked_at(
    root: Path, patterns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "loop").symlink_to("loop")
    (root / "hang").symlink_to("data")
    looked, follow = [], os.stat

    def noted(path: Any, **options: Any) -> os.stat_result:
        looked.append(os.fspath(path) if not isinstance(path, int) else "")
        return follow(path, **options)

    monkeypatch.setattr(os, "stat", noted)
    assert list(listed(open_source(str(root)), GlobFilter(exclude=patterns))) == ["data/a.csv"]
    assert not [path for path in looked if str(path).endswith(("hang", "loop"))]


def test_an_excluded_folder_is_never_entered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "tmp" / "deep").mkdir(parents=True)
    entered, scan = [], os.scandir

    def noted(path: Any) -> Any:
        entered.append(Path(path).name)
        return scan(path)

    monkeypatch.setattr(os, "scandir", noted)
    assert list(listed(open_source(str(root)), GlobFilter(exclude=("tmp/",)))) == ["data/a.csv"]
    assert "data" in entered
    assert not {"tmp", "deep"} & set(entered)


def test_folders_beyond_the_depth_are_named(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEEPEST + 10):
        os.mkdir("d", dir_fd=descriptor)
        above, descriptor = descriptor, os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(above)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    with pytest.raises(SourceError, match=f"deeper than {DEEPEST} names") as caught:
        list(open_source(str(tmp_path)).list())
    assert "exclude" in caught.value.hint
    assert list(open_source(str(tmp_path)).list(GlobFilter(exclude=("d/",)))) == []
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest's own cleaning ends at such a depth


def test_more_entries_than_a_listing_may_have_are_told(root: Path) -> None:
    for number in range(20):
        (root / "data" / f"{number}.csv").touch()
    assert len(listed(open_source(str(root), most=22))) == 21
    with pytest.raises(SourceError, match="more files and folders than 21") as caught:
        list(open_source(str(root), most=21).list())
    assert caught.value.object == "data/"
    assert "STAGEGATE_MAX_ENTRIES" in caught.value.hint
    assert "exclude" in caught.value.hint


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "nul\0"])
def test_a_name_that_no_file_has_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="no valid name of a file or folder"):
        Walk("sftp://nas/").key("folder/", name)


class Endless(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A server that has a folder `again` in every folder, and as many others as are told."""

    protocol = "endless"
    cachable = False
    names = ("again",)

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:  # noqa: ARG002
        """One file and the folders."""
        folder = self._strip_protocol(path).rstrip("/")
        entries = [{"name": f"{folder}/{name}", "size": 0, "type": "directory"} for name in self.names]
        return [*entries, {"name": f"{folder}/file", "size": 1, "type": "file"}]


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> type[Endless]:
    fsspec.register_implementation("endless", Endless, clobber=True)
    monkeypatch.setattr(Endless, "names", ("again",))
    return Endless


def test_folders_without_end_of_fsspec_are_told(endless: type[Endless]) -> None:
    with pytest.raises(SourceError, match=f"deeper than {DEEPEST} names"):
        list(FsspecSource("endless://data/", {}).list())
    objects = list(FsspecSource("endless://data/", {}).list(GlobFilter(exclude=("again/",))))
    assert [obj.key for obj in objects] == ["file"]


def test_folders_that_multiply_on_fsspec_are_told(endless: type[Endless], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endless, "names", ("a", "b", "c"))
    with pytest.raises(SourceError, match="more files and folders than 1000"):
        list(FsspecSource("endless://data/", {}, Terms(most=1000)).list())


@pytest.mark.parametrize("name", ["..", "."])
def test_a_folder_of_fsspec_with_no_name_is_told(
    endless: type[Endless], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endless, "names", (name,))
    with pytest.raises(SourceError, match="no valid name of a file or folder"):
        list(FsspecSource("endless://data/", {}).list())


def test_a_folder_of_fsspec_that_lies_elsewhere_is_told(
    endless: type[Endless], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endless, "ls", lambda *_, **__: [{"name": "elsewhere/again", "size": 0, "type": "directory"}])
    with pytest.raises(SourceError, match="lies outside of the listed folder"):
        list(FsspecSource("endless://data/", {}).list())


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder with folders in it, more than a call within a call could enter."""
    top = tmp_path / "deep"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 10):
        os.mkdir("d", dir_fd=descriptor)
        above, descriptor = descriptor, os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(above)
    os.close(descriptor)
    yield top
    subprocess.run(["rm", "-r", *tmp_path.iterdir()], check=True)  # pytest's own cleaning ends at such a depth


def test_a_cache_with_folders_too_deep_names_them(tmp_path: Path, deep: Path) -> None:
    cache = Cache.open(tmp_path / "cache")
    deep.rename(cache.layout.trash / "planted")
    with pytest.raises(CacheError, match="trash/planted holds folders in folders deeper"):
        collect(cache.layout)


def test_a_catalog_with_folders_too_deep_names_them(tmp_path: Path, deep: Path) -> None:
    records = DirectoryRecords(tmp_path / "catalog")
    records.create("datasets/things/one", b"1")
    deep.rename(tmp_path / "catalog/datasets/planted")
    with pytest.raises(CatalogError, match="holds folders in folders deeper"):
        list(records.keys("datasets/"))
