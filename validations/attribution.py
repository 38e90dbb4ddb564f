"""Attribute each file of a version to the validation that last read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from prefect_stagegate.measures import NO_VALUES, FileValues, PassedProbes
from prefect_stagegate.readings import Reading, Readings, grouped, used
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations.engines.engine import releases
from prefect_stagegate.validations.files.calls import ProbeCall, release
from prefect_stagegate.validations.observations import Observations
from prefect_stagegate.validations.partitions import row_digests
from prefect_stagegate.validations.records import TableReport
from prefect_stagegate.validations.tables import ContractTable

PROBES = "probes"
"""The subject of the files that probes decode."""
WRONG_COLUMNS = "its columns break the contract"


def reading_of_table(table: ContractTable, report: TableReport | None, reading: Reading) -> Reading:
    """This validation's reading of a table, with its suite and the libraries that judged it."""
    if report is None:
        return replace(reading, suite=table.suite_digest)
    engines = {table.spec.engine, *(judgement.engine for judgement in report.judgements if judgement.engine)}
    libraries = {f"{name} {release}" for engine in engines for name, release in releases(engine).items()}
    return replace(reading, suite=table.suite_digest, libraries=", ".join(sorted(libraries)))


def reading_of_probes(contract: ContractSpec, reading: Reading) -> Reading:
    """This validation's reading of the files that probes decode, with the libraries that decode."""
    calls = [ProbeCall.from_spec(probe) for item in contract.files for probe in item.probes]
    names = {release(call.name) for call in calls if call.decodes}
    return replace(reading, libraries=", ".join(sorted(filter(None, names))))


def with_reading(values: FileValues, known: FileValues, reading: Reading) -> FileValues:
    """The values of a table's files, with the readings that they name: this one, and those of earlier validations."""
    return replace(values, readings=used({**known.readings, reading.run: reading}, values.read_by.values()))


def passes_with_reading(passed: PassedProbes, known: PassedProbes, reading: Reading) -> PassedProbes:
    """The passes of probes, likewise."""
    runs = (run for passes in passed.files.values() for run in passes.values())
    return replace(passed, readings=used({**known.readings, reading.run: reading}, runs))


def attribute(observations: Observations, readings: Mapping[str, Reading]) -> Iterator[Readings]:
    """Yield which validation read which file, for each table and for the files that probes decode.

    Args:
        observations: Everything else that was observed.
        readings: This validation's reading of each table.
    """
    defects = {path: finding.problem for path, finding in observations.unreadable().items()}
    for table in observations.tables:
        read = {file.path: file.rows for file in observations.read(table)}
        unread = {path: defects.get(path, WRONG_COLUMNS) for path in table.listed if path not in read}
        report = observations.reports.get(table.name)
        values = report.values if report else NO_VALUES
        reading = readings[table.name]
        if values.read_by:
            digests = row_digests({path: observations.files.digests[path] for path in read}, table.spec.reading)
            read_by = {path: values.read_by.get(digest, "") for path, digest in digests.items()}
        else:  # nothing of it is kept by file, so this validation read all of it
            read_by = dict.fromkeys(read, reading.run)
        yield grouped(f"table {table.name}", read, read_by, {reading.run: reading, **values.readings}, unread)
    files = observations.files
    if files.decoded or files.decoded_before:
        rows = {path: files.facts[path].rows for path in files.read_by}
        unread = {path: defects[path] for path in files.undecoded}
        yield grouped(PROBES, rows, files.read_by, files.passed.readings, unread)
