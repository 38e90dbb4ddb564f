"""Computes Great Expectations' aggregates file by file, and only over files without values from an earlier validation.

Great Expectations bundles the aggregates of all expectations into one query over the table. `ByFileEngine` groups that
query by file, keeps each file's values by the digest of its bytes, and merges them into the table's values. So a new
version of a table costs its new files. What does not merge is computed over the whole table, as before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import sqlalchemy as sa
from great_expectations.execution_engine.execution_engine import MetricComputationConfiguration
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from great_expectations.util import convert_to_json_serializable

from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.model.measures import FileValues, Values
from prefect_stagegate.validations.engines.known_metrics import KnownMetrics, as_bound
from prefect_stagegate.validations.engines.merging import Merge, merge_of

VERSION = 2
"""Raise it when kept values change their meaning."""
ENGINES = {name: version(name) for name in ("duckdb", "great-expectations")}
"""Another release may compute another value, so values are kept for these only."""
LARGEST = 2**63
_ORDERED = re.compile(r"U?(TINY|SMALL|BIG)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(.*|DATE|TIMESTAMP.*")
"""Types of columns whose extremes are kept: JSON orders them as DuckDB does. Text may be somebody's name."""
_WHOLE_TABLE = re.compile(r"\b(SELECT|OVER)\b", re.IGNORECASE)
"""An expression with a query or window looks at other rows than its own, which may be in other files."""


@dataclass
class FilesOfTable:
    """One batch, file by file."""

    view: str
    """The view with a column that names each row's file."""
    column: str
    """That column."""
    view_of: Callable[[Sequence[str]], str]
    """Makes such a view of some of its files, and returns its name."""
    digests: Mapping[str, str]
    """The digest of each file's bytes, by its path on this node."""
    types: Mapping[str, str]
    """The columns of the batch with their types."""
    known: FileValues
    """What an earlier validation computed."""
    personal: frozenset[str] = frozenset()
    """The columns with personal data, of which only counts are kept; in lower case."""
    by_aggregate: dict[str, dict[str, Values | None]] = field(default_factory=dict)
    """The values of this batch's files, known and computed: by aggregate, then by the digest of the file."""
    read: set[str] = field(default_factory=set)
    """The files that were read, since something of them was not known."""

    def values(self) -> FileValues:
        """All values for the next validation, without those of failed queries and those that JSON can't hold."""
        digests = sorted(set(self.digests.values()))
        kept = {name: files for name, files in sorted(self.by_aggregate.items()) if files.keys() >= set(digests)}
        return FileValues(
            tuple(kept),
            # None at all are as good as damaged ones: the file is read again.
            {
                digest: [row if _fits_json(row := files[digest]) else () for files in kept.values()]
                for digest in digests
            },
        )


@dataclass(frozen=True)
class _Aggregate:
    """One metric of a bundle, as a query."""

    metric: Any
    """Its id."""
    merge: Merge
    columns: Sequence[sa.ColumnElement[Any]]
    domain: Mapping[str, Any]
    """Which rows count."""
    key: str
    """The digest of all that the values depend on beside the bytes."""


class ByFileEngine(KnownMetrics, SqlAlchemyExecutionEngine):
    """Great Expectations' engine for SQL, with aggregates by file for the batches in `tables`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tables: dict[str, FilesOfTable] = {}
        """By the id of the batch."""

    def resolve_metric_bundle(self, metric_fn_bundle: Iterable[MetricComputationConfiguration]) -> dict[Any, Any]:
        """Compute the metrics of a bundle: by file where they merge, else over the whole table."""
        whole: list[MetricComputationConfiguration] = []
        by_batch: dict[str, list[_Aggregate]] = {}
        for item in metric_fn_bundle:
            batch = (item.compute_domain_kwargs or {}).get("batch_id") or self.batch_manager.active_batch_data_id or ""
            aggregate = self._aggregate(item, self.tables[batch]) if batch in self.tables else None
            if aggregate:
                by_batch.setdefault(batch, []).append(aggregate)
            else:
                whole.append(item)
        resolved = dict(super().resolve_metric_bundle(whole)) if whole else {}
        for batch, aggregates in by_batch.items():
            table = self.tables[batch]
            self._compute(table, aggregates)
            for aggregate in aggregates:
                values = [table.by_aggregate[aggregate.key][digest] for digest in table.digests.values()]
                resolved[aggregate.metric] = aggregate.merge.merge([value for value in values if value is not None])
        return resolved

    def _aggregate(self, item: MetricComputationConfiguration, table: FilesOfTable) -> _Aggregate | None:
        """The query of a metric; None where it doesn't merge."""
        metric = item.metric_configuration
        merge = merge_of(metric.metric_name)
        column = metric.metric_domain_kwargs.get("column", "")
        if (
            merge is None
            or (merge.of_values and not _ORDERED.fullmatch(table.types.get(column, "")))
            or (not merge.is_count and column.casefold() in table.personal)
            or _WHOLE_TABLE.search(self._text(item.metric_fn))
        ):
            return None
        columns = [item.metric_fn]
        if merge.needs:
            values: sa.ColumnClause[Any] = sa.column(column)
            more = {"count": sa.func.count(values), "mean": sa.func.avg(1.0 * values)}
            columns += [more[name] for name in merge.needs]
        domain = item.compute_domain_kwargs or {}
        rows = self.rows(domain, table.view)
        text = self._text(sa.select(*columns).select_from(rows)).replace(table.view, "files")
        used = {name: kind for name, kind in table.types.items() if name in text}
        key = digest_of({"version": VERSION, "engines": ENGINES, "query": text, "types": used})
        return _Aggregate(metric.id, merge, columns, domain, key)

    def rows(self, domain: Mapping[str, Any], view: str) -> sa.FromClause:
        """The rows of a view that count, with their file."""
        rows: Any = self.get_domain_records(domain_kwargs={**domain, "table": view})
        return rows.subquery() if isinstance(rows, sa.Select) else rows

    def _text(self, query: sa.ClauseElement) -> str:
        compiled = query.compile(dialect=self.engine.dialect)
        return f"{compiled} {sorted((name, repr(value)) for name, value in compiled.params.items())}"

    def _compute(self, table: FilesOfTable, aggregates: Sequence[_Aggregate]) -> None:
        """Compute the missing values of the aggregates. Aggregates that miss the same files share one query."""
        queries: dict[tuple[str, tuple[str, ...]], list[_Aggregate]] = {}
        for aggregate in {aggregate.key: aggregate for aggregate in aggregates}.values():
            known = table.by_aggregate.setdefault(aggregate.key, {})
            earlier = table.known.of(aggregate.key)
            known.update(_usable(earlier, table.digests.values(), len(aggregate.columns)))
            missing = tuple(path for path, digest in table.digests.items() if digest not in known)
            if missing:
                rows = self._text(sa.select(self.rows(aggregate.domain, table.view)))
                queries.setdefault((rows, missing), []).append(aggregate)
        for (_, missing), together in queries.items():
            self._query(table, together, missing)

    def _query(self, table: FilesOfTable, aggregates: Sequence[_Aggregate], missing: Sequence[str]) -> None:
        file: sa.ColumnClause[str] = sa.column(table.column)
        columns = [column for aggregate in aggregates for column in aggregate.columns]
        labelled = [column.label(f"value_{number}") for number, column in enumerate(columns)]
        view = table.view if len(missing) == len(table.digests) else table.view_of(missing)
        query = sa.select(file, *labelled).select_from(self.rows(aggregates[0].domain, view)).group_by(file)
        rows = {row[0]: list(map(_json_value, row[1:])) for row in self.execute_query(query).fetchall()}
        # Without a row, a file would count as one of which no row counts, and pass.
        if strangers := rows.keys() - set(missing):
            raise ValueError(f"DuckDB names rows by other paths than the table's files: {sorted(strangers)[0]}")
        table.read.update(missing)
        for path in missing:
            values = rows.get(path)  # none where no row of the file counts
            start = 0
            for aggregate in aggregates:
                end = start + len(aggregate.columns)
                table.by_aggregate[aggregate.key][table.digests[path]] = values[start:end] if values else None
                start = end


def _json_value(value: Any) -> Any:
    """The value as JSON has it. A float stays: Great Expectations would take NaN for a missing value."""
    value = as_bound(value)
    return value if isinstance(value, float) else convert_to_json_serializable(value)


def _fits_json(values: Values | None) -> bool:
    """Whether JSON holds the values as they are: finite, and integers of 64 bits."""
    numbers = [value for value in values or () if isinstance(value, int | float)]
    return all(abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value) for value in numbers)


def _usable(
    earlier: Mapping[str, Values | None], digests: Iterable[str], width: int
) -> Iterator[tuple[str, Values | None]]:
    """The earlier values of these files; those of another number of aggregates come from a damaged record."""
    for digest in digests:
        values = earlier.get(digest, ())
        if values is None or len(values) == width:
            yield digest, values
