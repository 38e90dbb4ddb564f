"""Run every table's suite with Great Expectations. Only the worker imports this, which takes seconds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import great_expectations as gx
from great_expectations.core import ExpectationSuite
from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from prefect_stagegate.units import count_text
from prefect_stagegate.validations.engines.engine import SuiteEngine, load_engine
from prefect_stagegate.validations.engines.known_metrics import KnownMetrics, known_metrics
from prefect_stagegate.validations.files.facts import UnreadableFile
from prefect_stagegate.validations.files.probes import OPENERS, TABLE_ONLY, parquet_pages, table_probe
from prefect_stagegate.validations.worker.elsewhere import OTHERS, needed_columns, needs_duckdb, refusal
from prefect_stagegate.validations.worker.judgements import (
    LIMITS_FIX,
    NOT_KNOWN,
    engine_reason,
    error_of,
    is_about_the_suite,
    is_unknown,
    judge,
)
from prefect_stagegate.validations.worker.process_limits import is_about_limits
from prefect_stagegate.validations.worker.suite_objects import POSITION, BuiltSuite, build
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement, TableJob, TableReport

VERDICT_ONLY = {"result_format": "BOOLEAN_ONLY"}
"""Asks for the counts that decide. Examples take a query over the table for each expectation."""
FIGURES = {"result_format": "BASIC"}
"""Asks for the counts and figures of a pass, which were computed for its verdict."""
RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 20}
"""Counts and 20 rows, of which the first different values are examples; COMPLETE would return every refused row."""
FILES_FIX = "Look at the files that `coverage` names, or judge the table with another `engine:`."
READERS = {**OPENERS, **TABLE_ONLY, "parquet": parquet_pages}
"""The probe that reads a whole file, by the name of the one that opens it."""

Judged = tuple[Expectation, Judgement, str]
"""An expectation, its judgement, and why it could not be evaluated (empty when it was)."""


class Engines:
    """The engines of one job, each made when a table first needs it."""

    def __init__(self, context: AbstractDataContext, tables: Sequence[TableJob], scratch: Path) -> None:
        self._context = context
        self._tables = tables
        self._scratch = scratch
        self._engines: dict[str, SuiteEngine] = {}

    def of(self, name: str, table: TableJob) -> SuiteEngine:
        """The engine of this name, for `table`."""
        if name not in self._engines:
            # An engine gets all its tables, since a suite of one may query the others.
            tables = [other for other in self._tables if other.engine in (name, table.engine)]
            self._engines[name] = load_engine(name)(self._context, tables, self._scratch)
        return self._engines[name]


class OtherRows(Exception):
    """An engine reads other rows of a file than its probe; the text quotes no value."""


class BadSuites(Exception):
    """The suites can't be used; `args[0]` lists every problem of every table."""


def judge_tables(tables: Sequence[TableJob], scratch: Path, progress: Callable[[str], None]) -> Iterator[TableReport]:
    """Judge the tables one after the other, in one process and one context.

    Raises:
        BadSuites: A suite is wrong. It is raised before any table is read.
    """
    suites = _build_suites(tables)
    if problems := [problem for built in suites.values() for problem in built.problems]:
        raise BadSuites(problems)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    engines = Engines(context, tables, scratch)
    for table in tables:
        expectations = suites[table.name].expectations
        progress(f"judging table {table.name}: expectations {len(expectations)}, files {len(table.files)}")
        report = _judge_table(engines, table, expectations)
        judgements = list(report.judgements)
        for position, judgement in suites[table.name].unloadable.items():
            judgements.insert(position - 1, judgement)  # in the suite's order
        yield replace(report, judgements=judgements)


def lint_tables(tables: Sequence[TableJob]) -> Iterator[TableReport]:
    """Build the suites of the tables and judge nothing: the reports are empty.

    Raises:
        BadSuites: A suite is wrong, or needs a package that can't be loaded.
    """
    suites = _build_suites(tables)
    problems = [problem for built in suites.values() for problem in built.problems]
    problems += [
        f"table {name}: {judgement.expectation}: {judgement.problem}. {judgement.fix}"
        for name, built in suites.items()
        for judgement in built.unloadable.values()
    ]
    if problems:
        raise BadSuites(problems)
    for table in tables:
        yield TableReport(table.name, ())


def _build_suites(tables: Sequence[TableJob]) -> dict[str, BuiltSuite]:
    """The expectations of each table, with the mistakes in its suite."""
    return {table.name: build(table.name, table.suite, table.engine) for table in tables}


def _judge_table(engines: Engines, table: TableJob, expectations: Sequence[Expectation]) -> TableReport:
    """Judge a table. When unreadable files make that fail, report them and judge the other files."""
    engine = engines.of(table.engine, table)
    leaves = engine.leaves
    sql = [item for item in expectations if needs_duckdb(table.engine, item) or item.configuration.type in leaves]
    known = [item for item in expectations if item not in sql]
    judged, failure = _try_to_run(engine, table, known)
    # Reading every file to its end is slow, so it is done only after a failure that the suite doesn't explain.
    unreadable = _unreadable(table) if failure else []
    if unreadable:
        table = table.without([file for file, _ in unreadable])
        judged = _try_to_run(engine, table, known)[0] if table.files else []
    located = [(item, _with_places(engine, table, item, judgement), error) for item, judgement, error in judged]
    if table.files:
        located = _judge_elsewhere(engines, table, located + [_without_sql(table, item) for item in sql])
    counted = engine.counted(table)
    report = TableReport(table.name, [judgement for _, judgement, _ in sorted(located, key=_position)], unreadable)
    # Without aggregates, whatever was asked took the whole table.
    if counted is None or not counted.by_aggregate:
        return report
    return replace(report, values=counted.values(), read=len(counted.read))


def _without_sql(table: TableJob, expectation: Expectation) -> Judged:
    problem = f"not evaluated: no SQL of a suite runs on {table.engine}"
    return expectation, _errored(expectation, problem, "", table.columns), NOT_KNOWN


def _judge_elsewhere(engines: Engines, table: TableJob, judged: list[Judged]) -> list[Judged]:
    """Judge what the table's own engine does not know on the first other one that does."""
    for name in (name for name in OTHERS if name != table.engine):
        unknown = [_refused(entry, refusal(name, table, entry[0])) for entry in judged if is_unknown(entry[2])]
        accepted = [item for item, _, _ in unknown if not refusal(name, table, item)]
        answered = [entry for entry in _judge_on(engines, name, table, accepted) if not is_unknown(entry[2])]
        positions = set(map(_position, answered))
        # What no engine knows keeps the advice of the first.
        judged = [entry for entry in judged if not is_unknown(entry[2])]
        judged += answered + [entry for entry in unknown if _position(entry) not in positions]
    return judged


def _judge_on(engines: Engines, name: str, table: TableJob, expectations: Sequence[Expectation]) -> list[Judged]:
    if not expectations:
        return []
    engine = engines.of(name, table)
    judged, _ = _try_to_run(engine, table, expectations)
    return [
        (item, replace(_with_places(engine, table, item, judgement), engine=name), error)
        for item, judgement, error in judged
    ]


def _refused(entry: Judged, reason: str) -> Judged:
    if not reason:
        return entry
    expectation, judgement, error = entry
    return expectation, replace(judgement, problem=f"{judgement.problem}; {reason}"), error


def _try_to_run(engine: SuiteEngine, table: TableJob, expectations: Sequence[Expectation]) -> tuple[list[Judged], bool]:
    """All judgements, and whether there was an error that the suite doesn't explain."""
    if not expectations:
        return [], False
    try:
        batch = engine.batch(table, needed_columns(expectations))
        _require_rows(engine, table)
    except Exception as error:  # noqa: BLE001 - engines raise what their libraries raise
        text = f"{type(error).__name__}: {error}"
        is_discreet = bool(table.personal) and not isinstance(error, OtherRows)
        reason = engine_reason(str(error) or type(error).__name__, is_discreet=is_discreet)
        problem = f"not evaluated: the table could not be read: {reason}"
        fix = LIMITS_FIX if is_about_limits(text) else FILES_FIX
        judged = [(item, _errored(item, problem, fix, table.columns), text) for item in expectations]
    else:
        judged = _run_apart(batch, table, expectations)
    # A file is not unreadable because the memory was too small for the table.
    return judged, any(error and not (is_about_the_suite(error) or is_about_limits(error)) for _, _, error in judged)


def _require_rows(engine: SuiteEngine, table: TableJob) -> None:
    """Refuse a batch whose files or rows are not those of the probes: an engine may take a name for a pattern.

    Raises:
        OtherRows: It names a file, with its rows on both sides.
    """
    read = engine.rows(table) if table.rows else {}
    for file in sorted({*table.rows, *read}):
        rows, expected = read.get(file, 0), table.rows.get(file, 0)
        if rows != expected:
            raise OtherRows(f"{file} has {count_text(expected, 'row')}, and the engine reads {rows:,}")


def _run_apart(batch: Batch, table: TableJob, expectations: Sequence[Expectation]) -> list[Judged]:
    """Evaluate a suite; after an error that ends it, each expectation by itself, so that only the cause is blamed."""
    try:
        return _run(batch, table, expectations)
    except Exception as error:  # noqa: BLE001 - engines raise what their libraries raise
        if len(expectations) == 1:
            text = f"{type(error).__name__}: {error}"
            info = {"raised_exception": True, "exception_message": text}
            result = gx.core.ExpectationValidationResult(success=False, result={}, exception_info=info)
            return [(expectations[0], judge(result, expectations[0], table.columns, table.personal), text)]
    return [judged for item in expectations for judged in _run_apart(batch, table, [item])]


def _run(batch: Batch, table: TableJob, expectations: Sequence[Expectation]) -> list[Judged]:
    """Evaluate a suite as a whole, then ask for the figures of each expectation.

    Great Expectations computes many figures in one query. When one of them fails, all of them do, so an expectation
    with an error gets a second chance, too.
    """
    results = batch.validate(_suite(expectations), result_format=VERDICT_ONLY).results
    metrics = known_metrics(batch)
    judged, used = [], []
    for result in results:
        if metrics:
            metrics.used.clear()
        judged.append(_with_figures(batch, table, _judged(result, table), metrics))
        used.append(frozenset(metrics.used) if metrics else frozenset())
    seconds = _parts(used, metrics.seconds if metrics else {})
    timed = [
        (expectation, replace(judgement, seconds=took), error)
        for (expectation, judgement, error), took in zip(judged, seconds, strict=True)
    ]
    # Great Expectations answers in an order of its own.
    return sorted(timed, key=_position)


def _with_figures(batch: Batch, table: TableJob, judged: Judged, metrics: KnownMetrics | None) -> Judged:
    """The same judgement with its figures: of a pass from what is known, of any other by further queries."""
    expectation, judgement, error = judged
    if judgement.verdict is not ExpectationVerdict.PASSED:
        if is_about_the_suite(error):
            return judged
        return _judged(batch.validate(_suite([expectation]), result_format=RESULT_FORMAT).results[0], table)
    if metrics is None:
        return judged
    with metrics.only_known():
        figures = _judged(batch.validate(_suite([expectation]), result_format=FIGURES).results[0], table)
    return figures if figures[1].verdict is ExpectationVerdict.PASSED else judged


def _position(judged: Judged) -> int:
    """The position of the expectation in its suite, from 1."""
    return int((judged[0].meta or {}).get(POSITION, 0))


def _parts(used: Sequence[frozenset[Any]], seconds: Mapping[Any, float]) -> Iterator[float]:
    """The seconds of each expectation: those of the metrics that it used, divided among all that used them."""
    users = Counter(metric for metrics in used for metric in metrics)
    for metrics in used:
        yield sum(seconds.get(metric, 0.0) / users[metric] for metric in metrics)


def _suite(expectations: Sequence[Expectation]) -> ExpectationSuite:
    return ExpectationSuite(name="contract", expectations=list(expectations))


def _judged(result: gx.core.ExpectationValidationResult, table: TableJob) -> Judged:
    config = result.expectation_config
    assert config is not None  # noqa: S101 - every result of a suite has one
    kwargs = {name: value for name, value in config.kwargs.items() if name != "batch_id"}
    expectation = ExpectationConfiguration(
        type=config.type, kwargs=kwargs, severity=config.severity, description=config.description, meta=config.meta
    ).to_domain_obj()
    judgement = judge(result, expectation, table.columns, table.personal)
    return expectation, judgement, "" if result.success else error_of(result)


def _errored(expectation: Expectation, problem: str, fix: str, columns: Sequence[str]) -> Judgement:
    empty = gx.core.ExpectationValidationResult(success=False, result={}, exception_info={})
    judgement = judge(empty, expectation, columns)
    return replace(judgement, problem=problem, fix=fix or judgement.fix)


def _unreadable(table: TableJob) -> list[tuple[str, str]]:
    """The files of a table that can't be read to their end, with the reason."""
    problems = []
    for file, path in zip(table.files, table.paths(), strict=True):
        probe = table_probe(file)
        options = {"csv": table.reading.csv} if probe == "csv" else {}
        try:
            READERS[probe](path, **options)
        except UnreadableFile as error:
            problems.append((file, error.problem))
    return problems


def _with_places(engine: SuiteEngine, table: TableJob, expectation: Expectation, judgement: Judgement) -> Judgement:
    if judgement.verdict is not ExpectationVerdict.FAILED:
        return judgement
    began = time.perf_counter()
    try:
        places = engine.locate(table, expectation)
    except Exception:  # noqa: BLE001 - an exotic metric has no rows, a query no file; the verdict holds without places
        places = []
    return replace(judgement, places=places, seconds=(judgement.seconds or 0.0) + time.perf_counter() - began)
