"""Judge tables with DuckDB: it scans the files in place, in bounded memory.

Every table of the contract is also a view under its own name, so that an `unexpected_rows_expectation` can join
tables.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa
from great_expectations.core.batch_definition import BatchDefinition
from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
from great_expectations.expectations.core.unexpected_rows_expectation import UnexpectedRowsExpectation
from great_expectations.expectations.expectation import Expectation

from prefect_stagegate.quoting import identifier
from prefect_stagegate.validations.engines.by_file import ByFileEngine, FilesOfTable
from prefect_stagegate.validations.engines.duckdb_dialect import FOLDERS, Refused, connect, register
from prefect_stagegate.validations.engines.duckdb_patterns import use_patterns
from prefect_stagegate.validations.engines.uniqueness import METRIC as UNIQUE
from prefect_stagegate.validations.engines.uniqueness import count_by_groups, is_repeated
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.partition_columns import row_digests
from prefect_stagegate.validations.queries.duck import MEMORY_MIB, THREADS
from prefect_stagegate.validations.queries.relations import FILE, TableFiles, relation_of
from prefect_stagegate.validations.worker.judgements import columns_of, map_metric, metric_of
from prefect_stagegate.validations.worker.process_limits import SHARE, applied
from prefect_stagegate.validations.worker.statements import select_problem
from prefect_stagegate.validations.worker.values import RowWriter
from prefect_stagegate.validations.worker.worker_messages import RefusedRows, TableJob

BY_FILE = "{}_by_file"
"""Name of the view that adds a column to the batch: the file of each row."""


class DuckDBEngine:
    """A `SuiteEngine` on a database that holds nothing but views."""

    leaves: Collection[str] = ()

    def __init__(self, context: AbstractDataContext, tables: Sequence[TableJob], scratch: Path) -> None:
        database, folders = str(scratch / "views.duckdb"), sorted({table.view for table in tables} | {str(scratch)})
        config = {"temp_directory": str(scratch / "spill"), "threads": str(THREADS), **_bounds()}
        config["preserve_insertion_order"] = "false"
        url = sa.URL.create(register(), database=database, query={**config, FOLDERS: json.dumps(folders)})
        self._context = context
        # Great Expectations asks the class, not the source, for its engine. This process judges and ends.
        SQLDatasource.execution_engine_override = ByFileEngine  # type: ignore[misc]
        count_by_groups(ByFileEngine)
        use_patterns(ByFileEngine)
        self._source = context.data_sources.add_sql(
            "duckdb", connection_string=url.render_as_string(hide_password=False), create_temp_table=False
        )
        self._connection = connect(database, config, folders)
        self._batches: dict[str, tuple[str, Sequence[str]]] = {}
        self._by_table: dict[str, FilesOfTable] = {}
        for table in tables:
            # A table that can't be read fails again in `batch`, where the error can name it.
            with suppress(duckdb.Error):
                self._define(table)

    def batch(self, table: TableJob, columns: Collection[str] | None = None) -> Batch:  # noqa: ARG002 - SQL chooses
        """All rows of the table's files. Every query scans Parquet anew; files of other formats are read once."""
        name = self._define(table)
        asset = self._source.add_table_asset(name, table_name=name)
        batch = asset.add_batch_definition_whole_table("all").get_batch()
        if by_file := self._files(table, name):
            engine = self._source.get_execution_engine()
            assert isinstance(engine, ByFileEngine)  # noqa: S101 - by the override above
            engine.tables[batch.id] = self._by_table[table.name] = by_file
        return batch

    def _files(self, table: TableJob, name: str) -> FilesOfTable | None:
        """What is needed to count file by file; None beside Parquet: the types of text files depend on all of them."""
        if not _is_parquet(table) or not table.digests:
            return None
        view = BY_FILE.format(name)
        types = {column: str(kind) for column, kind, *_ in self._execute(f"SELECT * FROM (DESCRIBE {view})")}  # noqa: S608
        rows = row_digests({file: table.digests[file] for file in table.files}, table.reading)
        digests = {str(path): rows[file] for file, path in zip(table.files, table.paths(), strict=True)}
        personal = frozenset(map(str.casefold, table.personal))
        return FilesOfTable(view, FILE, partial(self._view_of, table, view), digests, types, table.known, personal)

    def _view_of(self, table: TableJob, view: str, paths: Sequence[str]) -> str:
        """A view like `view` with only these of its files."""
        name = f"{view}_missing"
        self._create(f"CREATE OR REPLACE VIEW {name} AS", table, paths)
        return name

    def rows(self, table: TableJob) -> dict[str, int]:
        """The rows of each file, as the view finds them."""
        view, root = BY_FILE.format(self._batches[table.name][0]), Path(table.view)
        counts = self._execute(f"SELECT {FILE}, count(*) FROM {view} GROUP BY 1")  # noqa: S608
        return {str(Path(file).relative_to(root)): count for file, count in counts}

    def counted(self, table: TableJob) -> FilesOfTable | None:
        """What is known of each file after the suite ran; None where the table was judged as a whole."""
        return self._by_table.get(table.name)

    def _define(self, table: TableJob) -> str:
        """Create the table's views, unless they exist for exactly these files, and return the batch view's name.

        Each list of files gets a new name, since Great Expectations caches results by name. The name needs no quotes,
        since the queries of suites have none around it.
        """
        name, files = self._batches.get(table.name, ("", ()))
        if name and files == table.files:
            return name
        name = f"stagegate_{len(self._batches)}_{len(table.files)}"
        by_file = BY_FILE.format(name)
        # Other formats than Parquet are read into the database once: a view would parse them for each query.
        kind = "VIEW" if _is_parquet(table) else "TABLE"
        self._create(f"CREATE {kind} {by_file} AS", table)
        self._connection.execute(f"CREATE VIEW {name} AS SELECT * EXCLUDE ({FILE}) FROM {by_file}")  # noqa: S608
        self._connection.execute(f"CREATE OR REPLACE VIEW {identifier(table.name)} AS FROM {name}")
        self._batches[table.name] = name, table.files
        return name

    def _create(self, statement: str, table: TableJob, only: Sequence[str] = ()) -> None:
        # Nothing is registered while a result is unread. Arrow's and CSV's readers are this connection's own.
        self._connection.complete()
        files = TableFiles(Path(table.view), table.files, table.reading)
        rows = relation_of(self._connection, files, filename=FILE, only=only)
        self._connection.execute(f"{statement} {rows}")

    def locate(self, table: TableJob, expectation: Expectation) -> list[RefusedRows]:
        """Group the rows that the expectation refuses by their file."""
        view = BY_FILE.format(self._batches[table.name][0])
        columns = columns_of(expectation) if map_metric(expectation) else []
        rows: Sequence[Any] = self._refused_rows(view, expectation) if columns else ()
        if isinstance(expectation, UnexpectedRowsExpectation):
            query = str(expectation.unexpected_rows_query).replace("{batch}", view)
            rows = self._execute(f"SELECT {FILE}, count(*) FROM ({query}) GROUP BY 1")  # noqa: S608
        root, writer = Path(table.view), RowWriter(columns, table.personal)
        places = [
            RefusedRows(str(Path(file).relative_to(root)), count, writer.recordable(values))
            for file, count, *values in rows
        ]
        return sorted(places, key=lambda place: (-place.rows, place.file))

    def _refused_rows(self, view: str, expectation: Expectation) -> Sequence[Any]:
        """Each file with refused rows, their number, and a value of each column that the expectation is about."""
        validator = self._context.get_validator(batch_request=self._by_file(view).build_batch_request())
        engine = validator.execution_engine
        assert isinstance(engine, ByFileEngine)  # noqa: S101 - by the override above
        metric = metric_of(expectation, "condition")
        rows = engine.rows(metric.metric_domain_kwargs, view)
        if map_metric(expectation) == UNIQUE:
            condition = is_repeated(metric.metric_domain_kwargs["column"], rows)
        else:
            condition, *_ = validator.get_metric(metric)
        examples = [sa.func.any_value(sa.column(name)) for name in columns_of(expectation)]
        query = sa.select(sa.column(FILE), sa.func.count(), *examples).where(condition)
        return list(engine.execute_query(query.select_from(rows).group_by(sa.column(FILE))))

    def _by_file(self, view: str) -> BatchDefinition[Any]:
        """The batch definition over the view with files; the first call makes it."""
        if view in self._source.get_asset_names():
            definition: BatchDefinition[Any] = self._source.get_asset(view).get_batch_definition("all")
            return definition
        return self._source.add_table_asset(view, table_name=view).add_batch_definition_whole_table("all")

    def _execute(self, statement: str) -> list[tuple[Any, ...]]:
        if problem := select_problem(statement):
            raise Refused(problem)
        return self._connection.execute(statement).fetchall()


def _bounds() -> dict[str, str]:
    """DuckDB's bounds of memory and spilled bytes, from those of this process."""
    memory, spill = applied()
    bounds = {"memory_limit": f"{memory // SHARE}B" if memory else f"{MEMORY_MIB}MiB"}
    return bounds | {"max_temp_directory_size": f"{spill}B"} if spill else bounds


def _is_parquet(table: TableJob) -> bool:
    return all(form(path) == "parquet" for path in table.paths())
