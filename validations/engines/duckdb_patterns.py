"""Regular expressions and LIKE patterns by DuckDB, for which Great Expectations has no SQL.

A regular expression means what Python's `re.search` finds in the value as text. DuckDB has RE2, which knows most of
Python's language, in time that grows with the text only; `as_re2` writes what the two spell differently.
"""

from __future__ import annotations

import re
from typing import Any

import duckdb
import sqlalchemy as sa
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.metrics.map_metric_provider.column_condition_partial import (
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.column_map_metric_provider import (
    ColumnMapMetricProvider,
)
from great_expectations.expectations.registry import get_metric_kwargs

METRICS = [
    f"{verb}_{kind}{many}"
    for verb in ("match", "not_match")
    for kind in ("regex", "like_pattern")
    for many in ("", "_list")
]
"""The metrics by their names behind `column_values.`."""

_TOKEN = re.compile(r"\\(?P<letter>.)|(?P<open>\[\^?\]?)|(?P<close>\])|(?P<end>\$)|\{,(?P<most>\d+)\}", re.DOTALL)
_LINES = re.compile(r"\(\?[a-z]*m")
_WORD, _SPACE = r"\p{L}\p{N}_", r"\s\v\x1c-\x1f\x85\p{Z}"
_CLASSES = {"w": f"[{_WORD}]", "W": f"[^{_WORD}]", "s": f"[{_SPACE}]", "S": f"[^{_SPACE}]"}
_ESCAPES = {"d": r"\p{Nd}", "D": r"\P{Nd}", "Z": r"\z"}
_IN_CLASS = {**_ESCAPES, "w": _WORD, "s": _SPACE}


def use_patterns(engine: type[SqlAlchemyExecutionEngine]) -> None:
    """Make an engine on DuckDB judge patterns; other engines go on as before."""
    for name in METRICS:
        metric = f"column_values.{name}"
        members = {
            "condition_metric_name": metric,
            "condition_value_keys": get_metric_kwargs(f"{metric}.condition")["metric_value_keys"],
            "_duckdb": column_condition_partial(engine=engine)(_refused if name.startswith("not_") else _matched),
        }
        type(name, (ColumnMapMetricProvider,), members)  # the class registers itself


def as_re2(pattern: str) -> str:
    r"""A regular expression of Python's in RE2's language, with letters and digits of all scripts.

    >>> as_re2(r"^\d{,3}[\w-]$")
    '^\\p{Nd}{0,3}[\\p{L}\\p{N}_-]\\n?\\z'
    """
    end = "$" if _LINES.search(pattern) else r"\n?\z"
    is_class = False

    def written(match: re.Match[str]) -> str:
        nonlocal is_class
        text, letter = match[0], match["letter"]
        if letter:
            return (_IN_CLASS if is_class else _ESCAPES | _CLASSES).get(letter, text)
        if not is_class and match["open"]:
            is_class = True
        elif is_class and (match["close"] or text.endswith("]")):
            is_class = False
        elif not is_class and match["end"]:
            return end
        elif not is_class and match["most"]:
            return f"{{0,{match['most']}}}"
        return text

    return _TOKEN.sub(written, pattern)


def regex_problem(pattern: str) -> str:
    """Say why DuckDB can't search for a regular expression; empty when it can.

    >>> regex_problem("^N[0-9]+"), regex_problem("(?<!a)b")
    ('', "DuckDB's RE2 does not know it: invalid perl operator: (?<")
    """
    try:
        duckdb.connect().execute("SELECT regexp_matches('', ?)", [as_re2(pattern)])
    except duckdb.Error as error:
        return f"DuckDB's RE2 does not know it: {str(error).splitlines()[0].removeprefix('Invalid Input Error: ')}"
    return ""


def _matched(_: type, column: Any, match_on: str | None = None, **arguments: Any) -> sa.ColumnElement[bool]:
    matches = _matches(column, **arguments)
    return sa.and_(*matches) if match_on == "all" else sa.or_(*matches)


def _refused(_: type, column: Any, **arguments: Any) -> sa.ColumnElement[bool]:
    return sa.not_(sa.or_(*_matches(column, **arguments)))


def _matches(column: Any, escape: str | None = None, **arguments: Any) -> list[sa.ColumnElement[bool]]:
    """A condition for each pattern: that the value as text matches it."""
    text = sa.cast(column, sa.String)
    regexes, patterns = (
        [arguments[kind]] if arguments.get(kind) is not None else arguments.get(f"{kind}_list") or []
        for kind in ("regex", "like_pattern")
    )
    matches: list[sa.ColumnElement[bool]] = [sa.func.regexp_matches(text, as_re2(regex)) for regex in regexes]
    matches += [text.like(sa.literal(pattern), escape=escape) for pattern in patterns]
    if not matches:
        raise ValueError("at least one pattern is needed")
    return matches
