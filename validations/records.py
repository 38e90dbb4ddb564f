"""What goes to the worker and what comes back, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TableJob:
    """One table to judge."""

    name: str
    engine: str
    suite: Mapping[str, Any]
    view: str
    """The folder that `files` lie below."""
    files: Sequence[str]
    """Paths in the dataset; all of them passed their probes."""
    columns: Sequence[str] = ()
    """The names of their columns, for texts."""

    def paths(self) -> list[Path]:
        """Where the files lie."""
        return [Path(self.view, file) for file in self.files]

    def without(self, files: Sequence[str]) -> TableJob:
        """The same table, less some files."""
        left_out = set(files)
        kept = [file for file in self.files if file not in left_out]
        return replace(self, files=kept)


class Verdict(StrEnum):
    """What came of one expectation."""

    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    """It could not be evaluated, so nothing is known about the data."""


@dataclass(frozen=True, slots=True)
class Place:
    """The rows of one file that an expectation refuses."""

    file: str
    rows: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of one expectation, with the figures."""

    expectation: str
    """The suite's own description, or the expectation's type and arguments."""
    column: str
    """The column or columns that it speaks of; empty when it speaks of the table."""
    severity: str
    """`critical`, `warning` or `info`."""
    verdict: Verdict
    problem: str = ""
    fix: str = ""
    places: Sequence[Place] = ()
    """The files that hold the refused rows, the most rows first; empty when they can't be told apart."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Judgement:
        """Read what `dataclasses.asdict` wrote."""
        places = tuple(Place(**place) for place in record["places"])
        return cls(**{**record, "verdict": Verdict(record["verdict"]), "places": places})


@dataclass(frozen=True, slots=True)
class TableReport:
    """What the worker found about one table."""

    name: str
    judgements: Sequence[Judgement]
    unreadable: Sequence[tuple[str, str]] = field(default=())
    """Files that passed their probes and yet could not be read to the end, with the reason; judged without them."""
    sandbox: str = "none"
    """What kept the process that judged it from opening anything else."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TableReport:
        """Read what `dataclasses.asdict` wrote."""
        judgements = tuple(Judgement.from_json(judgement) for judgement in record["judgements"])
        return cls(
            record["name"],
            judgements,
            tuple((file, reason) for file, reason in record["unreadable"]),
            record["sandbox"],
        )
