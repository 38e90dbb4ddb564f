"""What lineage events say of datasets: sources, versions, their tables and refs. Knows no OpenLineage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.version_records import read_origins
from prefect_stagegate.doors import load, plugins
from prefect_stagegate.model import Evidence, ExpectationResult, Outcome, Severity
from prefect_stagegate.patterns import matcher
from prefect_stagegate.plugins.observe.openlineage.dataset_names import DatasetName, clean, source_name
from prefect_stagegate.show import read_results
from prefect_stagegate.spec import Spec
from prefect_stagegate.spec.models import TableSpec

MOST_ORIGINS = 100_000
"""Entries of a version of which the sources are looked up; of a larger version no column's source is known."""
MOST_COLUMNS = 2_000
"""Columns of a table that an event names, at most."""
MOST_TABLES = 200
"""Tables that an event names, at most."""
LONGEST_TEXT = 500
"""Characters of a summary or an observed value, at most."""
FORMATS = ("parquet", "orc", "avro", "json", "csv", "text", "xml")
"""What a storage facet may call a format."""
_SUFFIXES = {"jsonl": "json", "ndjson": "json", "tsv": "csv", "txt": "text"}
_PASSED = (Outcome.PASS, Outcome.WARN, Outcome.WAIVED, Outcome.NOT_APPLICABLE)
_LEVELS = {
    "critical": "error",
    "warning": "warn",
    Severity.BLOCKING: "error",
    Severity.WARNING: "warn",
    Severity.INFO: "info",
}


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a check or an expectation found."""

    name: str
    """The check's, or the expectation's description."""
    passed: bool
    severity: str
    """`error`, `warn` or `info`."""
    column: str = ""
    description: str = ""
    actual: str = ""


@dataclass(frozen=True, slots=True)
class LineageDataset:
    """A dataset as an event names it; what is not known is empty."""

    name: DatasetName
    version: str = ""
    layer: str = ""
    """Where it is stored: `s3`, `file`, `delta`, `iceberg`, `stagegate`."""
    format: str = ""
    """The format of its files, one of `FORMATS`."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The types of its columns by name."""
    sources: tuple[DatasetName, ...] = ()
    """The datasets from which each of its columns comes unchanged."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Whom each kind of finding goes to."""
    assertions: tuple[Assertion, ...] = ()
    files: int | None = None
    bytes: int | None = None


def source_datasets(spec: Spec) -> list[LineageDataset]:
    """The sources of a spec, each place once."""
    sources = {}
    for source in spec.sources:
        name = source_name(source.url, source.options)
        scheme = source.url.partition("://")[0].lower() if "://" in source.url else "file"
        family = scheme.partition("+")[0]
        layer = family if family in ("delta", "iceberg") else name.namespace.partition(":")[0]
        sources[name] = LineageDataset(name, layer=clean(layer))
    return list(sources.values())


def dataset_name(catalog: Catalog, dataset: str, *parts: str) -> DatasetName:
    """The name of a dataset: its folder in the catalog, which is the same for every node. Parts name what is in it."""
    return source_name(catalog.url).below("datasets", dataset, *parts)


def version_datasets(
    catalog: Catalog,
    spec: Spec,
    digest: str,
    evidence: Iterable[Evidence] = (),
    *,
    ref: str = "",
    sources: Mapping[str, tuple[DatasetName, ...]] | None = None,
) -> list[LineageDataset]:
    """A version of a dataset, or what a ref of it names, and each of its tables.

    Args:
        catalog: The catalog.
        spec: The spec that the version is judged under.
        digest: The version.
        evidence: What checks found about it, in the form that is recorded.
        ref: A ref that names it: then the ref is what is described.
        sources: The datasets from which the columns of each table come.
    """
    evidence = tuple(evidence)
    parts = ("refs", ref) if ref else ()
    whole = LineageDataset(
        dataset_name(catalog, spec.dataset, *parts),
        digest,
        "stagegate",
        owners={kind: clean(owner) for kind, owner in spec.owners.items()},
        assertions=tuple(map(_check_assertion, evidence)),
    )
    results = [result for each in evidence for result in read_results(each)]
    tables = []
    for table, table_spec in islice(spec.contract.tables.items(), MOST_TABLES):
        columns = _columns(catalog, spec.dataset, digest, table, table_spec)
        assertions = (_result_assertion(result, columns) for result in results if result.table == table)
        tables.append(
            LineageDataset(
                whole.name.below("tables", table),
                digest,
                "stagegate",
                _format(table_spec.files),
                columns,
                (sources or {}).get(table, ()),
                assertions=tuple(assertion for assertion in assertions if assertion),
            )
        )
    return [whole, *tables]


def table_sources(catalog: Catalog, spec: Spec, digest: str) -> dict[str, tuple[DatasetName, ...]]:
    """The sources from which the files of each table came as they are; a table without such files is left out.

    Empty for a version of more than `MOST_ORIGINS` entries.
    """
    tables = {table: matcher(described.files) for table, described in spec.contract.tables.items()}
    names = [source_name(source.url, source.options) for source in spec.sources]
    # Rows of a query or table of a database become files on the way: its columns need not be those of one table.
    copied = [not name.namespace.startswith("postgres:") for name in names]
    sources_of: dict[str, dict[DatasetName, None]] = {table: {} for table in tables}
    for number, origin in enumerate(read_origins(catalog, spec.dataset, digest) if tables else ()):
        if number >= MOST_ORIGINS:
            return {}
        if origin.position < len(names) and copied[origin.position]:
            for table, matches in tables.items():
                if matches(origin.path):
                    sources_of[table][names[origin.position]] = None
    return {table: tuple(sources) for table, sources in sources_of.items() if sources}


def with_source_columns(
    inputs: Iterable[LineageDataset], outputs: Iterable[LineageDataset]
) -> Iterator[LineageDataset]:
    """The inputs, each with the columns that tables among the outputs take from it."""
    outputs = tuple(outputs)
    for each in inputs:
        columns = {
            column: kind for output in outputs if each.name in output.sources for column, kind in output.columns.items()
        }
        yield replace(each, columns=columns)


def _columns(catalog: Catalog, dataset: str, digest: str, table: str, spec: TableSpec) -> dict[str, str]:
    """A table's columns with their types: those that a validation found, else those that the contract declares."""
    places = (plugin.column_types for plugin in plugins() if plugin.column_types)
    found: Iterator[dict[str, str]] = (load(place)(catalog, dataset, digest, table) for place in places)
    types = next(filter(None, found), dict(spec.columns))
    return {clean(name): clean(kind) for name, kind in islice(types.items(), MOST_COLUMNS)}


def _format(pattern: str) -> str:
    suffix = pattern.removesuffix(".gz").rpartition(".")[2].lower()
    suffix = _SUFFIXES.get(suffix, suffix)
    return suffix if suffix in FORMATS else ""


def _check_assertion(evidence: Evidence) -> Assertion:
    return Assertion(
        clean(evidence.check),
        evidence.outcome in _PASSED,
        _LEVELS[evidence.severity],
        description=clean(evidence.full_summary, LONGEST_TEXT),
        actual=evidence.outcome.value,
    )


def _result_assertion(result: ExpectationResult, columns: Mapping[str, str]) -> Assertion | None:
    """What an expectation found; None where it could not be evaluated."""
    if result.verdict not in ("passed", "failed"):
        return None
    column = clean(result.column)
    return Assertion(
        clean(result.expectation, LONGEST_TEXT),
        result.verdict == "passed",
        _LEVELS.get(result.severity, "info"),
        # Of several columns, or one that no file has, the description tells.
        column if column in columns else "",
        actual=clean(result.observed, LONGEST_TEXT),
    )
