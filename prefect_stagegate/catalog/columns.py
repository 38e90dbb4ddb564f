"""Converts Python values to Arrow columns and back, by the columns' buffers.

Arrow's own conversions import pandas, which would cost every command a third of a second.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa

NUMBERS: dict[Any, Any] = {pa.int64(): "q", pa.float64(): "d"}
"""The array module's type code for each numeric type; all other columns are texts."""


def to_column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """A column of numbers or texts, without nulls."""
    if kind in NUMBERS:
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array(NUMBERS[kind], values))])
    texts = [text.encode() for text in values]
    ends = array("i", accumulate(map(len, texts), initial=0))
    return pa.Array.from_buffers(kind, len(texts), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])


def to_values(column: pa.Array) -> list[Any]:
    """The values of a column of numbers or texts, without nulls."""
    first, last = column.offset, column.offset + len(column)
    if column.type in NUMBERS:
        numbers: list[Any] = memoryview(column.buffers()[1]).cast("B").cast(NUMBERS[column.type])[first:last].tolist()
        return numbers
    _, ends, texts = column.buffers()
    bounds = memoryview(ends).cast("B").cast("i")[first : last + 1]
    data = memoryview(texts or b"")
    return [str(data[start:end], "utf-8") for start, end in pairwise(bounds)]
