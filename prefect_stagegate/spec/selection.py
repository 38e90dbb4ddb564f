"""The types of values that select a source's objects: moments, shares, conditions, expressions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from prefect_stagegate.patterns import Expression
from prefect_stagegate.units import DURATION_PATTERN, format_duration, parse_duration, parse_share

COMPARISON = re.compile(r"(>=|<=|>|<)(.+)", re.DOTALL)
"""One comparison of a partition's condition: the operator and what is compared with."""
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].+)?$"
_SHARE = r"^([0-9]{1,9}/[0-9]{1,9}|[0-9]{1,3}(\.[0-9]{1,6})?%)$"
_DECIMAL = re.compile(r"0\.[0-9]{1,6}|1(\.0)?")


def _moment(value: object) -> timedelta | datetime:
    if isinstance(value, timedelta | datetime):
        return value
    if isinstance(value, str) and re.match(DURATION_PATTERN, value):
        return parse_duration(value)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError(f"must be an age as in 30d, or a date as in 2013-06-01, not {value!r}")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _moment_text(value: timedelta | datetime) -> str:
    return format_duration(value) if isinstance(value, timedelta) else value.isoformat()


def _share(value: object) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        return parse_share(value)
    if isinstance(value, bool) or not _DECIMAL.fullmatch(str(value)) or not Fraction(str(value)):
        raise ValueError(f"must be a share as in 10%, 1/10 or 0.1, up to all, not {value!r}")
    # By way of text: the float 0.1 is not quite 1/10.
    return Fraction(str(value))


def _conditions(value: object) -> object:
    conditions = [value] if isinstance(value, str | int) else value
    if not isinstance(conditions, list | tuple) or not conditions:
        raise ValueError(f"must be a value or a list of them, not {value!r}")
    for condition in conditions:
        if isinstance(condition, bool) or not isinstance(condition, str | int) or condition == "":
            raise ValueError(f"must hold values, or comparisons as in '>=2013-06', not {condition!r}")
        parts = str(condition).split(",")
        if any(part[:1] in ("<", ">") for part in parts) and not all(map(COMPARISON.fullmatch, parts)):
            raise ValueError(
                f"{condition!r} is no comparison: write one as in '>=2013-06', several with commas between"
            )
    # As text, because the names of folders are: YAML reads `year: 2013` as a number.
    return tuple(map(str, conditions))


def _expression(value: str) -> str:
    try:
        Expression(value)
    except ValueError as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


def _any_of(*kinds: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(kinds)})


Moment = Annotated[
    timedelta | datetime,
    BeforeValidator(_moment),
    PlainSerializer(_moment_text, return_type=str, when_used="json"),
    _any_of({"type": "string", "pattern": DURATION_PATTERN}, {"type": "string", "pattern": _DATE}),
]
"""An age such as `30d`, or an aware moment, written as a date or time in ISO 8601."""
Share = Annotated[
    Fraction,
    BeforeValidator(_share),
    PlainSerializer(lambda share: f"{share.numerator}/{share.denominator}", return_type=str, when_used="json"),
    _any_of({"type": "string", "pattern": _SHARE}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
]
"""More than nothing, at most all: `10%`, `1/10` or `0.1`."""
MostTaken = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
"""At most so many: they are in memory until the listing ends."""
_CONDITION: dict[str, Any] = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer"}]}
Conditions = Annotated[
    tuple[str, ...],
    BeforeValidator(_conditions),
    _any_of(*_CONDITION["anyOf"], {"type": "array", "items": _CONDITION, "minItems": 1}),
]
"""Values of a partition, or comparisons with them; one of them must hold."""
RegularExpression = Annotated[str, AfterValidator(_expression), Field(min_length=1)]
