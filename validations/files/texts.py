"""Probes of text: UTF-8, and JSON by lines."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import IO

from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, nonempty

BLOCK = 1 << 20
MOST_LINE = 64 << 20
"""Bytes of one line of JSON."""


def text(path: Path) -> Facts:
    """UTF-8 without the character NUL. Reads the whole file."""
    nonempty(path)
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    with path.open("rb") as file:
        while True:
            block = file.read(BLOCK)
            if (nul := block.find(0)) >= 0:
                raise UnreadableFile(f"it has the character NUL at byte {position + nul:,}")
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise UnreadableFile(f"it is no UTF-8 near byte {position + error.start:,}: {error.reason}") from error
            if not block:
                return Facts()
            position += len(block)


def jsonl(path: Path) -> Facts:
    """Every line is a JSON value in UTF-8, of 64 MiB at most. Reads the whole file."""
    nonempty(path)
    with path.open("rb") as file:
        check_json_lines(file)
    return Facts()


def check_json_lines(file: IO[bytes], *, objects: bool = False) -> None:
    """Refuse a file that has a line which is no JSON value, or with `objects` one that is neither blank nor an object.

    Raises:
        UnreadableFile: It names the first such line.
    """
    number = 0
    while line := file.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise UnreadableFile(f"line {number:,} is longer than {count_text(MOST_LINE, 'byte')}")
        if objects and not line.strip():
            continue
        if not isinstance(_parsed(number, line), dict) and objects:
            raise UnreadableFile(f"line {number:,} is no JSON object")


def _parsed(number: int, line: bytes) -> object:
    try:
        return json.loads(line.decode(), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UnreadableFile(f"line {number:,} is no JSON value: {error.msg} at column {error.colno:,}") from error
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"line {number:,} is no UTF-8: {error.reason} at byte {error.start + 1:,}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"line {number:,} is no JSON value: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
