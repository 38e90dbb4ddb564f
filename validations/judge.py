"""Run every table's suite with Great Expectations. Runs in the worker: importing this takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import great_expectations as gx
from great_expectations.core import ExpectationSuite
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from prefect_stagegate.validations.engines import Engine, load_engine
from prefect_stagegate.validations.probes import PROBES, Unreadable, first_line, table_probe
from prefect_stagegate.validations.records import Judgement, TableJob, TableReport, Verdict
from prefect_stagegate.validations.results import error_of, is_about_the_suite, judge
from prefect_stagegate.validations.suites import build

RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 3}
"""Counts and three examples; COMPLETE would return every refused row."""
PAGES = {"parquet": "parquet-pages"}
"""The probe that reads a file to its end, by the probe that opens it, where the two differ."""

Judged = tuple[Expectation, Judgement, str]
"""An expectation, what came of it, and why it could not be evaluated."""


class BadSuites(Exception):
    """The suites can't be used; `args[0]` lists every problem of every table."""


def judge_tables(tables: Sequence[TableJob], scratch: Path, progress: Callable[[str], None]) -> Iterator[TableReport]:
    """Judge the tables one after the other, in one process and one context.

    Raises:
        BadSuites: Before any table is read, when some suite is wrong.
    """
    built = {table.name: build(table.name, table.suite) for table in tables}
    if problems := [problem for _, found in built.values() for problem in found]:
        raise BadSuites(problems)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    engines: dict[str, Engine] = {}
    for table in tables:
        expectations, _ = built[table.name]
        progress(f"judging table {table.name}: expectations {len(expectations)}, files {len(table.files)}")
        if table.engine not in engines:
            ours = [other for other in tables if other.engine == table.engine]
            engines[table.engine] = load_engine(table.engine)(context, ours, scratch)
        yield _judge_table(engines[table.engine], table, expectations)


def _judge_table(engine: Engine, table: TableJob, expectations: Sequence[Expectation]) -> TableReport:
    """Judge a table; when that fails for a file's sake, name the file and judge the rest."""
    judged, failure = _try_to_run(engine, table, expectations)
    unreadable = _unreadable(table) if failure else []
    if unreadable:
        table = table.without([file for file, _ in unreadable])
        judged = _try_to_run(engine, table, expectations)[0] if table.files else []
    located = [_with_places(engine, table, expectation, judgement) for expectation, judgement, _ in judged]
    return TableReport(table.name, located, unreadable)


def _try_to_run(engine: Engine, table: TableJob, expectations: Sequence[Expectation]) -> tuple[list[Judged], bool]:
    """All judgements, and whether something failed that the suite doesn't explain."""
    try:
        judged = _run(engine.batch(table), expectations, table.columns)
    except Exception as error:  # noqa: BLE001 - engines raise what their libraries raise
        problem = f"not evaluated: the table could not be read: {first_line(error)}"
        return [(one, _errored(one, problem, table.columns), str(error)) for one in expectations], True
    return judged, any(error and not is_about_the_suite(error) for _, _, error in judged)


def _run(batch: Batch, expectations: Sequence[Expectation], columns: Sequence[str]) -> list[Judged]:
    """Evaluate a suite as a whole, and once more alone what the others may have torn down with them.

    Great Expectations asks many figures in one query: when one of them can't be had, all of them fail.
    """
    results = batch.validate(_suite(expectations), result_format=RESULT_FORMAT).results
    judged = [_judged(result, columns) for result in results]
    return [
        _judged(batch.validate(_suite([expectation]), result_format=RESULT_FORMAT).results[0], columns)
        if error and not is_about_the_suite(error) and len(judged) > 1
        else (expectation, judgement, error)
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
    found = []
    for file, path in zip(table.files, table.paths(), strict=True):
        probe = table_probe(file)
        try:
            PROBES[PAGES.get(probe, probe)](path)
        except Unreadable as error:
            found.append((file, error.problem))
    return found


def _with_places(engine: Engine, table: TableJob, expectation: Expectation, judgement: Judgement) -> Judgement:
    if judgement.verdict is not Verdict.FAILED:
        return judgement
    return replace(judgement, places=engine.locate(table, expectation))
