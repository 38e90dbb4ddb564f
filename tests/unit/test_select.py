"""Which keys a spec's globs let in."""

from __future__ import annotations

import pytest

from prefect_stagegate.errors import UsageError
from prefect_stagegate.sources.selection.globs import selected


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.parquet", ["a.parquet", "x/y/a.parquet", ".parquet"], ["a.parquet.tmp", "a.parquet/b"]),
        ("a.csv", ["a.csv", "x/a.csv"], ["ba.csv", "a.csv/b"]),
        ("x/*", ["x/a"], ["a", "x/y/a", "z/x/a"]),
        ("/a.csv", ["a.csv"], ["x/a.csv"]),
        ("x/**", ["x/a", "x/y/a"], ["x", "a/x/b"]),
        ("**/a", ["a", "x/a", "x/y/a"], ["ba", "a/b"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["a", "x/ya"]),
        ("**", ["a", "x/y"], []),
        ("tmp/", ["tmp/a", "x/tmp/y/a"], ["tmp", "tmpa/b"]),
        ("/x/tmp/", ["x/tmp/a"], ["y/x/tmp/a", "x/tmp"]),
        ("a?.csv", ["ab.csv"], ["a.csv", "abc.csv"]),
        ("x?y", [], ["x/y"]),
        ("[ab]*", ["a1", "b"], ["c", "A"]),
        ("[!ab]", ["c", "!"], ["a", "x/"]),
        ("x[!y]z", ["xaz"], ["x/z", "xyz"]),
        ("[a-c].csv", ["b.csv"], ["d.csv", "-.csv"]),
        ("*.{csv,parquet}", ["a.csv", "x/a.parquet"], ["a.json", "a.csv,parquet"]),
        ("2013-{0[1-3],12}.csv", ["2013-02.csv", "2013-12.csv"], ["2013-04.csv"]),
        ("a+b(1).csv", ["a+b(1).csv"], ["aab1.csv"]),
        (r"\*.csv", ["*.csv"], ["a.csv"]),
        ("[", ["["], ["a"]),
        ("ü*", ["über/über", "ü"], ["u"]),
        ("a\nb", ["a\nb"], ["a", "b"]),
    ],
)
def test_patterns(pattern: str, taken: list[str], left: list[str]) -> None:
    assert [key for key in taken + left if selected(key, [pattern])] == taken


def test_without_patterns_everything_is_taken() -> None:
    assert selected("any/thing")


def test_exclude_wins() -> None:
    assert not selected("tmp/a.csv", ["*.csv"], ["tmp/"])
    assert selected("x/a.csv", ["*.csv", "*.json"], ["tmp/"])


@pytest.mark.parametrize("pattern", ["", "/", "[z-a]"])
def test_a_pattern_that_can_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        selected("a", [pattern])
