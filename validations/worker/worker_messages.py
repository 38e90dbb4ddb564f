"""The records that the parent sends to the worker and gets back, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from prefect_stagegate.model.measures import NO_VALUES, FileValues
from prefect_stagegate.spec.csv_dialect import AS_USUAL, CsvSpec, TextReading


@dataclass(frozen=True, slots=True)
class TableJob:
    """One table to judge."""

    name: str
    engine: str
    suite: Mapping[str, Any]
    view: str
    """The folder that `files` lie below."""
    files: Sequence[str]
    """Paths in the dataset of files that passed their probes."""
    columns: Sequence[str] = ()
    """The names of the table's columns, for messages."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """The digest of each file's bytes, by its path in the dataset; empty to keep no values of files."""
    known: FileValues = NO_VALUES
    """What an earlier validation computed of these files, or of others."""
    personal: Sequence[str] = ()
    """The columns with personal data, whose values are masked."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """The rows that its probe counted in each file; empty where nobody counted."""
    reading: TextReading = AS_USUAL
    """How its text files are read."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TableJob:
        """Read what `dataclasses.asdict` wrote."""
        csv, columns = record["reading"]
        reading = TextReading(CsvSpec.model_validate(csv), tuple((name, kind) for name, kind in columns))
        return cls(**{**record, "known": FileValues(**record["known"]), "reading": reading})

    def paths(self) -> list[Path]:
        """The files' paths on this node."""
        return [Path(self.view, file) for file in self.files]

    def without(self, files: Sequence[str]) -> TableJob:
        """The same job without these files."""
        left_out = set(files)
        rows = {file: count for file, count in self.rows.items() if file not in left_out}
        return replace(self, files=[file for file in self.files if file not in left_out], rows=rows)


class ExpectationVerdict(StrEnum):
    """Whether one expectation holds."""

    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    """It could not be evaluated, so nothing is known about the data."""
    NOT_APPLICABLE = "not-applicable"
    """A parameter of it has no value for this version."""


@dataclass(frozen=True, slots=True)
class RefusedRows:
    """The rows of one file that an expectation refuses."""

    file: str
    rows: int
    example: str = ""
    """One of them, in the form for records: text as its pattern, personal values masked."""


@dataclass(frozen=True, slots=True)
class ShownValues:
    """Values of the data that explain a verdict, as text. Those of personal columns are masked."""

    observed: str = ""
    """The figure that decided, or what stands in its place; empty for an expectation that judges rows."""
    examples: Sequence[str] = ()
    """Different values that it refuses, five at most."""


NO_SHOWN_VALUES = ShownValues()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one expectation, with its figures."""

    expectation: str
    """The suite's own description, or the expectation's type and arguments."""
    column: str
    """The column or columns that it is about; empty when it is about the table."""
    severity: str
    """`critical`, `warning` or `info`."""
    verdict: ExpectationVerdict
    problem: str = ""
    fix: str = ""
    places: Sequence[RefusedRows] = ()
    """The files that hold the refused rows, the most rows first; empty when the files are not known."""
    rows: int | None = None
    """Rows that were judged one by one; None for an expectation about the table or a figure of it."""
    refused: int | None = None
    """Rows that it refuses; None where it judges no rows."""
    shown: ShownValues = NO_SHOWN_VALUES
    """The values for the run's caller."""
    recorded: ShownValues = NO_SHOWN_VALUES
    """The same in the form for records: text as its pattern."""
    seconds: float | None = None
    """How long its queries took; of a query for several expectations, its part."""
    engine: str = ""
    """The engine that judged in place of the table's own, which does not know the expectation."""


_JUDGEMENTS = TypeAdapter(tuple[Judgement, ...])
NO_SANDBOX = "none"


@dataclass(frozen=True, slots=True)
class TableReport:
    """The worker's report on one table."""

    name: str
    judgements: Sequence[Judgement]
    unreadable: Sequence[tuple[str, str]] = field(default=())
    """Files that passed their probes but could not be read to the end, with the reason; they are not judged."""
    sandbox: str = NO_SANDBOX
    """What confined the judging process: `Landlock 5`, or `none` with the reason."""
    values: FileValues = NO_VALUES
    """The aggregates of the files, which a later validation need not compute again."""
    read: int | None = None
    """Files that were read for their aggregates; None where the engine keeps none."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TableReport:
        """Read what `dataclasses.asdict` wrote."""
        judgements = _JUDGEMENTS.validate_python(record["judgements"])
        # As they are: of many files, there are too many values to look at each.
        values, unreadable = FileValues(**record["values"]), tuple(map(tuple, record["unreadable"]))
        return cls(**{**record, "judgements": judgements, "values": values, "unreadable": unreadable})
