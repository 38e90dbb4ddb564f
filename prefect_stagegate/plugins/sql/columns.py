"""How a result's columns become Parquet. A column without an exact type there is an error, before any byte is written.

ADBC returns numeric as an opaque string, and many types in PostgreSQL's wire format. It returns money as a number of
cents, and an infinite date as one five million years ago.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from prefect_stagegate.errors import SourceError
from prefect_stagegate.plugins.sql.request import Numeric

_OPAQUE = "arrow.opaque"
_JSON = "arrow.json"
_AMBIGUOUS = ("money", "oid", "regclass", "regproc", "regtype", "xid", "cid")
"""Types that ADBC returns as numbers of another meaning."""
_TYPMOD_HEADER = 4
_WIDEST = 38
_EARLIEST = {"date32[day]": -2_147_000_000, "timestamp": -9_222_000_000_000_000_000}
"""No finite value of PostgreSQL lies before these. Its infinities overflow to such values."""


class Columns:
    """How the batches of one result are converted.

    `numeric` has the types of numeric columns by name; the empty name stands for the others.

    Raises:
        SourceError: Columns can't be written. It names each, and what to do.
    """

    def __init__(self, result: pa.Schema, numeric: Mapping[str, Numeric], *, url: str) -> None:
        self._url = url
        self.names: list[str] = result.names
        self.unsortable = [field.name for field in result if _postgres(field) in ("json", "xml")]
        """Columns that PostgreSQL can't order by."""
        self.arrays = [field.name for field in result if pa.types.is_list(field.type)]
        """Columns of arrays. ADBC returns one of several dimensions as a flat list."""
        problems = [f"column {name!r} comes twice" for name, times in Counter(result.names).items() if times > 1]
        problems += [f"there is no numeric column {name!r}" for name in numeric if name and name not in result.names]
        fields = []
        for field in result:
            kind = _numeric(field, numeric) if _postgres(field) == "numeric" else _plain(field)
            if isinstance(kind, str):
                problems.append(f"column {field.name!r} {kind}")
            else:
                fields.append(pa.field(field.name, kind))
        if problems:
            raise SourceError(f"The result can't be written as Parquet: {'; '.join(problems)}", source=url)
        self.schema = pa.schema(fields)

    def converted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch in the types of `schema`.

        Raises:
            SourceError: A value does not fit its column's type.
        """
        arrays = []
        for field, array in zip(self.schema, batch.columns, strict=True):
            try:
                arrays.append(_converted(array, field.type))
            except (pa.ArrowException, ValueError) as error:
                hint = "Another type by the option `numeric:`, or a cast in `query:`, may hold it."
                raise SourceError(
                    f"Column {field.name!r} can't be written: {error}", hint=hint, source=self._url
                ) from error
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _postgres(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"POSTGRESQL:type", b"").decode())


def _numeric(field: pa.Field, wanted: Mapping[str, Numeric]) -> pa.DataType | str:
    """The type of a numeric column, by the option or by its precision and scale; or a text with its problem."""
    chosen = wanted.get(field.name, wanted.get(""))
    if chosen is None:
        modifier = int(field.metadata.get(b"POSTGRESQL:typmod", b"-1")) - _TYPMOD_HEADER
        # PostgreSQL's numeric_typmod_precision and numeric_typmod_scale, whose 11 bits are signed
        chosen = (modifier >> 16 & 0xFFFF, (modifier & 0x7FF ^ 1024) - 1024) if modifier >= 0 else "unknown"
    if chosen in ("double", "text"):
        return pa.float64() if chosen == "double" else pa.string()
    if isinstance(chosen, tuple) and chosen[0] <= _WIDEST and 0 <= chosen[1] <= chosen[0]:
        return pa.decimal128(*chosen)
    declared = f"is numeric{chosen}" if isinstance(chosen, tuple) else "is numeric without precision and scale"
    return f"{declared}: set the option `numeric: {{{field.name}: decimal(18, 4)}}`, double or text"


def _plain(field: pa.Field) -> pa.DataType | str:
    """The type of any other column, or a text with its problem."""
    kind, postgres = field.type, _postgres(field)
    inner = kind.value_type if pa.types.is_list(kind) else kind
    if getattr(kind, "extension_name", "") == _JSON:
        return pa.string()
    opaque = (
        getattr(inner, "extension_name", "") in (_OPAQUE, _JSON)
        or pa.types.is_nested(inner)
        or pa.types.is_interval(inner)
    )
    element = postgres.removeprefix("_")  # PostgreSQL puts _ before the element type of an array
    if element in _AMBIGUOUS or opaque:
        seconds = pa.types.is_interval(inner)
        fix = f"extract(epoch from {field.name})" if seconds else f"{field.name}::text"
        return f"is of the type {element or kind}, which Parquet lacks: cast it in `query:`, as by {fix}"
    return kind


def _converted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    plain = array.storage if isinstance(array, pa.ExtensionArray) and not isinstance(kind, pa.ExtensionType) else array
    _refuse_infinity(plain)
    plain = plain if plain.type == kind else plain.cast(kind)
    # The driver's buffers are checked too: Parquet would store invalid UTF-8.
    plain.validate(full=True)
    return plain


def _refuse_infinity(array: pa.Array) -> None:
    values = array.flatten() if pa.types.is_list(array.type) else array
    earliest = _EARLIEST.get("timestamp" if pa.types.is_timestamp(values.type) else str(values.type))
    if earliest is None:
        return
    numbers = values.view(pa.int32() if pa.types.is_date32(values.type) else pa.int64())
    if pc.any(pc.less(numbers, earliest)).as_py():
        raise ValueError("it holds an infinite date or time, which Parquet lacks")
