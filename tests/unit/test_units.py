"""Durations and sizes as people write them, also as kinds of fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError

from prefect_stagegate.spec import ByteSize, Duration
from prefect_stagegate.units import format_duration, format_size, parse_duration, parse_size


class Limits(BaseModel):
    age: Duration = Field(default=timedelta(hours=12), gt=timedelta(0))
    room: ByteSize = Field(default=8 * 2**20, ge=1024)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("1w", 604_800),
        ("0s", 0),
        ("36500d", 3_153_600_000),
    ],
)
def test_durations_are_whole_numbers_with_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "12", "h", "1.5h", "-1h", "12 h", "12H", "1h30m", "12y", "12h\n", "٣h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration: write .* as in 12h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "999999999w"])
def test_a_duration_has_an_end(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than 36500d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1B", 1),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("8MiB", 8_388_608),
        ("1.5GB", 1_500_000_000),
        ("0.5 TiB", 2**39),
    ],
)
def test_sizes_are_bytes_with_decimal_or_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "MiB", "8 mib", "8M", "-1MB", "1e3", "8MiB\n", "1,5GB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size: write .* as in 8MiB"):
        parse_size(text)


def test_a_part_of_a_byte_is_no_size() -> None:
    with pytest.raises(ValueError, match=r"is not a whole number of bytes"):
        parse_size("0.3B")


def test_fields_are_read_and_written_in_the_same_words() -> None:
    limits = Limits.model_validate({"age": "720m", "room": "1GiB"})

    assert limits == Limits(age=timedelta(hours=12), room=2**30)
    assert limits.model_dump(mode="json") == {"age": "12h", "room": "1GiB"}
    assert Limits.model_validate(limits.model_dump(mode="json")) == limits


@pytest.mark.parametrize(
    "values",
    [
        {"age": 12},
        {"age": None},
        {"age": "0s"},
        {"age": timedelta(milliseconds=-1)},
        {"room": True},
        {"room": 1023},
        {"room": -1},
    ],
)
def test_fields_refuse_bad_or_unbounded_durations_and_sizes(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(values)


NOUNS = (
    *("bytes", "checks", "columns", "decisions", "entries", "expectations", "files", "findings", "GPUs", "objects"),
    *("partitions", "pins", "problems", "rows", "sources", "tables", "values", "versions"),
)
PLURAL = re.compile(rf"^ (?:more )?(?:{'|'.join(NOUNS)})\b")
LOGGED = re.compile(rf"%d (?:{'|'.join(NOUNS)})\b")
ROOT = Path(__file__).parents[2]


def plurals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each number in a text that is followed by a noun in the plural, whatever the number is: line and noun."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in pairwise(node.values):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    match = PLURAL.match(str(text.value))
                    if match and not ast.unparse(value.value).split(".")[0].isupper():  # a constant is more than one
                        yield node.lineno, match[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (match := LOGGED.search(node.value)):
            yield node.lineno, match[0]


@pytest.mark.parametrize("folder", ["prefect_stagegate", "tasks", "flows", "validations", "deployments"])
def test_one_of_something_is_no_plural(folder: str) -> None:
    misses = [
        f"{file.relative_to(ROOT)}:{line}:{noun}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        if "testing" not in file.parts and not any(parent.is_symlink() for parent in file.parents)
        for line, noun in plurals(ast.parse(file.read_text()))
    ]
    assert not misses, "use units.count_text: " + " ".join(misses)
