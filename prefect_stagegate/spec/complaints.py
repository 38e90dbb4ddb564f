"""Pydantic's errors as messages for people, at the line where the mistake stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.spec.fields import NAME_TAG, SETTINGS_TAG
from prefect_stagegate.spec.parsed_document import ParsedDocument
from prefect_stagegate.spec.yamltree import Loc
from prefect_stagegate.units import format_duration

_KINDS: Mapping[type, str] = {
    NoneType: "nothing",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}

_MARKS = ("[key]", NAME_TAG, SETTINGS_TAG)

_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


_COUNTED = ("too_short", "string_too_short")


def report_errors(
    document: ParsedDocument, errors: Sequence[ErrorDetails], model: type[BaseModel], prefix: Loc = ()
) -> None:
    """Report pydantic's errors about the values at `prefix`, which are to be a `model`."""
    places = [place_of(error) for error in errors if error["type"] not in _COUNTED]
    for error in errors:
        here = place_of(error)
        # Pydantic leaves bad items out of its count and calls the list too short besides; the items' errors are enough.
        if error["type"] not in _COUNTED or not any(place[: len(here)] == here for place in places):
            document.report(prefix + here, complaint(error, model))


def check(document: ParsedDocument, value: object, model: type[BaseModel], prefix: Loc = ()) -> None:
    """Report all that is wrong with the value at `prefix`, which is to be a `model`."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        report_errors(document, error.errors(), model, prefix)


def place_of(error: ErrorDetails) -> Loc:
    """The place of an error, without the marks that pydantic adds for keys and for forms of an item."""
    return tuple(part for part in error["loc"] if part not in _MARKS)


def complaint(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Say in plain words what an error found wrong."""
    kind = error["type"]
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}, not {_kind(error['input'])}{_quoted(kind, error['input'])}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"must be {words} {_shown(error['ctx'][bound])}, not {_shown(error['input'])}"
    if kind in _SENTENCES:
        return _SENTENCES[kind](error, model)
    # A newer pydantic may have kinds of errors that no table here lists: its own words are better than none.
    return error["msg"].replace("Input should be", "must be", 1)


def _unknown_word(error: ErrorDetails, model: type[BaseModel]) -> str:  # noqa: ARG001 - one of `_SENTENCES`
    given, expected = error["input"], error["ctx"]["expected"]
    # Pydantic gives the choices as one text only: `'a', 'b' or 'c'`.
    words = re.findall(r"'([^']*)'", expected)
    if isinstance(given, str) and words:
        return f"{given!r} is not known; {did_you_mean(given, words)}"
    return f"must be {expected}, not {_kind(given)}"


def _too_short(error: ErrorDetails, model: type[BaseModel]) -> str:  # noqa: ARG001 - one of `_SENTENCES`
    least = error["ctx"]["min_length"]
    return "must not be empty" if least == 1 else f"is too short; at least {least} are needed"


def _pattern_mismatch(error: ErrorDetails, model: type[BaseModel]) -> str:
    owner = model_at(model, place_of(error)[:-1])
    field = owner.model_fields.get(str(error["loc"][-1])) if owner else None
    pattern = error["ctx"]["pattern"]
    return f"must look like {field.examples[0]}" if field and field.examples else f"must match the pattern {pattern}"


def _shown(value: object) -> str:
    return format_duration(value) if isinstance(value, timedelta) else str(value)


def _kind(value: object) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _quoted(kind: str, value: object) -> str:
    return "; put it in quotes" if kind == "string_type" and isinstance(value, (bool, int, float)) else ""


def keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that a mapping at `loc` may have."""
    owner = model_at(model, loc)
    return [field.alias or name for name, field in owner.model_fields.items()] if owner else []


def model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model of the mapping at a place; None where none stands."""
    kind: Any = model
    for part in loc:
        if _is_model(kind):
            # Places of errors have keys as a spec writes them. `from` can't be the name of a field in Python, so it is
            # an alias.
            fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
            kind = _unwrapped(fields.get(str(part)))
        else:
            # A list's or tuple's first argument types its items, a mapping's last one its values.
            arguments = get_args(kind) or (None,)
            kind = _unwrapped(arguments[0 if isinstance(part, int) else -1])
    return kind if _is_model(kind) else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and not get_args(kind) and issubclass(kind, BaseModel)


def _unwrapped(annotation: Any) -> Any:
    """The X of `Annotated[X, …]` and `X | None`."""
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return next((_unwrapped(kind) for kind in get_args(annotation) if kind is not NoneType), None)
    return annotation


_SENTENCES: Mapping[str, Callable[[ErrorDetails, type[BaseModel]], str]] = {
    "missing": lambda _error, _model: "is required but missing",
    "value_error": lambda error, _model: str(error["ctx"]["error"]),
    "extra_forbidden": lambda error, model: (
        f"unknown key; {did_you_mean(str(error['loc'][-1]), keys_at(model, place_of(error)[:-1]))}"
    ),
    "literal_error": _unknown_word,
    "enum": _unknown_word,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "too_long": lambda error, _model: (
        f"must have at most {error['ctx']['max_length']} items, not {error['ctx']['actual_length']}"
    ),
    "string_pattern_mismatch": _pattern_mismatch,
}
