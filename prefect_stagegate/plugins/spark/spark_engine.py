"""Judge tables with Spark: in a JVM of this process, or on the operator's cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.datasource.fluent.spark_datasource import SparkDatasource
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import PassThroughCondition, deserialize_row_condition
from great_expectations.validator.metric_configuration import MetricConfiguration

from prefect_stagegate.plugins.spark.spark_session import on_cluster, open_session
from prefect_stagegate.plugins.spark.spark_tables import MISSING, OTHER_FILES, frame_of, path_of
from prefect_stagegate.validations.engines.engine import SuiteEngine
from prefect_stagegate.validations.engines.known_metrics import KnownMetrics
from prefect_stagegate.validations.queries.relations import FILE
from prefect_stagegate.validations.worker.judgements import columns_of, map_metric, metric_of
from prefect_stagegate.validations.worker.statements import COMPARE, OWN_CONDITIONS
from prefect_stagegate.validations.worker.values import RowWriter
from prefect_stagegate.validations.worker.worker_messages import RefusedRows, TableJob

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

REFUSED = "stagegate_refused"
"""The column that says whether an expectation refuses a row."""
EXTREMES = ("column.min", "column.max")


class ConditionsOnlyEngine(KnownMetrics, SparkDFExecutionEngine):
    """Great Expectations' engine for Spark, which remembers its metrics and evaluates its own conditions only.

    Other conditions are Spark's SQL, which calls any Java method (`reflect`).
    """

    def _apply_row_condition_filter(self, data: Any, row_condition: Any, domain_kwargs: dict[str, Any]) -> Any:
        condition = deserialize_row_condition(row_condition) if isinstance(row_condition, dict) else row_condition
        is_text = isinstance(condition, str) and domain_kwargs.get("condition_parser") not in OWN_CONDITIONS
        if is_text or isinstance(condition, PassThroughCondition):
            raise GreatExpectationsError(f'{COMPARE}; on Spark, write it in Great Expectations\' own way: col("x") > 0')
        return super()._apply_row_condition_filter(data, condition, domain_kwargs)

    def _resolve(self, group: list[MetricConfiguration], metrics: dict[Any, Any] | None, options: Any) -> None:
        super()._resolve(group, metrics, options)
        for metric in group:
            # Great Expectations writes times as this process' own, without their zone.
            value, column = self._values[self._key(metric)], metric.metric_domain_kwargs.get("column")
            if metric.metric_name in EXTREMES and value and (column, "timestamp") in self.dataframe.dtypes:
                self._values[self._key(metric)] = datetime.fromisoformat(value).astimezone(UTC)


@contextmanager
def _missing_told() -> Iterator[None]:
    """Say what a cluster lacks that finds no file where this node has it."""
    try:
        yield
    except Exception as error:
        if on_cluster() and MISSING.search(str(error)):
            raise ValueError(f"{OTHER_FILES}: a file is missing there") from error
        raise


class SparkEngine(SuiteEngine):
    """A `SuiteEngine` on one data frame a table."""

    leaves = ("expect_column_median_to_be_between", "expect_column_quantile_values_to_be_between")
    """Spark drops NaN from quantiles."""

    def __init__(self, context: AbstractDataContext, tables: Sequence[TableJob], scratch: Path) -> None:  # noqa: ARG002
        self._scratch = scratch
        self._failure: RuntimeError | None = None
        self._context = context
        SparkDatasource.execution_engine_override = ConditionsOnlyEngine  # type: ignore[misc]
        self._source: SparkDatasource | None = None
        self._frames: dict[str, DataFrame] = {}

    def batch(self, table: TableJob, columns: Collection[str] | None = None) -> Batch:  # noqa: ARG002 - Spark chooses
        """All rows of the table's files."""
        session = self._session()
        with _missing_told():
            frame = self._frames[table.name] = frame_of(session, table)
        batch: Batch = self._definition(table).get_batch({"dataframe": frame.drop(FILE)})
        return batch

    def _session(self) -> SparkSession:
        """The session, opened for the first table; a Spark that did not start is not waited for again."""
        if self._failure is not None:
            raise self._failure
        try:
            return open_session(self._scratch)
        except RuntimeError as error:
            self._failure = error
            raise

    def rows(self, table: TableJob) -> dict[str, int]:
        """The rows of each file, as Spark's workers find them."""
        with _missing_told():
            counts = self._frames[table.name].groupBy(FILE).count().collect()
        return {str(path_of(file).relative_to(table.view)): count for file, count in counts}

    def locate(self, table: TableJob, expectation: Expectation) -> list[RefusedRows]:
        """Group the rows that the expectation refuses by their file."""
        if not map_metric(expectation):
            return []
        options = {"dataframe": self._frames[table.name]}
        validator = self._context.get_validator(batch_request=self._definition(table).build_batch_request(options))
        writer = RowWriter(columns_of(expectation), table.personal)
        condition, domain, _ = validator.get_metric(metric_of(expectation, "condition"))
        rows = validator.execution_engine.get_domain_records(domain_kwargs=domain)
        places = self._places(rows.withColumn(REFUSED, condition), writer)
        root = Path(table.view)
        located = [RefusedRows(str(path_of(file).relative_to(root)), rows, example) for file, rows, example in places]
        return sorted(located, key=lambda place: (-place.rows, place.file))

    def _places(self, rows: DataFrame, writer: RowWriter) -> list[tuple[str, int, str]]:
        from pyspark.sql import functions as f

        quoted = [f"`{name.replace('`', '``')}`" for name in writer.columns]
        examples = [f.first(name).alias(f"c{number}") for number, name in enumerate(quoted)]
        grouped = rows.filter(REFUSED).groupBy(FILE).agg(f.count("*").alias("n"), *examples)
        return [(file, count, writer.recordable(values)) for file, count, *values in grouped.collect()]

    def _definition(self, table: TableJob) -> Any:
        if self._source is None:
            # Without `persist`: a table that is larger than the heap is read again for each query.
            self._source = self._context.data_sources.add_spark("spark", persist=False)
        name = f"{table.name} {len(self._source.assets)}"
        return self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
