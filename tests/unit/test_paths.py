"""Paths that can't stand beside each other are found while a source is listed, whatever order it lists in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache, Layout
from prefect_stagegate.cache.layout import TAG
from prefect_stagegate.cache.leases import folds_case
from prefect_stagegate.errors import CacheError, SourceUnavailable, UsageError
from prefect_stagegate.jobs.staging.temporary_tables import KNOWN_FOLDERS, Paths
from prefect_stagegate.model import Action, Entry, Pin, PlannedObject, SourceObject
from prefect_stagegate.model.manifest import check_objects
from prefect_stagegate.sources.local.local_source import FileSource

URLS = ("s3://lake/", "file:///mnt/nas/")
NFC, NFD = "caf\u00e9", "cafe\u0301"


def wanted(path: str, source: int = 0, key: str = "") -> PlannedObject:
    return PlannedObject(path, SourceObject(key or path, 3, Pin("etag", "e", "strong")), source, Action.FETCH)


def test_two_objects_of_one_path_are_named_across_batches() -> None:
    within, across = Paths(URLS), Paths(URLS)

    with pytest.raises(UsageError, match=r"'b': 'b' of s3://lake/ and 'x/b' of file:///mnt/nas/"):
        within.take([wanted("a"), wanted("b"), wanted("b", 1, "x/b")])
    across.take([wanted("a"), wanted("b")])
    with pytest.raises(UsageError, match=r"'b': 'b' of s3://lake/ and 'x/b' of file:///mnt/nas/"):
        across.take([wanted("c"), wanted("b", 1, "x/b")])


def test_a_source_that_lists_an_object_twice_is_told() -> None:
    with pytest.raises(SourceUnavailable, match="The listing names 'a' twice"):
        Paths(URLS).take([wanted("a"), wanted("a")])


def take_all(batches: Sequence[Sequence[str]]) -> None:
    taken = Paths(URLS)
    for batch in batches:
        taken.take([wanted(path) for path in batch])


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("paths", list(permutations(["a", "a-b", "a/b/c"])))
def test_a_file_where_another_object_needs_a_folder_is_named(paths: tuple[str, ...], together: bool) -> None:
    batches = [paths] if together else [(path,) for path in paths]
    with pytest.raises(UsageError, match=r"'a' of s3://lake/ is a file, and 'a/b/c' of s3://lake/ needs it to be a"):
        take_all(batches)


@pytest.mark.parametrize(("first", "second"), [("", ""), ("", "/x"), ("/x", "/x"), ("/x", "/y")])
def test_two_spellings_of_a_letter_are_one_name(first: str, second: str) -> None:
    for spelling, other in ((NFC + first, NFD + second), (NFD + second, NFC + first)):
        taken = Paths(URLS)
        taken.take([wanted(spelling)])
        with pytest.raises(UsageError) as caught:
            taken.take([wanted(other)])
        assert "caf" in str(caught.value)
        if bool(first) == bool(second):
            assert all(written in str(caught.value) for written in (r"caf\xe9", r"cafe\u0301"))


def test_case_matters_only_where_the_volume_folds_it() -> None:
    Paths(URLS).take([wanted("Data/a"), wanted("data/A"), wanted("data/a")])
    for other in ("DATA/b", "data/A"):
        folding = Paths(URLS, folds_case=True)
        folding.take([wanted("data/a")])
        with pytest.raises(UsageError, match="differ only in case"):
            folding.take([wanted(other)])


def test_many_objects_share_folders_however_many_there_are() -> None:
    taken = Paths(URLS)
    for start in range(0, 3 * KNOWN_FOLDERS, 500):
        taken.take([wanted(f"{number % 7}/{number}/x") for number in range(start, start + 500)])
        taken.take([wanted(f"{number % 7}/{number}/y") for number in range(start, start + 500)])
    with pytest.raises(UsageError, match="needs it to be a folder"):
        taken.take([wanted("3/3")])


def test_a_volume_that_folds_case_is_told_by_the_cache_s_tag(tmp_path: Path) -> None:
    layout = Layout.open(tmp_path / "cache")
    assert not folds_case(layout.root)
    (layout.root / TAG.lower()).hardlink_to(layout.root / TAG)  # as if the tag answered to this name too
    assert folds_case(layout.root)


def test_view_names_the_entry_that_collides_on_its_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "prefect_stagegate.cache.views._has_this_name", lambda _: False
    )  # as where its folder lists `A`
    cache = Cache.open(tmp_path / "cache")
    entries = [Entry("a", 1, "blake3:" + letter * 64) for letter in "ab"]  # what `A` and `a` are where case is folded
    for entry in entries:
        cache.layout.blob(entry.digest).parent.mkdir()
        cache.layout.blob(entry.digest).write_text(entry.digest[-1])
    with pytest.raises(CacheError, match="'a' can't be in a view: the volume treats it as the name of another"):
        cache.views.publish("things", "sha256:" + "f" * 64, entries)
    assert list(cache.views.all()) == []


def test_folders_are_walked_however_deep_they_are(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 10
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        above, descriptor = descriptor, os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(above)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    (obj,) = FileSource(str(tmp_path)).list()
    with pytest.raises(UsageError, match="deeper than 256 names"):
        check_objects([(obj.key, obj, "file:///")])
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest's own cleaning ends at such a depth
