import hashlib

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Entry
from prefect_stagegate.model.manifest import Change, diff, path_problem, row, seal

A, B = "blake3:" + "a" * 64, "blake3:" + "b" * 64


def test_the_digest_is_sha256_over_the_rows_and_nothing_else() -> None:
    entries = [Entry("a.csv", 3, A), Entry("b/c.csv", 0, B)]
    lines = f"a.csv\x003\x00{A}\nb/c.csv\x000\x00{B}\n".encode()
    sealed = seal(entries)
    assert b"".join(map(row, entries)) == lines
    assert sealed.digest == "sha256:" + hashlib.sha256(lines).hexdigest()
    assert (sealed.files, sealed.bytes) == (2, 3)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a/..",
        "a\n",
        "a\nb",
        "a\x00b",
        "\x7f",
        "\udc80",
        "x" * 256,
        "y/" * 2000 + "z",
    ],
)
def test_hostile_paths_are_refused(path: str) -> None:
    assert path_problem(path)
    with pytest.raises(UsageError):
        seal([Entry(path, 1, A)])


@pytest.mark.parametrize("path", ["a", "a/b-c_d.parquet", "a b/ü.parquet", "...", "a\\b", "-rf", "x" * 255])
def test_odd_but_harmless_paths_stand(path: str) -> None:
    assert path_problem(path) == ""


def test_a_file_that_another_entry_needs_as_a_folder_is_named() -> None:
    entries = [Entry("a", 1, A), Entry("a-b", 1, A), Entry("a/b", 1, A)]
    with pytest.raises(UsageError, match="'a' is a file, and 'a/b' needs it to be a folder"):
        seal(entries)


def test_entries_out_of_order_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="not sorted"):
        seal([Entry("b", 1, A), Entry("a", 1, A)])
    with pytest.raises(ValueError, match="not sorted"):
        seal([Entry("a", 1, A), Entry("a", 1, A)])


def test_diff_tells_added_removed_and_changed_entries_in_order() -> None:
    old = [Entry("a", 1, A), Entry("b", 1, A), Entry("d", 1, A)]
    new = [Entry("a", 1, A), Entry("b", 1, B), Entry("c", 2, A)]
    assert [(change.change, change.path) for change in diff(old, new)] == [
        (Change.CHANGED, "b"),
        (Change.ADDED, "c"),
        (Change.REMOVED, "d"),
    ]
