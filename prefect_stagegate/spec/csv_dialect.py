"""How the text files of one table are written: one dialect for all of them, which every engine reads them by."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from prefect_stagegate.spec.fields import SpecModel, Text

ISO_DATE = "%Y-%m-%d"
DIRECTIVES = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "m": "[01]{0,1}[0-9]",
    "d": "(?P<d>[0-3]{0,1}[0-9])",
    "b": "[A-Za-z]{3}",
    "H": "[0-2]{0,1}[0-9]",
    "M": "[0-5]{0,1}[0-9]",
    "S": "[0-5]{0,1}[0-9]",
}
"""The parts of a format, as strptime names them, each with a pattern of its text."""
_PART = re.compile(r"%(.?)")


def format_pattern(written: str) -> str:
    """The pattern of what a format writes, with the day in a group."""
    # ISO 8601 has all digits, and where no other character stands between two parts, only they tell them apart.
    is_wide = written == ISO_DATE or re.search("%.%", written)
    pieces = [DIRECTIVES[text] if place % 2 else re.escape(text) for place, text in enumerate(_PART.split(written))]
    return f"^{''.join(piece.replace('{0,1}', '') if is_wide else piece for piece in pieces)}$"


def _with_parts(known: tuple[str, ...], value: str) -> str:
    """The format, whose parts must be all letters of one of `known`, sorted."""
    if "".join(sorted(_PART.findall(value.replace("%y", "%Y").replace("%b", "%m")))) not in known:
        raise ValueError(
            f"needs %Y or %y, %m or %b, %d{', %H, %M and at will %S' if len(known) > 1 else ''}, each once"
        )
    return value


class CsvSpec(SpecModel):
    """How a table's text files are written. Dates, times and nulls that are not written so are text."""

    dates: Annotated[Text, AfterValidator(partial(_with_parts, ("Ydm",)))] = Field(
        default=ISO_DATE,
        description="The format of all dates in CSV, by strptime's letters: %Y %y %m %d %b. By default ISO 8601.",
        examples=["%d/%m/%Y"],
    )
    times: Annotated[Text, AfterValidator(partial(_with_parts, ("HMYdm", "HMSYdm")))] | None = Field(
        default=None,
        description="The format of all timestamps in CSV, with %H %M %S beside the letters of dates. "
        "By default ISO 8601.",
        examples=["%d/%m/%Y %H:%M"],
    )
    separator: Literal[",", ";", "\t", "|"] | None = Field(
        default=None, description="What separates columns. By default a comma, in .tsv files a tab.", examples=[";"]
    )
    decimal: Literal[".", ","] = Field(default=".", description="What separates decimals.", examples=[","])
    null: tuple[str, ...] = Field(
        default=("", "NA"), description="The texts that are missing values.", examples=[[""], ["", "n/a"]]
    )
    header: Literal[True] = Field(default=True, description="The first line has the columns' names.", examples=[True])
    encoding: Literal["utf-8", "latin-1", "cp1252", "iso-8859-15"] = Field(
        default="utf-8", description="How characters are stored.", examples=["latin-1"]
    )


class TextReading(NamedTuple):
    """What decides how a table's text files are read: their dialect and the declared columns."""

    csv: CsvSpec = CsvSpec()
    columns: tuple[tuple[str, str], ...] = ()
    """The declared columns with their types: one without any value has its declared type, and a string stays one."""


AS_USUAL = TextReading()
