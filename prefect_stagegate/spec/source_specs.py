"""A spec's sources: their URLs, which of their objects are taken, and under which paths."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from prefect_stagegate.model.objects import Rehash
from prefect_stagegate.patterns import Expression
from prefect_stagegate.spec.fields import ByteSize, CredentialsName, Glob, Options, Prefix, SourceUrl, SpecModel, Text
from prefect_stagegate.units import DURATION_PATTERN, format_duration, parse_duration, parse_share


class MirrorSpec(SpecModel):
    """Another place with the same objects, tried when the source can't give them."""

    url: SourceUrl = Field(
        description="URL or path of a copy of the source, with the same keys below it.",
        examples=["s3://lake-copy/flights/", "file:///mnt/nas/flights/"],
    )
    options: Options = Field(default={})
    credentials: CredentialsName | None = Field(
        default=None,
        description="A Prefect block that holds the credentials, as TYPE/NAME.",
        examples=["aws-credentials/onprem"],
    )


class RenameSpec(SpecModel):
    """Another path for the keys that match."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    pattern: RegularExpression = Field(
        alias="from",
        description="Regular expression (RE2's syntax) of a whole key below the URL.",
        examples=["raw/(.*)\\.PARQUET"],
    )
    to: Text = Field(
        description="The path in its place, below `into`; `\\1` or `\\g<name>` stands for what a group matched.",
        examples=["\\1.parquet"],
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := Expression(self.pattern).template_problem(self.to):
            raise ValueError(f"`to` does not fit `from`: {problem}")
        return self


class SourceSpec(SpecModel):
    """One URL that contributes entries to the dataset."""

    url: SourceUrl = Field(
        description="URL or path of a folder or object. Paths are relative to the spec's file.",
        examples=["s3://lake/flights/", "file:///mnt/nas/reference/"],
    )
    include: tuple[Glob, ...] = Field(
        default=(),
        description="Globs of the keys below the URL to take; all of them when none is given.",
        examples=[["*.parquet"]],
    )
    exclude: tuple[Glob, ...] = Field(
        default=(),
        description="Globs of the keys below the URL to leave out, also of those that `include` takes.",
        examples=[["_tmp/**"]],
    )
    partitions: dict[Text, Conditions] = Field(
        default={},
        description="Which folders named key=value to take, by key: values, or comparisons such as '>=2013-06'. "
        "One condition of each key must hold.",
        examples=[{"year": ["2013", "2014"], "day": ">=2013-06-01,<2013-07-01"}],
    )
    min_size: ByteSize | None = Field(
        default=None, description="The least bytes of an object that is taken.", examples=["1B", "4KiB"]
    )
    max_size: ByteSize | None = Field(
        default=None, description="The most bytes of an object that is taken.", examples=["2GiB"]
    )
    newer_than: Moment | None = Field(
        default=None,
        description="Only objects that changed after it: a time, or so long ago.",
        examples=["30d", "2013-06-01"],
    )
    older_than: Moment | None = Field(
        default=None,
        description="Only objects that changed before it, as files that nobody writes any more.",
        examples=["1h", "2014-01-01T00:00:00Z"],
    )
    sample: Share | None = Field(
        default=None,
        description="A share of the objects, chosen by the hash of their paths: always the same ones.",
        examples=["10%", 0.1],
    )
    limit: MostTaken | None = Field(
        default=None,
        description="At most so many objects: those whose paths have the smallest hashes. Applied after all else.",
        examples=[100],
    )
    rename: tuple[RenameSpec, ...] = Field(
        default=(),
        description="Other paths for keys; the first that matches counts, and a key that none matches stays.",
        examples=[[{"from": "raw/(.*)\\.PARQUET", "to": "\\1.parquet"}]],
    )
    into: Prefix = Field(
        default="",
        description="The folder of the dataset where the source's keys go; its top by default.",
        examples=["flights/"],
    )
    options: Options = Field(default={})
    credentials: CredentialsName | None = Field(
        default=None,
        description="A Prefect block that holds the credentials, as TYPE/NAME; else the environment is asked.",
        examples=["aws-credentials/onprem"],
    )
    mirrors: tuple[MirrorSpec, ...] = Field(
        default=(),
        description="Other places with the same objects, in the order in which they are tried.",
        examples=[[{"url": "file:///mnt/nas/flights/"}]],
    )
    rehash: Rehash = Field(
        default="never",
        description="Whether a staging reads objects again whose pins it remembers: always, when_weak (those "
        "whose pin is weak, as a time is) or never.",
        examples=["when_weak"],
    )

    may_be_empty: bool = Field(
        default=False,
        strict=True,
        description="Whether the source may have no object that is taken; else staging is refused then.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise ValueError("takes no object: its min_size is more than its max_size")
        return self


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
