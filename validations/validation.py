"""Find out whether a version keeps its contract: probe files, compare schemas, judge tables, gather evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import MissingExtra, SpecError, UsageError, did_you_mean, install_hint
from prefect_stagegate.model import Entry, Outcome, Validation
from prefect_stagegate.model.measures import NO_PASSES, NO_VALUES, FileValues, PassedProbes
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.spec.vocabulary import type_problem
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.contract_evidence import gather, table_result
from prefect_stagegate.validations.data_docs import refuse_taken
from prefect_stagegate.validations.engines.engine import ENGINES
from prefect_stagegate.validations.files.file_probes import ProbedFiles, probe_files, silent
from prefect_stagegate.validations.observations import Observations
from prefect_stagegate.validations.suite_parameters import (
    FilledSuite,
    SuiteFacts,
    example_suite,
    fill_suite,
    misused,
    parameters_of,
)
from prefect_stagegate.validations.table_files import ContractTable, examine
from prefect_stagegate.validations.worker.child import judge_in_child
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import TableJob, TableReport

DEFAULT_LIMITS = ValidationLimits()
KEEPS = (Outcome.PASS, Outcome.WARN, Outcome.NOT_APPLICABLE)
"""Outcomes of checks with which a version keeps its contract."""


class KeptValues(Protocol):
    """Keeps what validations find out about single files."""

    def load(self, table: str) -> FileValues:
        """What an earlier validation computed; nothing where none did."""

    def save(self, table: str, values: FileValues) -> None:
        """Keep what this one computed."""

    def load_passed(self) -> PassedProbes:
        """Which files passed which probes in an earlier validation; none where there was none."""

    def save_passed(self, passed: PassedProbes) -> None:
        """Keep which files passed which probes in this one."""


def validate(  # noqa: PLR0913 - one parameter for each choice of the caller
    view: Path,
    entries: Iterable[Entry],
    contract: ContractSpec,
    *,
    dataset: str,
    digest: str,
    progress: Callable[[str], None] = silent,
    limits: ValidationLimits = DEFAULT_LIMITS,
    kept: KeptValues | None = None,
    cancel: Event | None = None,
    data_docs: Path | None = None,
    facts: SuiteFacts | None = None,
) -> Validation:
    """Judge one version that lies complete below `view`.

    Files that can't be opened, or whose columns break the contract, become findings; the tables are judged over the
    other files. Great Expectations runs in a child process, and only when a table has a suite to run.

    Args:
        view: The version's folder.
        entries: The version's entries; only those that the contract names are opened.
        contract: The dataset's contract.
        dataset: The dataset's name.
        digest: The version's digest; the evidence is bound to it.
        progress: Called with lines for people while the work goes on.
        limits: What the process that judges the tables may take.
        kept: What validations found out about single files; None to read all files and keep nothing.
        cancel: Set it to stop probing files.
        data_docs: A new or empty folder for Great Expectations' own pages of the results; None for no pages.
        facts: The values of the suites' parameters; None where nothing but this version is known.

    Raises:
        Cancelled: `cancel` was set.
        MissingExtra: The library of a probe is not installed, or Great Expectations, or the one of a table's engine.
        UsageError: The folder `data_docs` is not empty or can't be written, or no table has results to show.
        SpecError: The contract can't be used: an unknown type, engine or expectation, or a wrong argument.
            It lists every such problem.
        ValidationError: The process that judges the tables died, or ran out of time or memory, or too many that probe
            files died.
    """
    _refuse_problems(contract, dataset)
    if data_docs is not None:
        refuse_taken(data_docs)
    # Open every file first, so that bad files don't reach the suites.
    known = kept.load_passed() if kept else NO_PASSES
    files = probe_files(view, entries, contract, known=known, cancel=cancel, progress=progress)
    progress(f"opened {count_text(files.matched, 'file')}")
    if kept and files.passed.files:
        kept.save_passed(files.passed)
    if files.decoded_before:
        progress(f"probed {count_text(files.decoded, 'file')}; {files.decoded_before:,} passed before")
    tables = [examine(name, spec, files) for name, spec in contract.tables.items()]
    suites = _filled(tables, facts or SuiteFacts())
    jobs = [
        _job(table, suites[table.name].suite, view, files, kept.load(table.name) if kept else NO_VALUES)
        for table in tables
        if table.rows and table.name in suites and suites[table.name].suite["expectations"]
    ]
    if jobs:
        progress("loading Great Expectations")
    elif data_docs is not None:
        raise UsageError("There is nothing for Data Docs", hint="Give a table with rows a suite.", dataset=dataset)
    reports = _judge(jobs, dataset, limits, progress, data_docs)
    _keep(reports, kept, progress)
    parameters = {name: filled.used for name, filled in suites.items()}
    observations = Observations(files, tables, _complete(reports, tables, suites), parameters)
    evidence = gather(observations, digest=digest, at=stamp(now()))
    return Validation(
        dataset=dataset,
        digest=digest,
        passed=all(item.outcome in KEEPS for item in evidence),
        tables=tuple(table_result(table, observations) for table in tables),
        evidence=evidence,
    )


def _judge(
    jobs: Sequence[TableJob],
    dataset: str,
    limits: ValidationLimits,
    progress: Callable[[str], None],
    data_docs: Path | None,
) -> dict[str, TableReport]:
    """Judge tables, each group whose engines have the same rights in a process of its own."""
    deadline = time.monotonic() + limits.seconds
    for name in {job.engine for job in jobs}:
        _require_library(name, dataset)
    rights = {job.name: ENGINES[job.engine].rights for job in jobs}
    # Those with the fewest come last, so that their process makes the pages of all.
    groups = [[job for job in jobs if rights[job.name] == each] for each in sorted(set(rights.values()), reverse=True)]
    judged: list[tuple[TableJob, TableReport]] = []
    for group in groups:
        left = replace(limits, seconds=max(0.0, deadline - time.monotonic())) if judged else limits
        pages = data_docs if group is groups[-1] else None
        reports = judge_in_child(
            group, dataset=dataset, limits=left, progress=progress, data_docs=pages, judged=judged if pages else ()
        )
        judged += [(job, reports[job.name]) for job in group]
    return {job.name: report for job, report in judged}


def _require_library(engine: str, dataset: str) -> None:
    _require_great_expectations(dataset)
    library, install = ENGINES[engine].library, ENGINES[engine].install
    if library and find_spec(library) is None:
        problem = f"A table has `engine: {engine}`, and {engine.capitalize()} is not installed"
        raise MissingExtra(problem, hint=install, dataset=dataset)


def _require_great_expectations(dataset: str) -> None:
    if find_spec("great_expectations") is None:
        problem = "Suites need Great Expectations, which is not installed"
        raise MissingExtra(problem, hint=install_hint("gx"), dataset=dataset)


def _filled(tables: Sequence[ContractTable], facts: SuiteFacts) -> dict[str, FilledSuite]:
    """The suites with the values of their parameters, by table; none for a table without expectations."""
    rows = {table.name: table.rows for table in tables}
    return {
        table.name: fill_suite(table.suite or {}, parameters_of(table.name, rows, facts), table.zoneless)
        for table in tables
        if table.expectations
    }


def _keep(reports: Mapping[str, TableReport], kept: KeptValues | None, progress: Callable[[str], None]) -> None:
    """Keep the values of single files, and say how many files were read."""
    for name, report in reports.items():
        if report.read is not None:
            counted = count_text(len(report.values.files), "file")
            progress(f"table {name}: read {report.read} of {counted}; the others were counted before")
        if kept and report.values.files:
            kept.save(name, report.values)


def _complete(
    reports: Mapping[str, TableReport], tables: Sequence[ContractTable], suites: Mapping[str, FilledSuite]
) -> dict[str, TableReport]:
    """The reports with the expectations that are not applicable."""
    complete = dict(reports)
    for table in tables:
        idle = suites[table.name].not_applicable if table.name in suites and table.rows else ()
        if idle:
            report = complete.get(table.name, TableReport(table.name, ()))
            complete[table.name] = replace(report, judgements=[*report.judgements, *idle])
    return complete


def lint(contract: ContractSpec, *, dataset: str, limits: ValidationLimits = DEFAULT_LIMITS) -> None:
    """Find the mistakes in a contract without any data.

    Args:
        contract: The contract, with its suites.
        dataset: The dataset's name, for errors.
        limits: What the process that builds the suites may take.

    Raises:
        MissingExtra: A table has a suite, and Great Expectations is not installed.
        SpecError: As `validate`.
        ValidationError: The process that builds the suites died or ran out of time.
    """
    _refuse_problems(contract, dataset)
    jobs = [
        TableJob(name, contract.tables[name].engine, example_suite(suite, list(contract.tables)), view="", files=())
        for name, suite in _suites(contract).items()
    ]
    if jobs:
        _require_great_expectations(dataset)
        judge_in_child(jobs, dataset=dataset, limits=limits, progress=silent, lint=True)


def _suites(contract: ContractSpec) -> dict[str, Mapping[str, Any]]:
    """The suites as JSON values, by table."""
    suites = {name: table.model_dump(mode="json")["suite"] for name, table in contract.tables.items()}
    return {name: suite for name, suite in suites.items() if suite}


def _refuse_problems(contract: ContractSpec, dataset: str) -> None:
    if problems := list(_problems(contract)):
        raise SpecError(f"the contract of {dataset}", problems)


def _problems(contract: ContractSpec) -> Iterator[str]:
    """The mistakes in a contract that can be seen without Great Expectations."""
    for name, table in contract.tables.items():
        if table.engine not in ENGINES:
            yield f"table {name}: unknown engine {table.engine!r}: {did_you_mean(table.engine, ENGINES)}"
        for column, kind in table.columns.items():
            if problem := type_problem(kind):
                yield f"table {name}: column {column}: {problem}"
    for name, suite in _suites(contract).items():
        yield from misused(name, suite, list(contract.tables))


def _job(
    table: ContractTable, suite: Mapping[str, Any], view: Path, probed: ProbedFiles, known: FileValues
) -> TableJob:
    files = [file.path for file in table.judged]
    columns = list(dict.fromkeys(name for file in table.judged for name in file.schema.names))
    digests = {path: probed.digests[path] for path in files}
    # DuckDB writes `//cache` as `/cache`, and rows are attributed to files by their paths.
    folder, personal = str(Path("/", *view.absolute().parts[1:])), table.personal
    engine, rows = table.spec.engine, {file.path: file.rows for file in table.judged}
    return TableJob(
        table.name, engine, suite, folder, files, columns, digests, known, personal, rows, table.spec.reading
    )
