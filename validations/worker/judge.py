"""Run every table's suite with Great Expectations. Only the worker imports this, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import great_expectations as gx
from great_expectations.core import ExpectationSuite
from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from prefect_stagegate.validations.engines.engine import SuiteEngine, load_engine
from prefect_stagegate.validations.files.probes import ALL_PROBES, UnreadableFile, first_line, table_probe
from prefect_stagegate.validations.records import ExpectationVerdict, Judgement, TableJob, TableReport
from prefect_stagegate.validations.worker.elsewhere import OTHERS, has_sql, needed_columns, refusal
from prefect_stagegate.validations.worker.results import NOT_KNOWN, error_of, is_about_the_suite, is_unknown, judge
from prefect_stagegate.validations.worker.suites import build

VERDICT_ONLY = {"result_format": "BOOLEAN_ONLY"}
"""Asks for the counts that decide. Examples take a query over the table for each expectation."""
RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 3}
"""Counts and three examples; COMPLETE would return every refused row."""
PAGES = {"parquet": "parquet-pages"}
"""The probe that reads a whole file, by the probe that opens it, where the two differ."""

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


class BadSuites(Exception):
    """The suites can't be used; `args[0]` lists every problem of every table."""


def judge_tables(tables: Sequence[TableJob], scratch: Path, progress: Callable[[str], None]) -> Iterator[TableReport]:
    """Judge the tables one after the other, in one process and one context.

    Raises:
        BadSuites: A suite is wrong. It is raised before any table is read.
    """
    suites = _build_suites(tables)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    engines = Engines(context, tables, scratch)
    for table in tables:
        expectations = suites[table.name]
        progress(f"judging table {table.name}: expectations {len(expectations)}, files {len(table.files)}")
        yield _judge_table(engines, table, expectations)


def lint_tables(tables: Sequence[TableJob]) -> Iterator[TableReport]:
    """Build the suites of the tables and judge nothing: the reports are empty.

    Raises:
        BadSuites: A suite is wrong.
    """
    for name in _build_suites(tables):
        yield TableReport(name, ())


def _build_suites(tables: Sequence[TableJob]) -> dict[str, list[Expectation]]:
    """The expectations of each table; raises `BadSuites` with the mistakes of all of them."""
    built = {table.name: build(table.name, table.suite) for table in tables}
    if problems := [problem for _, of_table in built.values() for problem in of_table]:
        raise BadSuites(problems)
    return {name: expectations for name, (expectations, _) in built.items()}


def _judge_table(engines: Engines, table: TableJob, expectations: Sequence[Expectation]) -> TableReport:
    """Judge a table. When unreadable files make that fail, report them and judge the other files."""
    engine = engines.of(table.engine, table)
    sql = [item for item in expectations if table.engine != "duckdb" and has_sql(item)]
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
    report = TableReport(table.name, [judgement for _, judgement, _ in located], unreadable)
    return replace(report, values=counted.values(), read=len(counted.read)) if counted else report


def _without_sql(table: TableJob, expectation: Expectation) -> Judged:
    problem = f"not evaluated: no SQL of a suite runs on {table.engine}"
    return expectation, _errored(expectation, problem, table.columns), NOT_KNOWN


def _judge_elsewhere(engines: Engines, table: TableJob, judged: list[Judged]) -> list[Judged]:
    """Judge what the table's own engine does not know on the first other one that does."""
    for name in OTHERS[table.engine]:
        unknown = [_refused(entry, refusal(name, table, entry[0])) for entry in judged if is_unknown(entry[2])]
        accepted = [item for item, _, _ in unknown if not refusal(name, table, item)]
        answered = [entry for entry in _judge_on(engines, name, table, accepted) if not is_unknown(entry[2])]
        items = [item for item, _, _ in answered]
        # What no engine knows keeps the advice of the first.
        judged = [entry for entry in judged if not is_unknown(entry[2])]
        judged += answered + [entry for entry in unknown if entry[0] not in items]
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
        judged = _run(engine.batch(table, needed_columns(expectations)), expectations, table.columns)
    except Exception as error:  # noqa: BLE001 - engines raise what their libraries raise
        problem = f"not evaluated: the table could not be read: {first_line(error)}"
        errored = [(item, _errored(item, problem, table.columns), str(error)) for item in expectations]
        return errored, True
    return judged, any(error and not is_about_the_suite(error) for _, _, error in judged)


def _run(batch: Batch, expectations: Sequence[Expectation], columns: Sequence[str]) -> list[Judged]:
    """Evaluate a suite as a whole, then alone, with figures, each expectation that did not hold.

    Great Expectations computes many figures in one query. When one of them fails, all of them do, so an expectation
    with an error gets a second chance, too.
    """
    results = batch.validate(_suite(expectations), result_format=VERDICT_ONLY).results
    judged = [_judged(result, columns) for result in results]
    return [
        (expectation, judgement, error)
        if judgement.verdict is ExpectationVerdict.PASSED or is_about_the_suite(error)
        else _judged(batch.validate(_suite([expectation]), result_format=RESULT_FORMAT).results[0], columns)
        for expectation, judgement, error in judged
    ]


def _suite(expectations: Sequence[Expectation]) -> ExpectationSuite:
    return ExpectationSuite(name="contract", expectations=list(expectations))


def _judged(result: gx.core.ExpectationValidationResult, columns: Sequence[str]) -> Judged:
    config = result.expectation_config
    assert config is not None  # noqa: S101 - every result of a suite has one
    kwargs = {name: value for name, value in config.kwargs.items() if name != "batch_id"}
    expectation = ExpectationConfiguration(
        type=config.type, kwargs=kwargs, severity=config.severity, description=config.description
    ).to_domain_obj()
    return expectation, judge(result, expectation, columns), "" if result.success else error_of(result)


def _errored(expectation: Expectation, problem: str, columns: Sequence[str]) -> Judgement:
    empty = gx.core.ExpectationValidationResult(success=False, result={}, exception_info={})
    return replace(judge(empty, expectation, columns), problem=problem)


def _unreadable(table: TableJob) -> list[tuple[str, str]]:
    """The files of a table that can't be read to their end, with the reason."""
    problems = []
    for file, path in zip(table.files, table.paths(), strict=True):
        probe = table_probe(file)
        try:
            ALL_PROBES[PAGES.get(probe, probe)](path)
        except UnreadableFile as error:
            problems.append((file, error.problem))
    return problems


def _with_places(engine: SuiteEngine, table: TableJob, expectation: Expectation, judgement: Judgement) -> Judgement:
    if judgement.verdict is not ExpectationVerdict.FAILED:
        return judgement
    return replace(judgement, places=engine.locate(table, expectation))
