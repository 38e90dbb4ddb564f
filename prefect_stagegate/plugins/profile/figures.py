"""DuckDB's queries for the profile of some files. Memory depends on the columns only.

Pass 1 computes figures, pass 2 counts the values of columns that have few, pass 3 hashes those of the other columns.
Columns of Parquet are read for what each pass needs; files of other formats are read into a temporary table once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect_stagegate.plugins.profile.profiles import LEVELS, MANY_VALUES, ColumnProfile, Kind, TableProfile
from prefect_stagegate.plugins.profile.sketch import EMPTY, REGISTERS, estimate, sketch_of
from prefect_stagegate.quoting import identifier
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.queries.duck import FLOATS, INTEGERS, NUMBERS, Queries
from prefect_stagegate.validations.queries.relations import TableFiles

TEXTS = ("VARCHAR", "ENUM", '"NULL"')
NESTED = ("STRUCT", "MAP", "LIST", "UNION", "JSON", "VARIANT")
FIRST_ROWS = 20
"""Rows at the beginning of each file that every sample has, so that one of a rare value is seldom empty."""
LONGEST_NAME = 60
"""Characters of the longest text that can be a category."""
KEY_DIGITS = 16
"""Hex digits of the SHA-256 that stands for a text."""
SLICE = 50
"""Columns whose values one query counts or hashes."""
LARGEST = 2**63
"""From here on, whole numbers become floats: JSON has none."""
_LEVELS = ", ".join(f"{(level + 0.5) / LEVELS:g}" for level in range(LEVELS))


def kind_of(kind: str) -> Kind | None:
    """The kind of a column by DuckDB's name of its type; None for a nested one."""
    base = kind.partition("(")[0]
    if kind.endswith("]") or base in NESTED:
        return None
    if base in NUMBERS:
        return "number"
    if base == "DATE" or base.startswith("TIMESTAMP"):
        return "time"
    return "flag" if base == "BOOLEAN" else "text" if base in TEXTS else "other"


def is_read_whole(table: TableFiles) -> bool:
    """Whether a file is not Parquet: the types of text depend on all rows of all files, and Arrow has no index."""
    return any(form(Path(file)) != "parquet" for file in table.files)


def read_part(
    queries: Queries, part: TableFiles, types: Mapping[str, str], *, withheld: Collection[str], sample: int
) -> TableProfile:
    """Profile some files of a table.

    The profile has the names of all short texts that occur: `with_categories` or `without_names` must follow.

    Args:
        queries: An open database.
        part: At least one file.
        types: The table's columns to profile, with their types, to which those of the files are cast.
        withheld: Columns of which only rows are counted.
        sample: Rows that quantiles are computed from. Each file's first rows are among them, the others are chosen by
            a hash of their number. Other formats than Parquet have no row numbers, so all their rows count.
    """
    columns = _columns(types, withheld)
    with _projected(queries, part, columns, sample):
        figures = ", ".join(["count(*)", *(column.figures() for column in columns)])
        ((rows, *records),) = queries.rows(f"SELECT {figures} FROM part")  # noqa: S608 - no name is in it
        few = [column for column, record in zip(columns, records, strict=True) if column.is_counted(record)]
        counts = _count(queries, few)
        # A column whose number of values was underestimated has counts of too many.
        counted = {number for number, values in counts.items() if len(values) <= MANY_VALUES}
        sketches = _hash(queries, [column for column in columns if column.number not in counted])
    sketches |= {number: sketch_of(value for _, _, _, value in counts[number]) for number in counted}
    profiles = {
        column.name: column.profile(
            rows,
            record,
            counts[column.number] if column.number in counted else None,
            sketches.get(column.number, EMPTY),
        )
        for column, record in zip(columns, records, strict=True)
    }
    return TableProfile(rows, profiles)


_Counted = list[tuple[str, int, str | None, int]]
"""The values of a column: the value or its digest, its rows, the text where it is short, and DuckDB's hash."""


class _Column:
    """One column in SQL: `c0` is its value, `v0` the finite number that its figures are computed from."""

    def __init__(self, number: int, name: str, type_: str, kind: Kind, *, withheld: bool) -> None:
        self.number, self.name, self.type, self.kind, self.withheld = number, name, type_, kind, withheld
        self.base = type_.partition("(")[0]
        self.measured = kind in ("number", "time") and not withheld

    def projection(self, present: Mapping[str, str]) -> str:
        """The SQL of its value, cast to the table's type, and of its number."""
        value = identifier(self.name) if self.name in present else "NULL"
        if present.get(self.name) != self.type and self.base != '"NULL"':
            value = f"CAST({value} AS {self.type})"
        return f"{value} AS c{self.number}" + (f", {self._number(value)} AS v{self.number}" if self.measured else "")

    def _number(self, value: str) -> str:
        if self.kind == "time":
            moment = value if "TIME ZONE" in self.type else f"CAST({value} AS TIMESTAMP)"
            return f"CASE WHEN isfinite({moment}) THEN epoch_us({moment}) END"
        return f"CASE WHEN isfinite({value}) THEN {value} END" if self.base in FLOATS else value

    def figures(self) -> str:
        """The SQL of its figures in pass 1."""
        present = f"p := count(c{self.number}), d := approx_count_distinct(c{self.number})"
        if not self.measured:
            return f"struct_pack({present})"
        value, number = f"v{self.number}", f"CAST(v{self.number} AS DOUBLE)"
        return (
            f"struct_pack({present}, v := count({value}), l := min({value}), g := max({value}), m := avg({number}), "
            f"s := stddev_samp({number}), q := approx_quantile({number}, [{_LEVELS}]) FILTER (sampled))"
        )

    def is_counted(self, record: Mapping[str, Any]) -> bool:
        """Whether pass 2 counts its values. The estimate errs by some percent, so it may be above the limit."""
        return self.kind in ("number", "flag", "text") and not self.withheld and record["d"] <= 1.5 * MANY_VALUES

    def profile(self, rows: int, record: Mapping[str, Any], counted: _Counted | None, sketch: str) -> ColumnProfile:
        """Its profile from what the passes found."""
        values = record["v"] if self.measured else record["p"]
        counts = None if counted is None else self._counts(counted)
        return ColumnProfile(
            type=self.type,
            kind=self.kind,
            values=values,
            nulls=rows - record["p"],
            nonfinite=record["p"] - values,
            distinct=min(record["p"], estimate(sketch)) if counts is None else len(counts),
            least=_json_number(record.get("l")),
            greatest=_json_number(record.get("g")),
            mean=record.get("m"),
            deviation=record.get("s"),
            # Where the sample has none of a rare value, the mean stands for all of them.
            quantiles=tuple(record["q"] or ([record["m"]] * LEVELS if values else ())) if self.measured else (),
            counts=counts,
            names={value: text for value, _, text, _ in counted or () if text is not None},
            sketch=sketch,
            withheld=self.withheld,
        )

    def _counts(self, counted: _Counted) -> dict[str, int]:
        if self.kind != "number" or self.base in INTEGERS:
            return {value: count for value, count, _, _ in counted}
        # A whole number has one key, so that a column of integers and one of floats can be compared.
        numbers = ((float(value), count) for value, count, _, _ in counted)
        return {str(int(value)) if value.is_integer() else repr(value): count for value, count in numbers}


def _columns(types: Mapping[str, str], withheld: Collection[str]) -> list[_Column]:
    kinds = ((name, type_, kind_of(type_)) for name, type_ in types.items())
    return [
        _Column(number, name, type_, kind, withheld=name in withheld)
        for number, (name, type_, kind) in enumerate(kinds)
        if kind is not None
    ]


@contextmanager
def _projected(queries: Queries, part: TableFiles, columns: Sequence[_Column], sample: int) -> Iterator[None]:
    """Define `part`: the columns by number, and whether a row is in the sample."""
    rows = queries.relation(part)
    sampled = "true"
    # The types of text files are inferred from all rows, and were when the table's were found.
    present = {column.name: column.type for column in columns} if is_read_whole(part) else queries.columns(rows)
    if not is_read_whole(part):
        ((total,),) = queries.rows(f"SELECT count(*) FROM ({rows})")  # noqa: S608 - names are quoted
        every = max(1, total // sample)
        if every > 1:
            # A column of DuckDB's own; the data may have one of that name.
            sampled = f"(stagegate_row < {FIRST_ROWS} OR hash(stagegate_row) % {every} = 0)"
            rows = rows.replace("SELECT *", "SELECT *, file_row_number AS stagegate_row", 1)
    projection = ", ".join([f"{sampled} AS sampled", *(column.projection(present) for column in columns)])
    kind = "TABLE" if is_read_whole(part) else "VIEW"
    queries.rows(f"CREATE TEMP {kind} part AS SELECT {projection} FROM ({rows})")  # noqa: S608 - names are quoted
    try:
        yield
    finally:
        queries.rows(f"DROP {kind} part")


def _count(queries: Queries, columns: Sequence[_Column]) -> dict[int, _Counted]:
    """The values of columns with few values."""
    counts: dict[int, _Counted] = {column.number: [] for column in columns}
    for few in _slices(columns):
        for number, value, rows, text, hashed in queries.rows(" UNION ALL ".join(map(_counting, few))):
            counts[number].append((value, rows, text, hashed))
    return counts


def _counting(column: _Column) -> str:
    """The SQL of a column's values with their rows. Long texts stay in the database."""
    value = f"c{column.number}"
    text = f"CASE WHEN length(value) <= {LONGEST_NAME} THEN value END"
    shown = f"left(sha256(value), {KEY_DIGITS}), rows, {text}" if column.kind == "text" else "value, rows, NULL"
    counted = f"CAST({value} AS VARCHAR) AS value, count(*) AS rows, hash({value}) AS hashed"
    return f"SELECT {column.number}, {shown}, hashed FROM (SELECT {counted} FROM part WHERE {value} IS NOT NULL GROUP BY {value})"  # noqa: S608, E501 - numbers only


def _hash(queries: Queries, columns: Sequence[_Column]) -> dict[int, str]:
    """The sketches of columns with many values: the least hash of each register."""
    hashes: dict[int, list[int]] = {column.number: [] for column in columns}
    for many in _slices(columns):
        selects = " UNION ALL ".join(
            f"(SELECT {column.number}, min(hashed) FROM (SELECT hash(c{column.number}) AS hashed FROM part "  # noqa: S608
            f"WHERE c{column.number} IS NOT NULL) GROUP BY hashed % {REGISTERS})"
            for column in many
        )
        for number, value in queries.rows(selects):
            hashes[number].append(value)
    return {number: sketch_of(values) for number, values in hashes.items()}


def _slices(columns: Sequence[_Column]) -> Iterator[Sequence[_Column]]:
    for start in range(0, len(columns), SLICE):
        yield columns[start : start + SLICE]


def _json_number(value: Any) -> int | float | None:
    if value is None or (isinstance(value, int) and abs(value) < LARGEST):
        return value
    return float(value)
