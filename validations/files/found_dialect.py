"""Find how the text files of a table are written, from the beginnings of all of them."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from json import dumps
from typing import Any

import pyarrow as pa

from prefect_stagegate.spec.csv_dialect import AS_USUAL, ISO_DATE, CsvSpec
from prefect_stagegate.validations.files.text_values import DATE, FLOAT, INSTANT, MOMENT, TEXT, fits

SAMPLE_BYTES = 65_536
"""Bytes of each file that are looked at."""
_ORDERS = ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%d{0}%m{0}%y", "%m{0}%d{0}%y")
DATES = (*(order.format(mark) for mark in "/.-" for order in _ORDERS), "%Y/%m/%d", "%d-%b-%Y")
TIMES = tuple(f"{day} {clock}" for day in (ISO_DATE, *DATES) for clock in ("%H:%M", "%H:%M:%S"))


def find_dialect(samples: Iterable[bytes], usual_separator: str) -> tuple[dict[str, Any], str]:
    """Find what a spec must say under `csv:`, and what it must ask a person.

    Args:
        samples: The beginning of each file, `SAMPLE_BYTES` at most, as it lies there.
        usual_separator: What separates columns by the files' names.

    Returns:
        The settings that are no defaults; and a question where no date tells its day from its month, else nothing.
    """
    settings: dict[str, Any] = {}
    texts = [text for sample in samples if (text := _text(sample)).strip()]
    heads = [text.partition("\n")[0] for text in texts]
    marks = {mark: min((head.count(mark) for head in heads), default=0) for mark in (usual_separator, ";", "\t", "|")}
    mark = max(marks, key=lambda mark: marks[mark])
    if mark != usual_separator:
        settings["separator"] = mark
    columns = [column for text in texts for column in _columns(text, mark)]
    with_commas = CsvSpec(decimal=",")
    if any(fits(column, FLOAT, with_commas) and not fits(column, FLOAT, AS_USUAL.csv) for column in columns):
        settings["decimal"] = ","
    for key, kind, formats in (("dates", DATE, DATES), ("times", MOMENT, TIMES)):
        known = [each for each in formats if key == "dates" or each.startswith(settings.get("dates", ""))]
        found = _formats(columns, key, kind, known)
        if len(found) > 1:
            either = ", or ".join(map(dumps, found))
            return settings, f"No date tells its day from its month. Say which, as csv: {{{key}: …}}: {either}"
        if found:
            settings[key] = found[0]
    return settings, ""


def _text(sample: bytes) -> str:
    """The whole lines of a sample."""
    with suppress(zlib.error):
        sample = zlib.decompressobj(31).decompress(sample, SAMPLE_BYTES)
    text = sample.decode("utf-8-sig", errors="replace")
    return text if len(sample) < SAMPLE_BYTES else text[: text.rfind("\n") + 1]


def _columns(text: str, mark: str) -> Iterator[pa.StringArray]:
    """The columns of a text that have a value."""
    with suppress(csv.Error):
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if row]
        for values in zip(*(row for row in rows[1:] if len(row) == len(rows[0])), strict=True):
            column = pa.array([None if value in AS_USUAL.csv.null else value for value in values], TEXT)
            if column.null_count < len(column):
                yield column


def _formats(columns: Sequence[pa.StringArray], key: str, kind: pa.DataType, formats: Sequence[str]) -> list[str]:
    """The formats that fit each column that any of them fits; none where a column is of ISO 8601."""
    days = [fits(column, DATE, AS_USUAL.csv) for column in columns]
    times = [any(fits(column, each, AS_USUAL.csv) for each in (MOMENT, INSTANT)) for column in columns]
    if any(days) if kind == DATE else any(time and not day for day, time in zip(days, times, strict=True)):
        return []
    fitting = [{each for each in formats if fits(column, kind, CsvSpec(**{key: each}))} for column in columns]
    common = set.intersection(*kept) if (kept := [each for each in fitting if each]) else set()
    return [each for each in formats if each in common]
