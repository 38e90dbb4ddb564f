"""Write values of the data as text: for the run's caller, and for records that others read. Pure.

Two forms, since a record stays and is shared, while the caller may read the files anyway:

    value                     for the caller   for records
    -7, 2013-01-01, null      as it is         as it is
    N14228                    as it is         pattern A99999
    of a personal column      (masked)         (masked)

A pattern has A, a and 9 for letters and digits, and everything else as it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Number

LONGEST = 120
"""Characters of a value or list that are shown."""
LONGEST_PATTERN = 40
MOST_EXAMPLES = 5
"""Different refused values that are shown of one expectation."""
MASKED = "(masked)"
PATTERN = "pattern "
NULL = "null"
FIGURES = (bool, Number, Decimal, date, time, timedelta)
"""Values that a record may hold as they are. All others count as text, so that a new type is hidden."""

Form = Callable[[object], str]


def plain(value: object) -> str:
    """Write one value for the run's caller.

    >>> plain(-5.0), plain(float("nan")), plain(["N1", None])
    ('-5', 'null', '[N1, null]')
    """
    return _nested(value, plain) if _is_nested(value) else _single(value)


def pattern(value: object) -> str:
    """Write one value for records: numbers and times as they are, text as its pattern.

    >>> pattern(-7), pattern("N14228"), pattern(None)
    ('-7', 'pattern A99999', 'null')
    """
    if _is_nested(value):
        return _nested(value, pattern)
    text = _single(value)
    if text == NULL or isinstance(value, FIGURES):
        return text
    return PATTERN + "".join(map(_kind, short(text, LONGEST_PATTERN)))


def short(text: str, longest: int = LONGEST) -> str:
    """Cut a text to `longest` characters; an ellipsis stands for the rest."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


@dataclass(frozen=True, slots=True)
class RowWriter:
    """Writes the values of one row in the columns that an expectation is about."""

    columns: Sequence[str]
    personal: Collection[str]
    """The table's columns with personal data."""

    @property
    def is_personal(self) -> bool:
        """Whether one of the columns is personal. The case of names makes no difference, as in DuckDB."""
        return any(map(self._hides, self.columns))

    def row(self, values: Sequence[object], form: Form) -> str:
        """The values as text, in the order of the columns; empty when all of them are null."""
        if len(values) != len(self.columns):
            return MASKED if self.personal else short(form(list(values)))
        shown = [
            MASKED if self._hides(column) and value is not None else form(value)
            for column, value in zip(self.columns, values, strict=True)
        ]
        return "" if set(shown) <= {NULL} else short(", ".join(shown))

    def recordable(self, values: Sequence[object]) -> str:
        """The values for a sentence in a record; empty when it would tell nothing."""
        text = self.row(values, pattern) if self.columns else ""
        return "" if set(text.split(", ")) <= {MASKED, NULL} else text

    def examples(self, refused: Iterable[object], form: Form) -> tuple[str, ...]:
        """The first different ones of the rows that Great Expectations lists as refused."""
        rows = (self.row(self._values(row), form) for row in refused)
        return tuple(dict.fromkeys(filter(None, rows)))[:MOST_EXAMPLES]

    def _values(self, row: object) -> Sequence[object]:
        """A refused row's values: of one column a value, of a pair a tuple, of several columns a mapping."""
        if len(self.columns) == 1:
            return [next(iter(row.values())) if isinstance(row, Mapping) and set(row) == set(self.columns) else row]
        if isinstance(row, Mapping):
            return [row.get(column) for column in self.columns] if set(row) == set(self.columns) else list(row.values())
        return list(row) if isinstance(row, list | tuple) else [row]

    def _hides(self, column: str) -> bool:
        return column.casefold() in {name.casefold() for name in self.personal}


def _is_nested(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple | set)


def _nested(value: object, form: Form) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {form(item)}" for key, item in value.items())
    return "[" + ", ".join(map(form, value)) + "]" if isinstance(value, Iterable) else ""


def _single(value: object) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN and NaT are the values that differ from themselves
        return NULL
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Lu", "Lt"):
        return "A"
    if category.startswith("L"):
        return "a"
    return "9" if category.startswith("N") else character
