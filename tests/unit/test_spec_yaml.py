"""Reading YAML with its lines: what is taken, what is refused, and that nothing makes it run away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from prefect_stagegate.spec.yamltree import DEEPEST, NotYaml, read_tree


def values_of(text: str) -> Any:
    values, _, flaws = read_tree(text)
    assert flaws == []
    return values


def test_every_key_and_item_has_its_line() -> None:
    _, lines, _ = read_tree("a: 1\nb:\n  - c: 2\n    d: {e: 3,\n         f: 4}\n  - 5\n")

    assert lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 0, "c"): 3,
        ("b", 0, "d"): 4,
        ("b", 0, "d", "e"): 4,
        ("b", 0, "d", "f"): 5,
        ("b", 1): 6,
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!int 12", 12),
        ("yes", "yes"),
        ("NO", "NO"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2013-01-01", "2013-01-01"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_scalars_are_read_as_editors_read_them(written: str, value: object) -> None:
    read = values_of(f"key: {written}")["key"]

    assert read == value
    assert type(read) is type(value)


def test_keys_are_always_text() -> None:
    assert values_of("{no: 1, 2013: 2, null: 3, 'x': 4}") == {"no": 1, "2013": 2, "null": 3, "x": 4}


def test_aliases_and_merge_keys_are_understood() -> None:
    values = values_of(
        """
        base: &base {a: 1, b: 2}
        more: &more {b: 3, c: 4}
        one: {<<: *base, b: 9}
        two: {<<: [*base, *more]}
        list: [*base]
        """
    )

    assert values["one"] == {"a": 1, "b": 9}
    assert values["two"] == {"a": 1, "b": 2, "c": 4}
    assert values["list"] == [{"a": 1, "b": 2}]


def test_a_key_that_is_given_twice_is_told_and_the_first_is_kept() -> None:
    values, lines, flaws = read_tree("a: {x: 1}\nb: 2\na:\n  x: 3\n  x: 4\n")

    assert values == {"a": {"x": 1}, "b": 2}
    assert lines[("a", "x")] == 1
    assert [(flaw.loc[:1], flaw.line, flaw.message) for flaw in flaws] == [
        (("a",), 3, "is given twice; line 1 has it already"),
        (("a",), 5, "is given twice; line 4 has it already"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (
            "a: !!python/object/apply:os.system [ls]",
            1,
            "the tag !!python/object/apply:os.system can't be used in a spec",
        ),
        ("a:\n- !!binary aGk=", 2, "the tag !!binary can't be used in a spec"),
        ("a: !secret x", 1, "the tag !secret can't be used in a spec"),
        ("a: !!int x", 1, "the tag !!int can't be used in a spec"),
        ("? [a, b]\n: 1", 1, "has a key that is not text"),
        ("a: {<<: 7}", 1, "must be a mapping, or a list of mappings"),
    ],
)
def test_what_a_spec_has_no_use_for_is_told(text: str, line: int, what: str) -> None:
    _, _, flaws = read_tree(text)

    assert [(flaw.line, flaw.message) for flaw in flaws] == [(line, what)]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "is empty"),
        ("# only words\n", 1, "is empty"),
        ("a: [1\n", 2, "not valid YAML: expected ',' or ']', but got '<stream end>' (column 1)"),
        ("a: 1\nb: c: d", 2, "not valid YAML: mapping values are not allowed here (column 5)"),
        ("a:\n\tb: 1", 2, "not valid YAML: found character '\\t' that cannot start any token (column 1)"),
        ("a: 'open", 1, "not valid YAML: found unexpected end of stream (column 9)"),
        ("a: 1\n---\nb: 2", 2, "a second document starts here; write one document a file"),
        ("a: 1\nb: \x07", 2, "has the character U+0007, which YAML doesn't allow"),
        ("a: *b", 1, "the alias *b has no anchor before it"),
        ("a: &a\n  b: *a", 2, "the alias *a refers to a value that contains it"),
        ("a: &a {<<: *a}", 1, "the alias *a refers to a value that contains it"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(NotYaml) as caught:
        read_tree(text)

    assert (caught.value.line, caught.value.message) == (line, what)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_a_deep_document_is_refused_before_it_is_read(opening: str) -> None:
    with pytest.raises(NotYaml, match=f"is nested deeper than {DEEPEST} levels"):
        read_tree(opening * 100_000)


def test_a_billion_laughs_are_not_laughed() -> None:
    text = "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    start = time.monotonic()

    with pytest.raises(NotYaml, match="has more than 200000 values once its aliases are expanded") as caught:
        read_tree(text)

    assert caught.value.line == 6
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("use", ["[{0}]", "{{<<: [{0}]}}"])
def test_many_aliases_of_a_large_value_are_refused(use: str) -> None:
    text = f"a: &a {{text: {'x' * 10_000}}}\nb: " + use.format(", ".join(["*a"] * 2_000))

    with pytest.raises(NotYaml, match="once its aliases are expanded"):
        read_tree(text)
