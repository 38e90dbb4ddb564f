"""A table's files as one data frame of Spark: columns by name, then partition columns, then each row's file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from prefect_stagegate.validations.columntypes import whole_numbers
from prefect_stagegate.validations.files.text_tables import header_of
from prefect_stagegate.validations.partitions import NULL, lowered, partition_types
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.sql import CSV_NULLS, FILE, QUOTE, form, read_csv, read_json, separator
from prefect_stagegate.validations.records import TableJob

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
    from pyspark.sql.types import StructType

OTHER_FILES = "Spark workers must see the cache under the same path as this node"
"""Without apostrophes: messages leave out what stands between two."""
PATTERN = re.compile(r"[\\{}\[\]*?,^]")
"""What means something else than itself in a pattern of Hadoop's."""
MISSING = re.compile(r"FILE_NOT_EXIST|PATH_NOT_FOUND|FileNotFoundException")
"""What Spark says about a file that is not there, or that its user may not read."""
MOST_HEADERS = 50
"""Text files whose columns differ are read apart, so that their columns match by name."""


def frame_of(session: SparkSession, table: TableJob) -> DataFrame:
    """All rows of the table's files, with the column `FILE`: an escaped URI, as Spark writes it.

    Raises:
        ValueError: Spark can't read the format, or would leave out a file.
    """
    from pyspark.sql import functions as f

    groups: dict[str, list[Path]] = {}
    for path in table.paths():
        groups.setdefault(_group(path), []).append(path)
    if len(groups) > MOST_HEADERS:
        raise ValueError(f"its text files have more than {MOST_HEADERS} different headers; set `engine: duckdb`")
    frames = [_read(session, paths).withColumn(FILE, f.col("_metadata.file_path")) for paths in groups.values()]
    frame = reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), frames)
    return _with_partitions(frame, table)


def path_of(uri: str) -> Path:
    """The path of a file that Spark names."""
    return Path(unquote(uri.removeprefix("file:")).replace("///", "/", 1))


def _group(path: Path) -> str:
    """What the files of one reader share: their format, and the header of text files, whose columns go by position."""
    kind = form(path)
    if kind in ("parquet", "json"):
        return kind
    if kind == "arrow":
        raise ValueError("Spark reads no Arrow files; set `engine: duckdb`")
    return repr([kind, *header_of(path)])


def _read(session: SparkSession, paths: Sequence[Path]) -> DataFrame:
    kind = form(paths[0])
    reader = session.read
    if kind == "parquet":
        frame = reader.option("mergeSchema", "true").parquet(*map(_uri, paths))
    elif kind == "json":
        frame = reader.schema(_types(read_json(paths), paths)).json([_uri(path) for path in paths], mode="FAILFAST")
    else:
        types = _types(read_csv(paths), paths)
        frame = _csv(reader, separator(paths[0])).schema(types).csv([_uri(path) for path in paths])
    # Spark skips files whose names begin with `_` or `.`; rows that nobody looked at would pass.
    if len(set(frame.inputFiles())) != len(paths):
        raise ValueError("Spark leaves out files whose names begin with _ or . ; set `engine: duckdb`")
    return frame


def _types(source: str, paths: Sequence[Path]) -> StructType:
    """The columns of text files, as DuckDB infers them, so that both engines judge the same types."""
    from pyspark.sql.pandas.types import from_arrow_schema

    with bounded(*{path.parent for path in paths}) as connection:
        schema = connection.sql(f"FROM {source}").limit(0).to_arrow_table().schema
    fields = (
        field.with_type(pa.string()) if pa.types.is_time(field.type) else field for field in whole_numbers(schema)
    )
    return from_arrow_schema(pa.schema(list(fields)), prefer_timestamp_ntz=True)


def _csv(reader: DataFrameReader, delimiter: str) -> DataFrameReader:
    quoting = reader.options(sep=delimiter, quote=QUOTE, escape=QUOTE, nullValue=CSV_NULLS[1])
    return quoting.options(header=True, mode="FAILFAST", multiLine=True, enforceSchema=True)


def _uri(path: Path) -> str:
    # Hadoop takes the text behind the scheme as it is, but every name for a pattern.
    return "file://" + PATTERN.sub(r"\\\g<0>", str(path))


def _with_partitions(frame: DataFrame, table: TableJob) -> DataFrame:
    types = partition_types(table.files)
    if not types:
        return frame
    hidden = lowered([*types, FILE])
    columns = [frame[f"`{name.replace('`', '``')}`"] for name in frame.columns if name.lower() not in hidden]
    values = [_partition(name, kind).alias(name) for name, kind in types.items()]
    return frame.select(*columns, *values, FILE)


def _partition(name: str, kind: str) -> Column:
    from pyspark.sql import functions as f

    # The URI escapes the path, whose folders escape their values.
    text = f.regexp_extract(f.url_decode(f.replace(FILE, f.lit("+"), f.lit("%2B"))), f"(?s).*/{name}=([^/]*)/", 1)
    value = f.when(text != NULL, f.url_decode(f.replace(text, f.lit("+"), f.lit("%2B"))))
    return value.cast({"BIGINT": "bigint", "DATE": "date"}.get(kind, "string"))
