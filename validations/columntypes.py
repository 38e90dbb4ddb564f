"""The contract's type names, and which types of a file's column each of them accepts.

A family (`int`, `float`, `string`, …) accepts every width; an exact name (`int64`, `double`, …) accepts one.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from pyarrow import types

Accepts = Callable[[pa.DataType], bool]


def _any_of(*tests: Accepts) -> Accepts:
    return lambda kind: any(test(kind) for test in tests)


_text = _any_of(types.is_string, types.is_large_string, types.is_string_view)
_binary = _any_of(types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
_list = _any_of(types.is_list, types.is_large_list, types.is_fixed_size_list)
_number = _any_of(types.is_integer, types.is_floating, types.is_decimal)

_EXACT = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")

COLUMN_TYPES: dict[str, Accepts] = {
    # families
    "int": types.is_integer,
    "float": types.is_floating,
    "number": _number,
    "decimal": types.is_decimal,
    "bool": types.is_boolean,
    "string": _text,
    "binary": _binary,
    "date": types.is_date,
    "time": types.is_time,
    "timestamp": types.is_timestamp,
    "duration": types.is_duration,
    "list": _list,
    "struct": types.is_struct,
    "map": types.is_map,
    # exact names
    **{name: getattr(types, f"is_{name}") for name in _EXACT},
    # what SQL calls them
    "tinyint": types.is_int8,
    "smallint": types.is_int16,
    "bigint": types.is_int64,
    "real": types.is_float32,
    "double": types.is_float64,
    "boolean": types.is_boolean,
    "varchar": _text,
}

_HUGEINT = pa.decimal128(38, 0)
"""What DuckDB makes of its type HUGEINT."""
_FLOATS = frozenset({"float", "number", "decimal", "float16", "float32", "float64", "real", "double"})
_INTS = frozenset(name for name in COLUMN_TYPES if "int" in name)
_TEXTS = frozenset({"string", "varchar"})


def whole_numbers(schema: pa.Schema) -> pa.Schema:
    """The schema of JSON lines with integers of 64 bits where DuckDB takes 128: it does for columns with both signs."""
    fields = (field.with_type(pa.int64()) if field.type == _HUGEINT else field for field in schema)
    return pa.schema(list(fields))


def accepts(name: str, kind: pa.DataType, *, text: bool = False, quoted: bool = False) -> bool:
    """Whether a column of type `kind` keeps the promise `name`.

    Args:
        name: A key of `COLUMN_TYPES`.
        kind: The column's Arrow type; a dictionary counts as its values.
        text: The type was inferred from text (CSV), where numbers have no width, whole numbers may stand
            in a column of floats, and anything is a string.
        quoted: The text tells strings from numbers and truth values (JSON), so those are no strings.
    """
    if types.is_dictionary(kind):
        kind = kind.value_type
    if text and types.is_null(kind):
        return True  # a column without any value is of no type
    if text and name in _TEXTS:
        return not (quoted and (_number(kind) or types.is_boolean(kind)))
    if text and name in _INTS:
        return bool(types.is_integer(kind))
    if text and name in _FLOATS:
        return _number(kind)
    return COLUMN_TYPES[name](kind)
