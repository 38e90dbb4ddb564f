"""A table's files as one data frame of Spark: columns by name, then partition columns, then each row's file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from prefect_stagegate.spec.csv_dialect import ISO_DATE, TextReading
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.files.text_files import header_of, schema_of, separator
from prefect_stagegate.validations.files.text_values import DATE, FLOAT, INSTANT, MOMENT, TEXT
from prefect_stagegate.validations.partition_columns import NULL, lowered, partition_types
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.relations import FILE, json_schema
from prefect_stagegate.validations.worker.worker_messages import TableJob

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

OTHER_FILES = "Spark workers must see the cache under the same path as this node"
"""Without apostrophes: messages leave out what stands between two."""
PATTERN = re.compile(r"[\\{}\[\]*?,^]")
"""What means something else than itself in a pattern of Hadoop's."""
MISSING = re.compile(r"FILE_NOT_EXIST|PATH_NOT_FOUND|FileNotFoundException")
"""What Spark says about a file that is not there, or that its user may not read."""
JAVA = {"Y": "yyyy", "y": "yy", "m": "M", "d": "d", "b": "MMM", "H": "H", "M": "m", "S": "s"}
"""Java's letters for the parts of a format."""
MOST_HEADERS = 50
"""Text files whose columns differ are read apart, so that their columns match by name."""


def frame_of(session: SparkSession, table: TableJob) -> DataFrame:
    """All rows of the table's files, with the column `FILE`: an escaped URI, as Spark writes it.

    Raises:
        ValueError: Spark can't read the format.
    """
    from pyspark.sql import functions as f

    groups: dict[str, list[Path]] = {}
    for path in table.paths():
        groups.setdefault(_group(path, table.reading), []).append(path)
    if len(groups) > MOST_HEADERS:
        raise ValueError(f"its text files have more than {MOST_HEADERS} different headers; set `engine: duckdb`")
    texts = [path for path in table.paths() if form(path) == "csv"]
    types = schema_of(texts, table.reading)
    frames = [
        _read(session, paths, table.reading, types).withColumn(FILE, f.col("_metadata.file_path"))
        for paths in groups.values()
    ]
    frame = reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), frames)
    return _with_partitions(frame, table)


def path_of(uri: str) -> Path:
    """The path of a file that Spark names."""
    return Path(unquote(uri.removeprefix("file:")).replace("///", "/", 1))


def _group(path: Path, reading: TextReading) -> str:
    """What the files of one reader share: their format, and the header of text files, whose columns go by position."""
    kind = form(path)
    if kind in ("parquet", "json"):
        return kind
    if kind == "arrow":
        raise ValueError("Spark reads no Arrow files; set `engine: duckdb`")
    return repr([separator(path, reading.csv), *header_of(path, reading.csv)])


def _read(session: SparkSession, paths: Sequence[Path], reading: TextReading, types: pa.Schema) -> DataFrame:
    kind, reader = form(paths[0]), session.read
    if kind == "parquet":
        return reader.option("mergeSchema", "true").parquet(*map(_uri, paths))
    uris = [_uri(path) for path in paths]
    if kind == "json":
        # As DuckDB infers them, so that both engines judge the same types.
        with bounded(*{path.parent for path in paths}) as connection:
            fields = json_schema(connection, paths)
        as_text = [field.with_type(TEXT) if pa.types.is_time(field.type) else field for field in fields]
        return reader.schema(_spark_types(as_text)).json(uris, mode="FAILFAST")
    if "" not in reading.csv.null:
        raise ValueError("Spark takes an empty value for a missing one; set `engine: duckdb`")
    # Text with one header is read as text, and turned into the types that it was found to have.
    names = header_of(paths[0], reading.csv)
    encoding = reading.csv.encoding.replace("latin-1", "ISO-8859-1")
    texts = reader.options(sep=separator(paths[0], reading.csv), quote='"', escape='"', encoding=encoding)
    texts = texts.options(header=True, mode="FAILFAST", multiLine=True, enforceSchema=True)
    frame = texts.schema(_spark_types([pa.field(name, TEXT) for name in names])).csv(uris)
    return frame.select(*(_value(name, types.field(name).type, reading).alias(name) for name in names))


def _spark_types(fields: Sequence[pa.Field]) -> StructType:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(pa.schema(list(fields)), prefer_timestamp_ntz=True)


def _value(name: str, kind: pa.DataType, reading: TextReading) -> Column:
    from pyspark.sql import functions as f

    text = f.col(f"`{name.replace('`', '``')}`")
    text = f.when(~text.isin(*reading.csv.null), text)
    if kind == FLOAT:
        return f.replace(f.trim(text), f.lit(reading.csv.decimal), f.lit(".")).cast("double")
    written = reading.csv.dates if kind == DATE else reading.csv.times
    if kind in (DATE, MOMENT) and written not in (None, ISO_DATE):
        pattern = re.sub("%(.)", lambda part: JAVA[part[1]], str(written))
        moment = f.to_timestamp_ntz(text, f.lit(pattern))
        return moment.cast("date") if kind == DATE else moment
    types = {DATE: "date", MOMENT: "timestamp_ntz", INSTANT: "timestamp", pa.int64(): "bigint", pa.bool_(): "boolean"}
    return f.trim(text).cast(types[kind]) if kind in types else text


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
