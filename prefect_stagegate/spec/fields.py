"""The types of values in a spec and in checks' parameters, each of which says what is wrong with a bad value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic import ValidationInfo as Info
from pydantic_core import InitErrorDetails, PydanticCustomError

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import LATEST, NAME, NAME_LENGTH, check_name
from prefect_stagegate.spec.urls import (
    INSTEAD_OF_CREDENTIALS,
    chain_problem,
    is_url,
    place,
    secret_in_url,
    secret_options,
    spec_problems,
)
from prefect_stagegate.units import (
    DURATION_PATTERN,
    LONGEST_DURATION,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

_ALMOST_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_HOSTLESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://$")


class SpecModel(BaseModel):
    """A mapping in a spec: frozen, and closed to keys that it doesn't name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RuleSpec(SpecModel):
    """Whose word counts."""

    approval: dict[str, Any] = Field(
        description="Whose word counts, as parameters of the check `approval`.",
        examples=[{"count": 1, "from": ["governance"]}],
    )


NAME_TAG, SETTINGS_TAG = "[name]", "[settings]"
"""Pydantic's marks, in the places of errors, for items that are a name or a mapping of one name to settings."""

WRITTEN = "written"
"""The context of checks' parameters in a file: what only new specs must have is refused there, and not in records."""


class Context(NamedTuple):
    """The context of a spec's validation: what its values don't hold."""

    base: str
    """The folder that paths are relative to: an absolute path or a URL."""
    requirements: Mapping[str, Any] = {}
    """What each target requires, with inheritance and defaults settled."""
    left_out: tuple[str, ...] = ()
    """What a data contract promises and the spec leaves out: file, line, key and reason of each."""


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        # By way of text, so that the bounds of written durations hold here, too.
        return parse_duration(format_duration(value))
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f"must be a duration, not {value!r}: write a number and a unit of s, m, h, d or w, as in 12h")


def _size(value: object) -> int:
    # A bool is an int in Python: without the second test, YAML's `true` would be one byte.
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError(f"must be a size, not {value!r}: write a number and a unit such as MiB or GB, as in 8MiB")


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["12h", "30d"]}),
]
"""A duration such as `12h` or `30d`, in whole seconds; 0s to 36500d. `bounded` bounds it further."""


def bounded(least: str, most: str = "") -> AfterValidator:
    """Bounds of a duration, as a spec writes them. Those of `Field` would be told as Python writes them."""
    low, high = parse_duration(least), parse_duration(most) if most else LONGEST_DURATION

    def within(value: timedelta) -> timedelta:
        if not low <= value <= high:
            bound = f"at least {least}" if value < low else f"at most {most}"
            raise ValueError(f"must be {bound}, not {format_duration(value)}")
        return value

    return AfterValidator(within)


ByteSize = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "minimum": 0}],
            "examples": ["8MiB", "1.5GB", 4096],
        }
    ),
]
"""Bytes, written as a number or with a unit: `8MiB`, `1.5GB`."""


def target_name(value: str) -> str:
    """Check a target's name; raises ValueError with the reason."""
    if value == LATEST:
        raise ValueError(f"a target can't be called {LATEST!r}: that is the ref which staging moves")
    return _name("target", value)


def _name(kind: str, value: str) -> str:
    try:
        return check_name(kind, value)
    except UsageError as error:
        # Pydantic collects ValueErrors; any other error would hide the problems beside it.
        raise ValueError(f"{error.message}; {error.hint[0].lower()}{error.hint[1:].rstrip('.')}") from None


def _relative(value: str) -> str:
    """Check a path or glob inside the dataset or below a source's URL."""
    if not value:
        raise ValueError("must not be empty")
    _no_control_characters(value)
    if "\\" in value:
        raise ValueError("has a backslash; folders are separated by '/'")
    if value.startswith("/"):
        raise ValueError("must be relative; leave out the '/' at the start")
    segments = value.removesuffix("/").split("/")
    if ".." in segments:
        raise ValueError("must not have '..' in it")
    if "." in segments or "" in segments:
        raise ValueError("must not have '.' or an empty name between its slashes")
    return value


def _glob(value: str) -> str:
    if value.endswith("/"):
        raise ValueError(f"names a folder, and only files are matched; did you mean {value + '**'!r}?")
    return _relative(value)


def _prefix(value: str) -> str:
    return _relative(value).removesuffix("/") + "/" if value else ""


def _source_url(value: str, info: Info) -> str:
    """Check a URL or path, and make it absolute by the folder in the context."""
    _checked_url(value)
    if _ALMOST_URL.match(value):
        raise ValueError(f"lacks a slash: write {value.partition(':')[0]}://")
    # Only `load_spec` gives a context. Other callers, as `stagegate init`, have an absolute URL already.
    base = info.context.base if isinstance(info.context, Context) else "/"
    placed = place(value, base)
    if problem := chain_problem(placed):
        raise ValueError(problem)
    if is_url(placed):
        # In lower case, so that one place has one URL.
        scheme, separator, rest = placed.partition("://")
        return scheme.lower() + separator + rest
    return f"file://{placed}"


def _checked_url(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    _no_control_characters(value)
    try:
        secret = secret_in_url(value) if is_url(value) else ""
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    if secret:
        raise ValueError(f"holds {secret}, and a spec is stored beside every version; {INSTEAD_OF_CREDENTIALS}")
    if _HOSTLESS.match(value):
        raise ValueError("has nothing after '://'")
    return value


def _no_control_characters(value: str) -> None:
    for character in value:
        if character < " " or character == "\x7f":
            raise ValueError(f"has the control character {character!r}")


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    _no_control_characters(value)
    return value


def _options(value: dict[str, Any], info: Info) -> dict[str, Any]:
    # A wrong URL is reported by its own field, and does not tell which options fit.
    problems: dict[tuple[str | int, ...], str] = dict(
        spec_problems(info.data["url"], value) if "url" in info.data else ()
    )
    # Credentials are refused for every scheme, also where only an installed package knows its options.
    problems |= dict.fromkeys(secret_options(value), f"looks like a credential; {INSTEAD_OF_CREDENTIALS}")
    # One error for each option, so that each is reported at its own line.
    errors = [
        InitErrorDetails(type=PydanticCustomError("option", "{problem}", {"problem": problem}), loc=loc, input=None)
        for loc, problem in problems.items()
    ]
    if errors:
        raise ValidationError.from_exception_data("options", errors)
    return value


# What `_relative` refuses, as far as a pattern can say it, so that editors mark it before a spec is loaded.
_INSIDE = r"^(?!/)(?!(.*/)?\.\.(/|$))[^\\]*$"
_NAME_SCHEMA: dict[str, Any] = {"pattern": f"^{NAME.pattern}$", "maxLength": NAME_LENGTH}
TARGET_SCHEMA: dict[str, Any] = {**_NAME_SCHEMA, "not": {"const": LATEST}}
"""JSON Schema of a target's name."""

DatasetName = Annotated[str, AfterValidator(partial(_name, "dataset")), Field(json_schema_extra=_NAME_SCHEMA)]
TargetName = Annotated[str, AfterValidator(target_name)]
Glob = Annotated[str, AfterValidator(_glob), Field(json_schema_extra={"pattern": _INSIDE, "minLength": 1})]
"""A glob of paths, such as `flights/*.parquet`: relative, without `..`."""
Prefix = Annotated[str, AfterValidator(_prefix), Field(json_schema_extra={"pattern": _INSIDE})]
"""A folder in the dataset: empty, or relative and ending in a slash."""
SourceUrl = Annotated[str, AfterValidator(_source_url), Field(json_schema_extra={"minLength": 1})]
"""An absolute URL without credentials; a path becomes a `file://` URL, whose path is not percent-encoded."""
Link = Annotated[str, AfterValidator(_checked_url)]
"""Text for people that may be a URL, and then has no credential in it."""
Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"minLength": 1})]
"""Text in one line that is not empty."""
PublicKey = Annotated[str, Field(pattern=r"^ed25519:[0-9a-f]{64}$")]


class InFile:
    """Marks a text that a spec may also give by the name of a file; the loaded spec has the file's text."""


FileText = Annotated[str, InFile()]
"""Text of several words or lines, or a file's name without spaces, relative to the spec."""
Options = Annotated[
    dict[str, Any],
    AfterValidator(_options),
    Field(
        description="Storage options that the URL's scheme takes. Credentials are refused here.",
        examples=[{"endpoint_url": "http://127.0.0.1:8333"}],
    ),
]
"""Storage options by fsspec's names, without credentials."""
CredentialsName = Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]
"""A Prefect block: its type's slug, a slash, its name."""
