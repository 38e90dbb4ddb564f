"""Patterns that users write end in a bounded time, whatever they are and whatever they are tried on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.patterns import Expression, character_class, glob_matcher, matcher
from prefect_stagegate.sources.selection.globs import selected
from prefect_stagegate.sources.selection.object_selection import Selection
from prefect_stagegate.spec import load_spec

LONG = "a" * 250


@contextmanager
def at_once() -> Iterator[None]:
    """Fail when the block takes longer than any machine needs for a match in linear time."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)+b", "(a|a?)+b", ".*.*.*.*.*.*.*b"])
def test_a_rename_that_would_never_end_ends(pattern: str) -> None:
    spec = load_spec(
        {"stagegate": 1, "dataset": "x", "sources": [{"url": "s3://l/", "rename": [{"from": pattern, "to": "b"}]}]},
        known_checks={},
    )
    shape = Selection(spec.sources[0], datetime.now(UTC))
    with at_once():
        assert shape.path(LONG) == LONG
        assert shape.path(LONG + "b") == "b"


@pytest.mark.parametrize(
    "glob", ["*a*a*a*a*a*a*a*b", "**/**/**/*a*a*a*b", "{a,aa}" * 20 + "b", "{*a,*aa}{*a,*aa}{*a,*aa}b"]
)
@pytest.mark.parametrize("matches", [lambda glob: lambda key: selected(key, [glob]), matcher], ids=["source", "table"])
def test_a_glob_that_would_never_end_ends(glob: str, matches: Callable[[str], Callable[[str], bool]]) -> None:
    with at_once():
        assert not matches(glob)(LONG)


def test_globs_of_many_stars_match_as_those_of_few() -> None:
    globs = {"*a*b*": "cacbc", "**/x/**/*.csv": "u/x/v/w/a.csv", "*-*-*.é": "2013-01-\udcff.é", "[!b]*[a-c]*?*": "abcd"}
    assert [glob for glob, key in globs.items() if not selected(key, [glob])] == []
    others = {"*a*b*": "cbc/a", "**/x/**/*.csv": "u/v/a.csv", "*-*-*.é": "2013-01.é", "[!a]*[a-c]*?*": "abcd"}
    assert [glob for glob, key in others.items() if selected(key, [glob])] == []


@given(st.text("ab*?/[]!-{},.", max_size=8), st.text("ab/-.*é\udcff", max_size=8))
def test_both_engines_say_the_same_of_a_glob(inner: str, text: str) -> None:
    try:
        expression = f"{character_class(inner)}*[^/]*b"
    except ValueError:
        return
    assert (
        glob_matcher(expression, "")(text)
        == glob_matcher(expression, "***")(text)
        == Expression(f"(?s:{expression})").matches(text)
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?=a)b", "look-around and back-references"),
        (r"(?<!a)b", "look-around and back-references"),
        (r"(a)\1", "look-around and back-references"),
        ("(a", "missing"),
        ("a{2000}", "invalid repetition size"),
        ("a\udcff", "not valid Unicode"),
    ],
)
def test_what_no_bound_holds_for_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Expression(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "template"),
    [
        (r"raw/(.*)\.PARQUET", "raw/a/b.PARQUET", r"\1.parquet"),
        (r"(?P<year>\d+)-(?P<month>\d+)", "2013-01", r"\g<month>/\g<year>\\\2\g<0>"),
        ("(a)|(b)", "b", r"\1-\2\t\n"),
        ("(é+)(.)", "éé\U0001f600", r"\2\1"),
        ("(a)" * 11, "a" * 11, r"\11\1\g<10>"),
        ("a(.*)", "a\udcff", r"\1b\101\0"),
        ("a+", "b", "x"),
    ],
)
def test_templates_are_filled_as_python_fills_them(pattern: str, text: str, template: str) -> None:
    match = re.fullmatch(pattern, text)
    assert Expression(pattern).rewrite(text, template) == (match.expand(template) if match else None)
