"""Paths that can't stand beside each other are found while a source is listed, whatever order it lists in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Action, Pin, PlannedObject, SourceObject
from prefect_stagegate.operations.paths import KNOWN_FOLDERS, Paths

URLS = ("s3://lake/", "file:///mnt/nas/")
NFC, NFD = "caf\u00e9", "cafe\u0301"


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
def test_two_ways_to_write_a_letter_are_one_name_for_files_and_folders(first: str, second: str) -> None:
    for one, other in ((NFC + first, NFD + second), (NFD + second, NFC + first)):
        taken = Paths(URLS)
        taken.take([wanted(one)])
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
