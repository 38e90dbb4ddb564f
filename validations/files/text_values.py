"""What the texts of a column are: the type of its values, and the values themselves. Pure, and on whole arrays.

A value is read strictly: what another reader might take for something else is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc

from prefect_stagegate.spec.csv_dialect import ISO_DATE, CsvSpec, format_pattern
from prefect_stagegate.validations.columntypes import accepts

NOTHING, TEXT, INT, FLOAT, BOOL = pa.null(), pa.string(), pa.int64(), pa.float64(), pa.bool_()
DATE, TIME, MOMENT, INSTANT = pa.date32(), pa.time64("us"), pa.timestamp("us"), pa.timestamp("us", "UTC")
ORDER = (INT, FLOAT, BOOL, DATE, TIME, MOMENT, INSTANT)
"""The types that a column may have, in the order in which they are tried."""
WIDER = {INT: FLOAT, DATE: MOMENT}
"""The type that also holds all values of another; dates among times only where both are written as ISO 8601."""
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
PATTERNS = {
    INT: "[+-]?[0-9]{1,18}",
    FLOAT: r"(?i)[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)",
    BOOL: "true|True|TRUE|false|False|FALSE",
    DATE: _DAY,
    TIME: _CLOCK,
    MOMENT: f"{_DAY}([T ]{_CLOCK})?",
    INSTANT: f"{_DAY}[T ]{_CLOCK}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)",
}
"""How the values of a type are written, dates and times by ISO 8601."""


def type_named(name: str) -> pa.DataType:
    """How text is read for a type of the contract; `NOTHING` for those that text can't be of."""
    kinds = (TEXT, FLOAT, INT, BOOL, DATE, TIME, MOMENT)
    return next((kind for kind in kinds if accepts(name, kind, text=True)), NOTHING)


def type_of(values: pa.StringArray, csv: CsvSpec, before: pa.DataType = NOTHING) -> pa.DataType:
    """The type of a column's next values, where those before have the type `before`; `NOTHING` without any value."""
    if before == TEXT or values.null_count == len(values):
        return before
    # A format without separators writes dates as numbers: whoever wrote it means dates.
    order = (DATE, *ORDER) if re.fullmatch("[%A-Za-z]+", csv.dates) else ORDER
    tried = order if before == NOTHING else (before, _wider(before, csv))
    return next((kind for kind in tried if kind and fits(values, kind, csv)), TEXT)


def _wider(kind: pa.DataType, csv: CsvSpec) -> pa.DataType | None:
    return None if kind == DATE and (csv.dates, csv.times) != (ISO_DATE, None) else WIDER.get(kind)


def fits(values: pa.StringArray, kind: pa.DataType, csv: CsvSpec) -> bool:
    """Whether all values are of a type."""
    return bool(converted(values, kind, csv).null_count == values.null_count)


def common_type(kinds: Iterable[pa.DataType], csv: CsvSpec) -> pa.DataType:
    """The narrowest type that holds the values of all these types."""
    found = {kind for kind in kinds if kind != NOTHING}
    found -= {kind for kind in found if _wider(kind, csv) in found}
    return NOTHING if not found else found.pop() if len(found) == 1 else TEXT


def converted(values: pa.StringArray, kind: pa.DataType, csv: CsvSpec) -> pa.Array:
    """The values of a type; null also where a text is none."""
    if kind in (TEXT, NOTHING):
        return values
    written = csv.dates if kind == DATE else csv.times if kind in (MOMENT, INSTANT) else None
    if written not in (None, ISO_DATE):
        return _parsed(values, str(written)).cast(kind)
    if kind in (INT, FLOAT):
        values = pc.ascii_trim_whitespace(values)
    if kind == FLOAT and csv.decimal == ",":
        values = pc.replace_substring(_only(values, pc.invert(pc.match_substring(values, "."))), ",", ".")
    # Arrow takes 1 for true and 0x10 for 16.
    if kind not in (BOOL, TIME) and not pc.any(pc.match_substring(values, "x", ignore_case=True)).as_py():
        with suppress(pa.ArrowInvalid):
            return values.cast(kind)
    values = _only(values, pc.match_substring_regex(values, f"^({PATTERNS[kind]})$"))
    if kind == TIME:
        return converted(pc.binary_join_element_wise("1970-01-01T", values, ""), MOMENT, CsvSpec()).cast(TIME)
    if kind in (DATE, MOMENT, INSTANT):
        values = _only(values, pc.is_valid(_parsed(pc.utf8_slice_codeunits(values, 0, 10), ISO_DATE)))
        values = pc.replace_substring_regex(values, r"(\.[0-9]{6})[0-9]+", r"\1")  # Arrow takes microseconds
    return pc.utf8_ltrim(values, "+").cast(kind)


def _parsed(values: pa.StringArray, written: str) -> pa.TimestampArray:
    found = pc.extract_regex(values, format_pattern(written))
    times = pc.strptime(_only(values, pc.is_valid(found)), written, "us", error_is_null=True)
    # It takes 31 February for 3 March.
    same = pc.equal(pc.day(times), pc.struct_field(found, "d").cast(pa.int64()))
    return pc.if_else(same, times, pa.scalar(None, times.type))


def _only(values: pa.StringArray, mask: pa.BooleanArray) -> pa.StringArray:
    return pc.if_else(mask, values, pa.scalar(None, TEXT))
