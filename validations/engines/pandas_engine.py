"""Judge tables with pandas, which reads whole tables into memory, one at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.datasource.fluent.pandas_datasource import PandasDatasource
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metrics.column_aggregate_metric_provider import column_aggregate_value
from great_expectations.expectations.metrics.column_aggregate_metrics.column_sum import ColumnSum

from prefect_stagegate.validations.columntypes import whole_numbers
from prefect_stagegate.validations.engines.engine import SuiteEngine
from prefect_stagegate.validations.engines.known_metrics import KnownMetrics
from prefect_stagegate.validations.files.arrow import batches, schema_of
from prefect_stagegate.validations.files.formats import form, is_text
from prefect_stagegate.validations.partition_columns import lowered, partition_types, partition_values
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.relations import FILE, TableFiles, relation_of
from prefect_stagegate.validations.worker.judgements import columns_of, map_metric, metric_of
from prefect_stagegate.validations.worker.statements import condition_problem
from prefect_stagegate.validations.worker.values import RowWriter
from prefect_stagegate.validations.worker.worker_messages import RefusedRows, TableJob

NULLABLE = (pd.Int64Dtype, pd.UInt64Dtype, pd.Float64Dtype)
EXACT = 2**53
"""The largest whole number up to which a float holds all of them."""


class Frame(pd.DataFrame):
    """A data frame that refuses conditions which do more than compare.

    Great Expectations passes every condition of a suite to `query`, and pandas evaluates it as Python.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return Frame

    def query(self, expr: str, **options: Any) -> Any:
        """Select the rows for which a condition holds."""
        if problem := condition_problem(expr):
            raise ValueError(problem)
        return super().query(expr, **{**options, "level": options.get("level", 0) + 1})


class KnownPandas(KnownMetrics, PandasExecutionEngine):
    """Great Expectations' engine for pandas, which remembers its metrics and the last frame that it loaded."""

    _loaded: tuple[Any, Any] = (None, None)

    def get_batch_data_and_markers(self, batch_spec: Any) -> Any:
        """Load a frame, unless it was the last one: Great Expectations hashes all rows for each expectation."""
        frame = batch_spec.get("batch_data")
        if frame is None or self._loaded[0] is not frame:
            self._loaded = (frame, super().get_batch_data_and_markers(batch_spec))
        else:
            batch_spec["batch_data"] = "PandasDataFrame"  # as it does itself: the results name the frame, not its rows
        return self._loaded[1]


def _sum(_: Any, column: pd.Series[Any], **__: Any) -> Any:
    # 64 bits of numpy start over at the least number.
    if pd.api.types.is_integer_dtype(column) and column.notna().any():
        return sum(map(int, column.dropna())) if _largest(column) * len(column) >= 2**63 else column.sum()
    return column.sum(min_count=1)


class Sum(ColumnSum):
    """Sums as SQL has them: exact, and none where no value is there. The class registers itself."""

    _pandas = column_aggregate_value(engine=KnownPandas)(_sum)


class PandasEngine(SuiteEngine):
    """A `SuiteEngine` on one data frame a table."""

    def __init__(self, context: AbstractDataContext, tables: Sequence[TableJob], scratch: Path) -> None:  # noqa: ARG002
        self._context = context
        # Great Expectations asks the class, not the source, for its engine. This process judges and ends.
        PandasDatasource.execution_engine_override = KnownPandas  # type: ignore[misc]
        self._source = context.data_sources.add_pandas("pandas")
        self._frame = pd.DataFrame()
        self._ends: list[int] = []

    def batch(self, table: TableJob, columns: Collection[str] | None = None) -> Batch:
        """All rows of the table's files, numbered in the order of the files."""
        # Free the table before, so that memory holds one table at a time.
        self._frame = pd.DataFrame()
        partitions = partition_types(table.files)
        texts = _read_text(table, [file for file in table.files if is_text(file)], columns)
        frames = [
            _with_partitions(texts[path] if path in texts else _read(path, columns), file, partitions)
            for file, path in zip(table.files, table.paths(), strict=True)
        ]
        self._ends = list(accumulate(len(frame) for frame in frames))
        self._frame = Frame(pd.concat(frames, ignore_index=True))
        for name, kind in self._frame.dtypes.items():
            if isinstance(kind, NULLABLE):
                self._frame[name] = _exact(self._frame[name])
        # `concat` copied the rows; the parts must not stay in memory beside them while the suite runs.
        del frames, texts
        name = f"{table.name} {len(self._source.assets)}"
        self._definition = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        return self._definition.get_batch({"dataframe": self._frame})

    def rows(self, table: TableJob) -> dict[str, int]:
        """The rows of each file, by the row numbers at which the files end."""
        return {file: end - start for file, start, end in zip(table.files, [0, *self._ends], self._ends, strict=False)}

    def locate(self, table: TableJob, expectation: Expectation) -> list[RefusedRows]:
        """Find the files of the refused rows by the row numbers at which the files end."""
        if not map_metric(expectation):
            return []
        request = self._definition.build_batch_request({"dataframe": self._frame})
        validator = self._context.get_validator(batch_request=request)
        refused, *_ = validator.get_metric(metric_of(expectation, "condition"))
        numbers = refused.index[refused.to_numpy(dtype=bool)].to_numpy()
        columns = columns_of(expectation)
        writer = RowWriter(columns, table.personal)
        # A row belongs to the first file whose end is above its number; its first refused row is the example.
        positions = np.searchsorted(self._ends, numbers, side="right")
        files, first, counts = np.unique(positions, return_index=True, return_counts=True)
        places = [
            RefusedRows(table.files[file], int(count), writer.recordable(self._frame.loc[row, columns].tolist()))
            for file, row, count in zip(files, numbers[first], counts, strict=True)
        ]
        return sorted(places, key=lambda place: (-place.rows, place.file))


def _read(path: Path, columns: Collection[str] | None) -> pd.DataFrame:
    """The rows of a file of Parquet or Arrow with those of `columns` that it has; with all of its columns for None."""
    if form(path) == "parquet":
        return _frame(pq.ParquetFile(path).read(_chosen(pq.read_schema(path).names, columns)))
    schema = schema_of(path)
    names = _chosen(schema.names, columns) or schema.names
    parts = (batch.select(names) for batch in batches(path))
    return _frame(pa.Table.from_batches(parts, pa.schema([schema.field(name) for name in names])))


def _frame(rows: pa.Table) -> pd.DataFrame:
    """The rows in pandas, with whole numbers as `_exact` expects them."""
    whole: dict[pa.DataType, Any] = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
    frame: pd.DataFrame = rows.to_pandas(types_mapper=whole.get, ignore_metadata=True)
    return frame


def _exact(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column of 64-bit numbers as pandas has it, except where that would round: with nulls, beyond 2^53."""
    if not column.hasnans:
        return column.astype(np.dtype(str(column.dtype).lower()))
    is_whole = column.dtype != "Float64" and column.notna().any()
    return column if is_whole and _largest(column) > EXACT else column.astype(np.dtype("float64"))


def _largest(column: pd.Series[Any]) -> int:
    """The largest absolute value of a column of whole numbers, of which it has one at least."""
    return max(abs(int(column.min())), abs(int(column.max())))


def _read_text(table: TableJob, texts: Sequence[str], columns: Collection[str] | None) -> dict[Path, pd.DataFrame]:
    """The rows of each text file, read together by DuckDB: the types depend on all rows of all of them."""
    if not texts:
        return {}
    view = Path(table.view)
    with bounded(view) as connection:
        # Without the columns that folders name: they are added to all files alike.
        rows = connection.sql(relation_of(connection, TableFiles(view, texts, table.reading, {}), filename=FILE))
        found = [name for name in rows.columns if name != FILE]
        names = _chosen(found, columns) or found
        read = rows.select(*map(duckdb.ColumnExpression, [*names, FILE])).to_arrow_table()
    with suppress(pa.ArrowInvalid):  # whole numbers of more than 64 bits stay decimals
        read = read.cast(whole_numbers(read.schema))
    frame = _frame(read)
    files = frame.pop(FILE)
    return {view / file: frame[files == str(view / file)] for file in texts}


def _chosen(names: Sequence[str], columns: Collection[str] | None) -> list[str] | None:
    """Those of a file's columns to read, at least one, so that its rows can be counted; None for all."""
    # Parquet's reader takes a point in a name for a part of a nested column.
    if columns is None or any("." in name for name in names):
        return None
    return [name for name in names if name in columns] or list(names[:1])


def _with_partitions(frame: pd.DataFrame, file: str, types: Mapping[str, str]) -> pd.DataFrame:
    """The frame with the columns that the file's folders name."""
    hidden = lowered(types)
    columns = frame[[name for name in frame.columns if name.lower() not in hidden]]
    return columns.assign(**partition_values(file, types)) if types else frame
