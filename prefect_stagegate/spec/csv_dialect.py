"""How the text files of one table are written: one dialect for all of them, which every engine reads them by."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from prefect_stagegate.spec.fields import SpecModel, Text

ISO_DATE = "%Y-%m-%d"
DIRECTIVES = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "m": "[0-9]{1,2}",
    "d": "[0-9]{1,2}",
    "b": "[A-Za-z]{3}",
    "H": "[0-9]{1,2}",
    "M": "[0-9]{1,2}",
    "S": "[0-9]{1,2}",
    "f": "[0-9]{1,6}",
    "z": "Z|[+-][0-9]{2}:?[0-9]{2}",
}
"""The parts of a format, as strptime names them, each with a pattern of its text."""
_PART = re.compile(r"%(.?)")


def format_pattern(written: str) -> str:
    """The pattern of what a format writes, with a group for each of its parts."""
    # Where no other character stands between two parts, only their full width tells them apart.
    width = "{2}" if re.search("%.%", written) else "{1,2}"
    pieces = _PART.split(written)
    groups = (f"(?P<{part}>{DIRECTIVES[part].replace('{1,2}', width)})" for part in pieces[1::2])
    texts = map(re.escape, pieces[::2])
    return f"^{next(texts)}{''.join(group + text for group, text in zip(groups, texts, strict=True))}$"


def _format(value: str, *needs: str) -> str:
    parts = _PART.findall(value)
    if unknown := [part for part in parts if part not in DIRECTIVES]:
        raise ValueError(f"has %{unknown[0]}; known are {', '.join(f'%{part}' for part in DIRECTIVES)}")
    for either in needs:
        if sum(parts.count(part) for part in either) != 1:
            raise ValueError(f"needs {' or '.join(f'%{part}' for part in either)}, once")
    return value


def _dates(value: str) -> str:
    if any(part in "HMSfz" for part in _PART.findall(value)):
        raise ValueError("has a time of day; write it under `times`")
    return _format(value, "Yy", "mb", "d")


def _times(value: str) -> str:
    return _format(value, "Yy", "mb", "d", "H", "M")


def _header(value: object) -> object:
    if value is False:
        raise ValueError("must be true, or the columns' names where the files have no header, as in [day, distance]")
    if isinstance(value, list | tuple) and len(set(value)) < len(value):
        raise ValueError("names a column twice")
    return value


class CsvSpec(SpecModel):
    """How a table's text files are written. Dates, times and nulls that are not written so are text."""

    dates: Annotated[Text, AfterValidator(_dates)] = Field(
        default=ISO_DATE,
        description="The format of all dates in CSV, by strptime's letters: %Y %y %m %d %b. By default ISO 8601.",
        examples=["%d/%m/%Y"],
    )
    times: Annotated[Text, AfterValidator(_times)] | None = Field(
        default=None,
        description="The format of all timestamps in CSV, with %H %M %S %f %z beside the letters of dates. "
        "By default ISO 8601.",
        examples=["%d/%m/%Y %H:%M"],
    )
    separator: Literal[",", ";", "\t", "|", ":", "^", "~"] | None = Field(
        default=None, description="What separates columns. By default a comma, in .tsv files a tab.", examples=[";"]
    )
    decimal: Literal[".", ","] = Field(default=".", description="What separates decimals.", examples=[","])
    null: tuple[str, ...] = Field(
        default=("", "NA"), description="The texts that are missing values.", examples=[[""], ["", "n/a"]]
    )
    header: Annotated[Literal[True] | tuple[Text, ...], BeforeValidator(_header)] = Field(
        default=True,
        description="True where the first line has the columns' names. For files without such a line: the names.",
        examples=[["day", "distance"]],
    )
    encoding: Literal["utf-8", "utf-16", "latin-1", "cp1252", "iso-8859-15", "shift_jis", "gb18030"] = Field(
        default="utf-8", description="How characters are stored.", examples=["latin-1"]
    )


class TextReading(NamedTuple):
    """What decides how a table's text files are read: their dialect and the declared columns."""

    csv: CsvSpec = CsvSpec()
    columns: tuple[tuple[str, str], ...] = ()
    """The declared columns with their types: one without any value has its declared type, and a string stays one."""


AS_USUAL = TextReading()
