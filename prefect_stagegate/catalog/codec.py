"""Writes dataclasses as canonical JSON, and reads and validates it."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from prefect_stagegate.catalog.keys import LARGEST, dataset_of
from prefect_stagegate.errors import CatalogError, CorruptRecord
from prefect_stagegate.units import count_text

T = TypeVar("T")


def encode(value: Any, most: int = LARGEST) -> bytes:
    """Write a dataclass, or a list of them, as JSON with sorted keys; `CatalogError` where it has over `most` bytes."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE, default=str)
    if len(data) > most:
        raise CatalogError(f"A record of {count_text(len(data), 'byte')} can't be written: readers take {most:,}")
    return data


def decode(kind: type[T], data: bytes, key: str) -> T:
    """Read what `encode` wrote.

    `kind` is the dataclass, or `list[…]` of it. Errors name `key`.

    Raises:
        CorruptRecord: The record isn't JSON, or its fields aren't those of `kind`.
    """
    try:
        value: T = _adapter(cast("Any", kind)).validate_json(data)
    except ValidationError as error:
        # One is enough: a damaged record may have thousands.
        first = error.errors(include_url=False)[0]
        raise CorruptRecord(
            f"The catalog's record {key} can't be read: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="Restore it from a backup, or use the release that wrote it.",
            dataset=dataset_of(key),
        ) from error
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
