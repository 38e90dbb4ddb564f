"""The cache's tree: how it is made, and what is refused."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.layout import Layout, cache_error, explained
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.errors import CacheError, NoSpace


def test_a_new_cache_is_private_marked_and_complete(tmp_path: Path) -> None:
    layout = Layout.open(tmp_path / "a" / "cache")
    assert layout.root.stat().st_mode & 0o777 == 0o700
    assert (layout.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert all(folder.is_dir() for folder in (layout.blobs, layout.ingest, layout.views, layout.refs, layout.leases))


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    root = Layout.open(tmp_path / "cache").root
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    Layout.open(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("name", ["blobs", "ingest", "views", "refs", "leases", "trash"])
def test_a_folder_that_a_restore_left_out_is_made_again(tmp_path: Path, name: str) -> None:
    root = Layout.open(tmp_path / "cache").root
    (root / name).rmdir()
    Layout.open(root, create=False)
    assert (root / name).stat().st_mode & 0o7777 == 0o700
    root.chmod(0o2770)
    (root / name).rmdir()
    Layout.open(root)
    assert (root / name).stat().st_mode & 0o7777 == 0o2770


def test_a_lease_is_held_in_a_folder_that_is_made_again(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache")
    cache.layout.leases.rmdir()
    assert cache.leases.live() == []
    with cache.leases.hold(LeaseKind.READER, "things", "sha256:" + "0" * 64):
        assert len(cache.leases.live()) == 1


def test_many_may_make_one_cache_at_once(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def make() -> None:
        try:
            Layout.open(tmp_path / "cache")
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CacheError, match=r"thesis\.tex"):
        Layout.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    root = Layout.open(tmp_path / "cache").root
    (root / "format").write_text("stagegate-cache 2\n")
    with pytest.raises(CacheError, match=r"another format than .stagegate-cache 1"):
        Layout.open(root)


def test_second_cache_of_an_earlier_node_is_a_cache_of_its_own(tmp_path: Path) -> None:
    root = Layout.open(tmp_path / "cache").root
    (root / "volume").write_text("the id of the node's first cache")
    assert len(Layout.open(root).identity()) == 32


def test_a_cache_is_not_made_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="There is no cache"):
        Layout.open(tmp_path / "cache", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_path_through_a_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError) as caught:
        Layout.open(tmp_path / "file" / "cache")
    assert "--cache" in caught.value.hint


@pytest.mark.parametrize(
    "digest", ["", "blake3:", "sha256:" + "0" * 64, "blake3:" + "0" * 63, "blake3:../../etc/passwd"]
)
def test_only_a_digest_becomes_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(CacheError):
        Layout(tmp_path).blob(digest)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EROFS, CacheError), (errno.EIO, CacheError)],
)
def test_each_failure_of_a_volume_says_what_to_do(number: int, kind: type[CacheError]) -> None:
    error = cache_error(OSError(number, os.strerror(number)), "store the blob", Path("/cache"))
    assert type(error) is kind
    assert error.hint


def test_explained_keeps_the_cause() -> None:
    with pytest.raises(CacheError) as caught, explained("read", Path("/cache")):
        raise PermissionError(errno.EACCES, "no")
    assert isinstance(caught.value.__cause__, PermissionError)
