"""Find out whether a version keeps its contract: probe files, compare schemas, judge tables, gather evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import MissingExtra, SpecError, did_you_mean
from prefect_stagegate.measures import NO_VALUES, FileValues
from prefect_stagegate.model import Entry, Outcome, Validation
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.columntypes import type_problem
from prefect_stagegate.validations.engines.engine import ENGINES, SPARK
from prefect_stagegate.validations.evidence import gather, table_result
from prefect_stagegate.validations.files.files import ProbedFiles, probe_files
from prefect_stagegate.validations.files.probes import PROBES
from prefect_stagegate.validations.observations import Observations
from prefect_stagegate.validations.records import TableJob, TableReport
from prefect_stagegate.validations.tables import ContractTable, examine
from prefect_stagegate.validations.worker.child import judge_in_child

TIMEOUT = 3600.0
"""Seconds that judging all tables of one version may take."""


class KeptValues(Protocol):
    """Keeps what validations compute of single files, by table."""

    def load(self, table: str) -> FileValues:
        """What an earlier validation computed; nothing where none did."""

    def save(self, table: str, values: FileValues) -> None:
        """Keep what this one computed."""


def _silent(_: str) -> None:
    pass


def validate(
    view: Path,
    entries: Iterable[Entry],
    contract: ContractSpec,
    *,
    dataset: str,
    digest: str,
    progress: Callable[[str], None] = _silent,
    timeout: float = TIMEOUT,
    kept: KeptValues | None = None,
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
        timeout: Seconds that judging the tables may take.
        kept: What validations computed of single files; None to read all files and keep nothing.

    Raises:
        SpecError: The contract can't be used: an unknown type, probe, engine or expectation, or a wrong argument.
            It lists every such problem.
        MissingExtra: A table is to be judged by Spark, which is not installed.
        ValidationError: The process that judges the tables died or ran out of time.
    """
    _refuse_problems(contract, dataset)
    # Open every file first, so that bad files don't reach the suites.
    files = probe_files(view, entries, contract)
    progress(f"opened {count_text(files.matched, 'file')}")
    tables = [examine(name, spec, files) for name, spec in contract.tables.items()]
    jobs = [
        _job(table, view, files, kept.load(table.name) if kept else NO_VALUES)
        for table in tables
        if table.expectations and table.rows
    ]
    if jobs:
        progress("loading Great Expectations")
    reports = _judge(jobs, dataset, timeout, progress)
    for name, report in reports.items():
        if report.read is not None:
            counted = count_text(len(report.values.files), "file")
            progress(f"table {name}: read {report.read} of {counted}; the others were counted before")
        if kept and report.values.files:
            kept.save(name, report.values)
    observations = Observations(files, tables, reports)
    evidence = gather(observations, digest=digest, at=stamp(now()))
    return Validation(
        dataset=dataset,
        digest=digest,
        passed=all(item.outcome in (Outcome.PASS, Outcome.WARN) for item in evidence),
        tables=tuple(table_result(table, observations) for table in tables),
        evidence=evidence,
    )


def _judge(
    jobs: Sequence[TableJob], dataset: str, timeout: float, progress: Callable[[str], None]
) -> dict[str, TableReport]:
    """Judge tables: those on Spark in a process of their own, which needs more rights than the others get."""
    deadline = time.monotonic() + timeout
    reports: dict[str, TableReport] = {}
    for on_spark in (False, True):
        if group := [job for job in jobs if (job.engine == SPARK) is on_spark]:
            if on_spark:
                _require_spark(dataset)
            left = max(0.0, deadline - time.monotonic())
            reports |= judge_in_child(group, dataset=dataset, timeout=left, progress=progress)
    return reports


def _require_spark(dataset: str) -> None:
    if find_spec("pyspark") is None:
        raise MissingExtra(
            "A table has `engine: spark`, and Spark is not installed",
            hint='Install it, beside a Java 17 or 21: pip install "prefect-stagegate[spark]"',
            dataset=dataset,
        )


def lint(contract: ContractSpec, *, dataset: str, timeout: float = TIMEOUT) -> None:
    """Find the mistakes in a contract without any data.

    Args:
        contract: The contract, with its suites.
        dataset: The dataset's name, for errors.
        timeout: Seconds that loading Great Expectations and building the suites may take.

    Raises:
        SpecError: As `validate`.
        ValidationError: The process that builds the suites died or ran out of time.
    """
    _refuse_problems(contract, dataset)
    suites = {name: table.model_dump(mode="json")["suite"] for name, table in contract.tables.items()}
    jobs = [
        TableJob(name, contract.tables[name].engine, suite, view="", files=())
        for name, suite in suites.items()
        if suite
    ]
    if jobs:
        judge_in_child(jobs, dataset=dataset, timeout=timeout, progress=_silent, lint=True)


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
    for item in contract.files:
        for probe in item.probes:
            if probe not in PROBES:
                yield f"files {item.match}: unknown probe {probe!r}: {did_you_mean(probe, PROBES)}"


def _job(table: ContractTable, view: Path, probed: ProbedFiles, known: FileValues) -> TableJob:
    files = [file.path for file in table.judged]
    columns = list(dict.fromkeys(name for file in table.judged for name in file.schema.names))
    digests = {path: probed.digests[path] for path in files}
    folder = str(view.absolute())
    suite = table.suite or {}
    return TableJob(table.name, table.spec.engine, suite, folder, files, columns, digests, known, table.rows)
